"""Puts `runsc` under the Mitos home, without touching the machine's apt sources.

Debian's stable suite has a release that is too old, so the package comes from backports into a
private apt state; its one static binary is kept as `<home>/bin/runsc-<version>`, with the link
`<home>/bin/runsc` on it. `mitos.engine.install` calls this.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from mitos.engine.gvisor import version
from mitos.engine.kind import InstallError
from mitos.host import apt, process

__all__ = ["install_runsc", "runsc_path"]

_PACKAGE = "runsc"
_SUITE = "bookworm-backports"
_UNPACK_TIMEOUT_S = 120.0
_VERSION_TIMEOUT_S = 10.0


def runsc_path(home: Path) -> Path:
    """Where `runsc` is, or would be, in a Mitos home."""
    return home / "bin" / "runsc"


async def install_runsc(home: Path) -> Path:
    """Fetches `runsc` and puts it in place in one step.

    Args:
        home: the Mitos home; made if absent.

    Returns:
        The path of the link, `<home>/bin/runsc`.

    Raises:
        InstallError: it cannot be fetched or does not run here.
    """
    link = runsc_path(home)
    link.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="installing-", dir=link.parent) as work:
        try:
            binary = await _unpack(Path(work))
        except process.CommandError as exc:
            raise InstallError(
                f"runsc could not be installed: {exc}\n"
                f"Put a runsc release of {version.MINIMUM} or later at {link} instead."
            ) from exc
        kept = link.with_name(f"runsc-{await _release(binary)}")
        binary.replace(kept)
        pointer = Path(work) / "link"
        pointer.symlink_to(kept.name)
        pointer.replace(link)
    return link


async def _unpack(work: Path) -> Path:
    if shutil.which("apt-get") is None or not apt.KEYRING.exists():
        raise process.CommandError(
            "this needs apt-get and Debian's archive keys (package debian-archive-keyring)"
        )
    download = work / "apt"
    download.mkdir()
    package = await apt.fetch(_PACKAGE, _SUITE, download)
    tree = work / "tree"
    await process.run(["dpkg-deb", "-x", package, tree], timeout_s=_UNPACK_TIMEOUT_S)
    binary = tree / "usr" / "bin" / "runsc"
    binary.chmod(0o755)
    return binary


async def _release(binary: Path) -> str:
    """Its version for a file name; running it also shows that it fits this machine."""
    try:
        said = await process.run([binary, "--version"], timeout_s=_VERSION_TIMEOUT_S)
    except process.CommandError as exc:
        raise InstallError(f"the runsc that was fetched does not run here: {exc}") from exc
    words = said.stdout.decode("utf-8", "replace").split()
    release = words[2] if len(words) > 2 else "unknown"
    return "".join(letter for letter in release if letter.isalnum() or letter in ".-_~")
