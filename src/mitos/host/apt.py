"""Debian's package archive, reached the way this machine is set up to reach it.

The mirror and the proxy come from the host's own apt settings, so a machine behind a company
mirror keeps using it; nothing of them is written into what we build.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mitos.host import process

__all__ = ["DEFAULT_MIRRORS", "KEYRING", "Mirrors", "acquire_options", "mirrors"]

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""Keys that sign Debian's archive; from the package `debian-archive-keyring`."""

_SUITES = frozenset(
    ["bookworm", "bullseye", "forky", "oldstable", "sid", "stable", "testing", "trixie", "unstable"]
)
_ACQUIRE = re.compile(r"^Acquire::(?:https?::|Check-|Retries|ForceIPv)\S* \".+\";$")
_QUERY_TIMEOUT_S = 30.0


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
