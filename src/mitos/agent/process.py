"""The agent's reading of a sandbox's processes, as values. Bytes from the guest are hostile."""

from __future__ import annotations

from dataclasses import dataclass

from mitos.wire.link import Fields, Tag, decode_entries

__all__ = ["MAX_INT32", "MAX_INT64", "MAX_UINT32", "ProcessEntry", "ProcessReading"]

_STATES = {"R": "R", "S": "S", "D": "D", "Z": "Z", "T": "T", "t": "T", "X": "Z", "I": "S"}
"""Letters of proc(5) as the contract's five: traced is stopped, dead is a zombie, idle sleeps."""

MAX_INT32 = (1 << 31) - 1
MAX_UINT32 = (1 << 32) - 1
MAX_INT64 = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """One process; `start_ticks` tells it from a later one with the same id."""

    pid: int
    ppid: int
    name: str
    state: str
    cpu_ns: int
    resident_bytes: int
    start_ticks: int

    @classmethod
    def of(cls, fields: Fields) -> ProcessEntry:
        """Reads one entry; numbers that a message cannot carry are cut."""
        name = fields.get_raw(Tag.NAME) or b""
        return cls(
            pid=min(fields.get_uint(Tag.PID), MAX_INT32),
            ppid=min(fields.get_uint(Tag.PARENT_PID), MAX_INT32),
            name=name.decode("utf-8", "replace"),
            state=_STATES.get(fields.get_text(Tag.STATE), "S"),
            cpu_ns=fields.get_uint(Tag.CPU_TIME),
            resident_bytes=min(fields.get_uint(Tag.RESIDENT), MAX_INT64),
            start_ticks=fields.get_uint(Tag.START_TIME),
        )


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """All processes at one time of the guest's monotonic clock."""

    entries: tuple[ProcessEntry, ...]
    clock_ns: int

    @classmethod
    def of(cls, listing: bytes, closing: Fields) -> ProcessReading:
        """Reads the answer of `PROCESSES`.

        Raises:
            LinkError: it breaks the document.
        """
        entries = tuple(ProcessEntry.of(fields) for fields in decode_entries(listing))
        return cls(entries, closing.get_uint(Tag.CLOCK))
