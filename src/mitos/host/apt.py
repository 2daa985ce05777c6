"""Debian's package archive, reached the way this machine is set up to reach it.

The mirror and the proxy come from the host's own apt settings, so a machine behind a company
mirror keeps using it; nothing of them is written into what we build. A single package can be
fetched from any suite without touching the host's sources: apt gets a state folder of its own.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mitos.host import process

__all__ = ["DEFAULT_MIRRORS", "KEYRING", "Mirrors", "acquire_options", "fetch", "mirrors"]

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""Keys that sign Debian's archive; from the package `debian-archive-keyring`."""

_SUITES = frozenset(
    ["bookworm", "bullseye", "forky", "oldstable", "sid", "stable", "testing", "trixie", "unstable"]
)
_ACQUIRE = re.compile(r"^Acquire::(?:https?::|Check-|Retries|ForceIPv)\S* \".+\";$")
_QUERY_TIMEOUT_S = 30.0
_UPDATE_TIMEOUT_S = 300.0
_DOWNLOAD_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Mirrors:
    """Base addresses of Debian's archive and of its security updates."""

    main: str
    security: str

    def sources(self, suite: str) -> list[str]:
        """One-line apt sources of a release with its updates, signed by Debian's keys."""
        option = f"[signed-by={KEYRING}]"
        return [
            f"deb {option} {self.main} {suite} main",
            f"deb {option} {self.main} {suite}-updates main",
            f"deb {option} {self.security} {suite}-security main",
        ]


DEFAULT_MIRRORS = Mirrors(
    main="http://deb.debian.org/debian", security="http://deb.debian.org/debian-security"
)
"""Used where the host has no Debian sources of its own. Packages are signed, so http will do."""


async def mirrors() -> Mirrors:
    """The mirrors of the host's apt sources, Debian's own where it names none."""
    try:
        said = await process.run(
            ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)"],
            timeout_s=_QUERY_TIMEOUT_S,
        )
    except process.CommandError:
        return DEFAULT_MIRRORS
    return parse_mirrors(said.stdout.decode("utf-8", "replace"))


def parse_mirrors(text: str) -> Mirrors:
    """Reads lines of `address suite`; the first of each kind counts."""
    main = security = ""
    for line in text.splitlines():
        address, _, release = line.strip().partition(" ")
        suite, _, suffix = release.partition("-")
        if suite not in _SUITES or not address.startswith(("http://", "https://")):
            continue
        if suffix == "security":
            security = security or address.rstrip("/")
        elif not suffix:
            main = main or address.rstrip("/")
    return Mirrors(main or DEFAULT_MIRRORS.main, security or DEFAULT_MIRRORS.security)


async def acquire_options() -> list[str]:
    """The host's settings for fetching (proxies, validity checks) in apt's own notation."""
    try:
        said = await process.run(["apt-config", "dump"], timeout_s=_QUERY_TIMEOUT_S)
    except process.CommandError:
        return []
    lines = said.stdout.decode("utf-8", "replace").splitlines()
    return [line for line in lines if _ACQUIRE.match(line)]


async def fetch(package: str, suite: str, directory: Path) -> Path:
    """Downloads one package; apt checks its signature and checksum.

    Args:
        package: its name.
        suite: the suite to take it from, such as `bookworm-backports`.
        directory: an empty folder to work in; the caller removes it.

    Returns:
        The `.deb` file, inside `directory`.

    Raises:
        CommandError: apt is missing, cannot reach the archive, or finds a bad signature.
    """
    for part in ("state/lists/partial", "cache/archives/partial", "out"):
        (directory / part).mkdir(parents=True)
    found = await mirrors()
    source = directory / "sources.list"
    source.write_text(f"deb [signed-by={KEYRING}] {found.main} {suite} main\n")
    options = _private(directory, source)
    await process.run(["apt-get", *options, "update"], timeout_s=_UPDATE_TIMEOUT_S)
    await process.run(
        ["apt-get", *options, "download", f"{package}/{suite}"],
        timeout_s=_DOWNLOAD_TIMEOUT_S,
        directory=directory / "out",
    )
    downloaded = list((directory / "out").glob("*.deb"))
    if len(downloaded) != 1:
        raise process.CommandError(f"apt-get left {len(downloaded)} packages, not 1")
    return downloaded[0]


def _private(directory: Path, source: Path) -> list[str]:
    settings = {
        "Dir::Etc::sourcelist": source,
        "Dir::Etc::sourceparts": "-",
        "Dir::State": directory / "state",
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": directory / "cache",
        "Acquire::Languages": "none",
        # apt would otherwise drop to a user that may not enter our folder.
        "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
    }
    words = ["-q"]
    for name, value in settings.items():
        words += ["-o", f"{name}={value}"]
    return words
