"""The guest files of this installation: the agent and the code kernels, laid out for an engine.

`scripts/build-agent` puts them into `mitos/_guest`, the wheel carries them; an engine mounts the
folder that `materialize` returns at `/opt/mitos`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path

__all__ = ["GuestMissingError", "materialize"]

_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


class GuestMissingError(RuntimeError):
    """The agent for this machine is not part of the installation."""

    remediation = "Run scripts/build-agent, or install a wheel that carries the agent."


def materialize(directory: Path) -> Path:
    """Lays out `<directory>/<hash>/agent` and `…/kernels/*`, if they are not there yet.

    Safe to call any number of times, also at the same time: a folder appears whole or not at all.

    Args:
        directory: where versions are kept; made if absent.

    Returns:
        The folder of this version, to be used as `MachineSpec.guest`.

    Raises:
        GuestMissingError: no agent was built for this machine's architecture.
        OSError: the folder cannot be written.
    """
    files = _read_files()
    target = directory / _digest(files)
    if target.is_dir():
        return target
    directory.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=directory, prefix=".partial-"))
    try:
        _write_files(work, files)
        with contextlib.suppress(FileExistsError):
            _rename(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _read_files() -> Mapping[str, bytes]:
    package = importlib.resources.files("mitos") / "_guest"
    machine = platform.machine().lower()
    agent = package / f"agent-{_ARCHITECTURES.get(machine, machine)}"
    kernels = package / "kernels"
    if not agent.is_file() or not kernels.is_dir():
        raise GuestMissingError(
            f"no guest agent for {machine} in {package}: {GuestMissingError.remediation}"
        )
    named: dict[str, Traversable] = {"agent": agent}
    named |= dict(_walk(kernels, "kernels"))
    return {name: named[name].read_bytes() for name in sorted(named)}


def _walk(directory: Traversable, name: str) -> Iterator[tuple[str, Traversable]]:
    """Every file beneath a folder of the package, with its path."""
    for entry in directory.iterdir():
        path = f"{name}/{entry.name}"
        if entry.is_file():
            yield path, entry
        elif entry.name != "__pycache__":
            yield from _walk(entry, path)


def _digest(files: Mapping[str, bytes]) -> str:
    content = hashlib.sha256()
    for name, data in files.items():
        content.update(f"{name}\0{len(data)}\0".encode() + data)
    return content.hexdigest()[:24]


def _write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        path = directory / name
        _make_folder(directory, path.parent)
        path.write_bytes(data)
        path.chmod(0o755)


def _make_folder(root: Path, folder: Path) -> None:
    """Makes a folder beneath the root; readable for all, whatever the umask."""
    if folder != root:
        _make_folder(root, folder.parent)
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)


def _rename(work: Path, target: Path) -> None:
    """Moves a folder to its final name.

    Raises:
        FileExistsError: somebody else was faster.
    """
    try:
        os.rename(work, target)  # noqa: PTH104 - Path.rename would do the same
    except OSError as exc:
        if target.is_dir():
            raise FileExistsError(str(target)) from exc
        raise
