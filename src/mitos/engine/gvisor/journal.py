"""What is written down of a sandbox, so that a later process can find it again and prove it.

    <state>/machines/<id>/machine.json   {"version", "boot", "format", "spec", "user", "kernel",
                                          "gofer"}
    <state>/machines/<id>/activity       one byte: does it run, or stand still?

The first is written before the sandbox is made, and again when its processes are there. The second
is written in place whenever that changes, so that it needs no room on a disk that is full.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mitos.engine.base import EngineError, EngineFault, MachineSpec

__all__ = [
    "Activity",
    "Entry",
    "Process",
    "digest",
    "read",
    "read_activity",
    "write",
    "write_activity",
]

VERSION = 1

_NAME = "machine.json"
_ACTIVITY = "activity"
_LIMIT_BYTES = 1 << 16


class Activity(enum.Enum):
    """What a sandbox does, as its one byte says."""

    MAKING = b"m"  # its kernel is not there yet, or lacks something
    BLANK = b"b"  # its kernel waits to be filled
    RUNNING = b"r"
    CHANGING = b"c"  # the order to pause or resume is on its way, or was cut short
    PAUSED = b"p"


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
        spec: the digest of what it is made of.
        user: its user on the host; None when it has none of its own.
        kernel: None while it is being made.
        gofer: None when it has none.
    """

    boot: str
    format: str
    spec: str
    user: int | None
    kernel: Process | None = None
    gofer: Process | None = None


def digest(spec: MachineSpec) -> str:
    """SHA-256 of a spec, in hex: alike for specs that are equal."""
    root = [spec.rootfs.kind.value, str(spec.rootfs.path)]
    parts = [root, str(spec.guest), asdict(spec.resources), sorted(spec.environment.items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def write(folder: Path, entry: Entry) -> None:
    """Writes an entry, whole or not at all; the first one also says that it is in the making.

    Raises:
        OSError: it cannot be written.
    """
    if not (folder / _ACTIVITY).exists():
        (folder / _ACTIVITY).write_bytes(Activity.MAKING.value)
    partial = folder / f"{_NAME}.partial"
    partial.write_text(json.dumps({"version": VERSION, **asdict(entry)}))
    partial.replace(folder / _NAME)


def read(folder: Path) -> Entry | None:
    """The entry of a sandbox; None when there is none, or it is damaged.

    Raises:
        EngineError: `UNAVAILABLE`, a later release wrote it.
        OSError: it cannot be read now.
    """
    try:
        with (folder / _NAME).open("rb") as file:
            kept = json.loads(file.read(_LIMIT_BYTES))
        version = int(kept["version"])
        if version == VERSION:
            return _entry(kept)
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    raise EngineError(
        f"the journal of sandbox {folder.name} is of version {version}, this engine knows"
        f" {VERSION}",
        fault=EngineFault.UNAVAILABLE,
        remediation="Start the server that wrote it again, or give this one another --home.",
    )


def write_activity(folder: Path, activity: Activity) -> None:
    """Notes what a sandbox does from now on.

    Raises:
        OSError: it is gone.
    """
    descriptor = os.open(folder / _ACTIVITY, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.pwrite(descriptor, activity.value, 0)
    finally:
        os.close(descriptor)


def read_activity(folder: Path) -> Activity:
    """What a sandbox does, as far as it was noted.

    Raises:
        OSError: it cannot be read now.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError):
        return Activity((folder / _ACTIVITY).read_bytes()[:1])
    return Activity.CHANGING


def _entry(kept: dict[str, Any]) -> Entry:
    return Entry(
        boot=str(kept["boot"]),
        format=str(kept["format"]),
        spec=str(kept["spec"]),
        user=None if kept["user"] is None else int(kept["user"]),
        kernel=_process(kept["kernel"]),
        gofer=_process(kept["gofer"]),
    )


def _process(kept: dict[str, Any] | None) -> Process | None:
    return None if kept is None else Process(int(kept["pid"]), int(kept["started"]))
