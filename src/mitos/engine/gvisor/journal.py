"""What is written down of a sandbox, so that a later process can find it again and prove it.

    <state>/machines/<id>/machine.json   {"version", "boot", "format", "user", "kernel", "gofer"}
    <state>/machines/<id>/pause          one byte: does it stand still?

The first is written before the sandbox is made, and again when its processes are there. The second
is written in place around each pause, so that it needs no room on a disk that is full.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mitos.engine.base import EngineError, EngineFault

__all__ = ["Entry", "Pause", "Process", "read", "read_pause", "write", "write_pause"]

VERSION = 1

_NAME = "machine.json"
_PAUSE = "pause"
_LIMIT_BYTES = 1 << 16


class Pause(enum.Enum):
    """Whether a sandbox is paused, as its one byte says."""

    NO = b"n"
    CHANGING = b"c"  # an order is on its way, or was cut short
    YES = b"y"


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the host: an id may be used again, an id with its start never.

    Attributes:
        pid: its id.
        started: ticks since the host booted, as proc(5) says.
    """

    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a sandbox.

    Attributes:
        boot: of the host in which it was made.
        format: names what can read its snapshots.
        user: its user on the host; None when it has none of its own.
        kernel: None while it is being made.
        gofer: None when it has none.
    """

    boot: str
    format: str
    user: int | None
    kernel: Process | None = None
    gofer: Process | None = None


def write(folder: Path, entry: Entry) -> None:
    """Writes an entry, whole or not at all; the first one also says that nothing is paused.

    Raises:
        OSError: it cannot be written.
    """
    if not (folder / _PAUSE).exists():
        (folder / _PAUSE).write_bytes(Pause.NO.value)
    partial = folder / f"{_NAME}.partial"
    partial.write_text(json.dumps({"version": VERSION, **asdict(entry)}))
    partial.replace(folder / _NAME)


def read(folder: Path) -> Entry | None:
    """The entry of a sandbox; None when there is none, or it is damaged.

    Raises:
        EngineError: `UNAVAILABLE`, a later release wrote it.
    """
    try:
        with (folder / _NAME).open("rb") as file:
            kept = json.loads(file.read(_LIMIT_BYTES))
        version = int(kept["version"])
        if version == VERSION:
            return _entry(kept)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    raise EngineError(
        f"the journal of sandbox {folder.name} is of version {version}, this engine knows"
        f" {VERSION}",
        fault=EngineFault.UNAVAILABLE,
        remediation="Start the server that wrote it again, or give this one another --home.",
    )


def write_pause(folder: Path, pause: Pause) -> None:
    """Notes whether a sandbox is paused.

    Raises:
        OSError: it is gone.
    """
    descriptor = os.open(folder / _PAUSE, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.pwrite(descriptor, pause.value, 0)
    finally:
        os.close(descriptor)


def read_pause(folder: Path) -> Pause:
    """Whether a sandbox is paused, as far as it was noted."""
    with contextlib.suppress(OSError, ValueError):
        return Pause((folder / _PAUSE).read_bytes()[:1])
    return Pause.CHANGING


def _entry(kept: dict[str, Any]) -> Entry:
    return Entry(
        boot=str(kept["boot"]),
        format=str(kept["format"]),
        user=None if kept["user"] is None else int(kept["user"]),
        kernel=_process(kept["kernel"]),
        gofer=_process(kept["gofer"]),
    )


def _process(kept: dict[str, Any] | None) -> Process | None:
    return None if kept is None else Process(int(kept["pid"]), int(kept["started"]))
