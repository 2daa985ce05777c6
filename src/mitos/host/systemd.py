"""systemd of this machine: the files of its units, and what `systemctl` does with them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from mitos.host import process
from mitos.host.process import CommandError

__all__ = ["UNITS", "SystemdError", "is_running", "show", "systemctl", "write"]

UNITS = Path("/etc/systemd/system")
"""The units of whoever runs this machine."""

_RUNNING = Path("/run/systemd/system")
"""Its presence says that systemd is the machine's init: sd_booted(3)."""

_TIMEOUT_S = 600.0
"""A unit's own limits end sooner."""


class SystemdError(Exception):
    """systemd did not do what was asked; the message is its own."""


def is_running() -> bool:
    """True where systemd runs this machine."""
    return _RUNNING.is_dir() and shutil.which("systemctl") is not None


async def systemctl(*words: str) -> str:
    """Runs `systemctl`; returns what it said.

    Raises:
        SystemdError: it failed.
    """
    try:
        done = await process.run(["systemctl", "--no-ask-password", *words], timeout_s=_TIMEOUT_S)
    except CommandError as exc:
        raise SystemdError(str(exc)) from exc
    return done.stdout.decode("utf-8", "replace")


async def show(unit: str, *properties: str) -> dict[str, str]:
    """Properties of a unit; those of one that is not there have values too.

    Raises:
        SystemdError: it failed.
    """
    said = await systemctl("show", unit, *(f"--property={name}" for name in properties))
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def write(path: Path, text: str) -> bool:
    """Writes a unit whole or not at all, for everybody to read; False when it is there like that.

    Raises:
        OSError: it cannot be written.
    """
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if path.read_text() == text and path.stat().st_mode & 0o777 == 0o644:
            return False
    descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    return True
