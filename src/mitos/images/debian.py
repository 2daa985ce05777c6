"""Root filesystems from Debian packages, made by `mmdebstrap`.

What is only needed to install packages, and what nobody reads inside a sandbox (manuals, package
lists), is left out. The result names Debian's public archive as its source, whatever mirror this
machine used.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mitos.host import apt, process
from mitos.images import tree
from mitos.images.image import DebianImage, ImageBuildError

__all__ = ["REVISION", "DebianMaker", "build", "command"]

REVISION = 1
"""Counts changes of the recipe below: a new one makes every Debian image anew."""

_BUILD_TIMEOUT_S = 1800.0
_MISSING = (
    "mmdebstrap is not installed, and Debian images are built with it. "
    "Run: apt-get install -y mmdebstrap"
)

_UNWANTED_PATHS = (
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
)
_KEPT_PATHS = ("/usr/share/doc/*/copyright",)

# Filled by the build or by package scripts, and stale or of no use in a sandbox.
_EMPTIED = ("dev", "run", "tmp", "var/cache", "var/lib/apt/lists", "var/log", "var/tmp")
_REMOVED = (
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/apt/sources.list",
    "etc/hostname",
    "etc/machine-id",
    "etc/resolv.conf",
    "var/lib/dbus/machine-id",
)


@dataclass(frozen=True, slots=True)
class DebianMaker:
    """Installs the packages of an image."""

    image: DebianImage

    def fingerprint(self) -> str:
        """The release, the packages, and how they are installed."""
        packages = sorted(set(self.image.packages))
        return "\n".join(["debian", str(REVISION), self.image.suite, *packages, platform.machine()])

    async def fill(self, root: Path, progress: Callable[[str], None]) -> None:
        """Installs the packages.

        Raises:
            ImageBuildError: as `build`.
        """
        progress("building from Debian packages")
        await build(self.image, root, progress)


async def build(image: DebianImage, root: Path, progress: Callable[[str], None]) -> None:
    """Installs the image's packages into an empty folder.

    Args:
        image: what to install.
        root: the folder; whatever is in it after a failure is the caller's to remove.
        progress: told each stage.

    Raises:
        ImageBuildError: `mmdebstrap` is missing or failed; the message ends with what it said last.
    """
    if os.geteuid() != 0:
        raise ImageBuildError("Debian images can only be built as root")
    if shutil.which("mmdebstrap") is None:
        raise ImageBuildError(_MISSING)
    if not apt.KEYRING.exists():
        raise ImageBuildError(f"{apt.KEYRING} is missing: install debian-archive-keyring")
    found = await apt.mirrors()
    argv = command(image, root, sources=found.sources(image.suite), apt=await apt.acquire_options())
    try:
        await process.run(argv, timeout_s=_BUILD_TIMEOUT_S, on_output=_Stages(progress))
    except process.CommandError as exc:
        raise ImageBuildError(f"image {image.name!r} could not be built: {exc}") from exc
    progress("removing what a sandbox does not need")
    _trim(root)
    _finish(image, root)


def command(
    image: DebianImage, root: Path, *, sources: Sequence[str], apt: Sequence[str]
) -> list[str]:
    """The command line that installs the image.

    Args:
        image: what to install.
        root: where.
        sources: apt source lines.
        apt: further apt settings, needed only to reach the archive.
    """
    # In namespaces of its own: when it is killed, its mounts and everything it started go with it.
    argv = ["setpriv", "--pdeathsig", "KILL", "--", "unshare"]
    argv += ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    argv += ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"]
    argv += [f"--include={','.join(image.packages)}"]
    argv += [f"--aptopt={setting}" for setting in ('Acquire::Languages "none"', *apt)]
    argv += ['--aptopt=Acquire::Retries "3"', '--aptopt=APT::Install-Recommends "false"']
    argv += [f"--dpkgopt=path-exclude={path}" for path in _UNWANTED_PATHS]
    argv += [f"--dpkgopt=path-include={path}" for path in _KEPT_PATHS]
    return [*argv, image.suite, str(root), *sources]


class _Stages:
    """Turns what `mmdebstrap` prints into progress: its `I:` lines are its stages."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        self._progress = progress
        self._partial = b""

    def __call__(self, data: bytes) -> None:
        *lines, rest = (self._partial + data).split(b"\n")
        self._partial = rest[-4096:]
        for line in lines:
            text = line.decode("utf-8", "replace").strip()
            if text.startswith("I: ") and text.endswith("..."):
                self._progress(text.removeprefix("I: ").removesuffix("..."))


def _trim(root: Path) -> None:
    for path in _EMPTIED:
        tree.remove(root, path, content_only=True)
    for path in _REMOVED:
        tree.remove(root, path)
    for listed in (root / "etc/apt/sources.list.d").iterdir():
        listed.unlink()
    # The interpreter belongs to the sandbox, so pip may install into it.
    for marker in (root / "usr/lib").glob("python3*/EXTERNALLY-MANAGED"):
        marker.unlink()


def _finish(image: DebianImage, root: Path) -> None:
    sources = apt.DEFAULT_MIRRORS.sources(image.suite)
    tree.write(root, "etc/apt/sources.list", "\n".join([*sources, ""]))
    tree.write(root, "etc/hostname", "sandbox\n")
    # Empty means "not set yet": the agent writes one per sandbox.
    tree.write(root, "etc/machine-id", "")
    if (root / "usr/bin/python3").exists() and not os.path.lexists(root / "usr/bin/python"):
        (root / "usr/bin/python").symlink_to("python3")
