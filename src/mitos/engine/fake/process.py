"""A process of the fake guest: what a snapshot keeps of it, where its bytes come from and go.

A process is plain data. The streams of a command end with the command: in a snapshot they become
the null device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from mitos.engine.fake.filesystem import FileSystem
from mitos.engine.fake.pipe import Flow
from mitos.engine.fake.syntax import Command, Statement
from mitos.engine.fake.terminal import Terminal

__all__ = [
    "FileSink",
    "FileSource",
    "FlowSink",
    "FlowSource",
    "NullSink",
    "NullSource",
    "Process",
    "Sink",
    "Source",
    "StreamSink",
    "StreamSource",
    "Streams",
    "whole",
]


class Source(Protocol):
    """Where a process reads."""

    async def read(self) -> bytes:
        """The next bytes, b"" at the end."""
        ...


class Sink(Protocol):
    """Where a process writes."""

    async def write(self, data: bytes) -> None:
        """Writes all, waiting while nobody takes it."""
        ...


class NullSource:
    """Always at its end."""

    async def read(self) -> bytes:
        """Nothing."""
        return b""


class NullSink:
    """Takes everything."""

    async def write(self, data: bytes) -> None:
        """Drops it."""


class FileSource:
    """A file, from its beginning."""

    def __init__(self, files: FileSystem, path: str) -> None:
        self._files = files
        self._path = path
        self._pieces: Iterator[bytes] = files.read(path)

    def __reduce__(self) -> tuple[Callable[[FileSystem, str], Source], tuple[FileSystem, str]]:
        return (_reopened, (self._files, self._path))

    async def read(self) -> bytes:
        """The next piece."""
        return next(self._pieces, b"")


def _reopened(files: FileSystem, path: str) -> Source:
    return FileSource(files, path) if files.exists(path) else NullSource()


@dataclass(frozen=True, slots=True)
class FileSink:
    """The end of a file."""

    files: FileSystem
    path: str

    async def write(self, data: bytes) -> None:
        """Extends the file."""
        self.files.write(self.path, data, append=True)


class _Fleeting:
    """Wraps a call that does not outlive its machine."""

    def __reduce__(self) -> tuple[type[NullSource] | type[NullSink], tuple[()]]:
        return (NullSink if hasattr(self, "write") else NullSource, ())


class StreamSource(_Fleeting):
    """Reads by a call, for example from a stream of the link."""

    def __init__(self, read: Callable[[], Awaitable[bytes]]) -> None:
        self._read = read

    async def read(self) -> bytes:
        """The next bytes."""
        return await self._read()


class StreamSink(_Fleeting):
    """Writes by a call, for example to a stream of the link."""

    def __init__(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._write = write

    async def write(self, data: bytes) -> None:
        """Passes the bytes on."""
        await self._write(data)


class FlowSource(_Fleeting):
    """The reading end of a pipe."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    async def read(self) -> bytes:
        """The next bytes."""
        return await self._flow.read()


class FlowSink(_Fleeting):
    """The writing end of a pipe."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    async def write(self, data: bytes) -> None:
        """Fills the pipe."""
        await self._flow.write(data)


@dataclass(frozen=True, slots=True)
class Streams:
    """The three that every process has."""

    stdin: Source = field(default_factory=NullSource)
    stdout: Sink = field(default_factory=NullSink)
    stderr: Sink = field(default_factory=NullSink)


@dataclass(slots=True)
class Process:
    """One process.

    Attributes:
        pid: its number; a subshell keeps its parent's, as `$$` does.
        rest: the statements still to run; the first is the one it is in.
        inner: the script that the first statement has started and waits for.
        status: of the last command.
    """

    pid: int
    variables: dict[str, str]
    exported: set[str]
    cwd: str
    streams: Streams = field(default_factory=Streams)
    functions: dict[str, Command] = field(default_factory=dict)
    rest: list[Statement] = field(default_factory=list)
    arguments: tuple[str, ...] = ("sh",)
    inner: Process | None = None
    status: int = 0
    last_background_pid: int | None = None
    terminal: Terminal | None = None

    @property
    def stdin(self) -> Source:
        """Where it reads."""
        return self.streams.stdin

    @property
    def stdout(self) -> Sink:
        """Where it writes."""
        return self.streams.stdout

    @property
    def stderr(self) -> Sink:
        """Where it complains."""
        return self.streams.stderr

    def child(
        self, rest: list[Statement], *, streams: Streams | None = None, pid: int | None = None
    ) -> Process:
        """A copy that runs `rest`."""
        return dataclasses.replace(
            self,
            pid=self.pid if pid is None else pid,
            streams=streams or self.streams,
            variables=dict(self.variables),
            exported=set(self.exported),
            functions=dict(self.functions),
            rest=rest,
            inner=None,
        )

    @property
    def environment(self) -> dict[str, str]:
        """What its programs get."""
        names = sorted(self.exported & self.variables.keys())
        return {name: self.variables[name] for name in names}

    @property
    def lookups(self) -> dict[str, str]:
        """The variables, the special ones among them."""
        numbered = {str(n): argument for n, argument in enumerate(self.arguments)}
        special = {
            "?": str(self.status),
            "$": str(self.pid),
            "!": "" if self.last_background_pid is None else str(self.last_background_pid),
            "#": str(len(self.arguments) - 1),
            "@": " ".join(self.arguments[1:]),
            "PWD": self.cwd,
        }
        return self.variables | numbered | special

    async def say(self, text: str) -> None:
        """Writes a line to its error output."""
        await self.stderr.write(text.encode("utf-8", "surrogateescape") + b"\n")


async def whole(source: Source) -> bytes:
    """All that a source has."""
    pieces = list[bytes]()
    while piece := await source.read():
        pieces.append(piece)
    return b"".join(pieces)
