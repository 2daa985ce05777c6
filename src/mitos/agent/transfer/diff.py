"""Which files differ between two relatives, without reading those that do not.

Each sandbox lists its own tree: kind, size, mode, modification and status change times, link
target. Relatives share every file that neither touched since their common ancestor, with the very
same times, so an equal line means an equal file. A pair that differs in its times only is hashed on
both sides, so that a file written again with the same content does not count.

Left out: other mounts (`/proc`, `/sys`, `/dev`, `/opt/mitos`), `/tmp`, `/run`, and what every fork
gets anew (`/etc/hostname`, `/etc/machine-id`, `/etc/hosts`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from mitos.agent.client import AgentClient
from mitos.agent.command import Command, ExecRequest
from mitos.wire.errors import ApiError
from mitos.wire.link import Channel

__all__ = ["FileDiff", "compare"]

LISTING_LIMIT_BYTES = 64 << 20
LIST_TIMEOUT_S = 60.0
HASH_TIMEOUT_S = 300.0

_LEFT_OUT = ("/proc", "/sys", "/dev", "/tmp", "/run", "/opt/mitos")  # noqa: S108  in the sandbox
_RENEWED = frozenset({"/etc/hostname", "/etc/machine-id", "/etc/hosts"})

_PRUNE = ["(", *" -o ".join(f"-path {path}" for path in _LEFT_OUT).split(), ")", "-prune"]
_FORMAT = r"%p\0%y %m %U %G\0%s %l\0%T@ %C@\0"
_FIND = ["/usr/bin/find", "/", *_PRUNE, "-o", "-printf", _FORMAT]
_HASH = ["/usr/bin/xargs", "-0", "-r", "/usr/bin/sha256sum", "-z", "--"]


@dataclass(frozen=True, slots=True)
class FileDiff:
    """Absolute paths, sorted. A folder counts when it came, went, or changed its mode."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    modified: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: str
    extent: str
    times: str

    @property
    def is_file(self) -> bool:
        return self.kind.startswith("f")

    def differs(self, other: _Entry) -> bool:
        """True when no look at the content is needed to tell them apart."""
        if self.kind != other.kind:
            return True
        return not self.kind.startswith("d") and self.extent != other.extent

    def is_doubtful(self, other: _Entry) -> bool:
        """True when only the content can tell."""
        return self.is_file and self.times != other.times and not self.differs(other)


async def compare(one: AgentClient, other: AgentClient) -> FileDiff:
    """What `other` has changed, seen from `one`.

    Raises:
        ApiError: a sandbox cannot list or hash its files: `find`, `xargs` or `sha256sum` is
            missing there, it has too many files, or it ended.
    """
    before, after = await asyncio.gather(_tree(one), _tree(other))
    shared = before.keys() & after.keys()
    modified = {path for path in shared if before[path].differs(after[path])}
    doubtful = sorted(path for path in shared if before[path].is_doubtful(after[path]))
    if doubtful:
        old, new = await asyncio.gather(_hashes(one, doubtful), _hashes(other, doubtful))
        modified |= {path for path in doubtful if old.get(path) != new.get(path)}
    return FileDiff(
        added=tuple(sorted(_shown(path) for path in after.keys() - before.keys())),
        removed=tuple(sorted(_shown(path) for path in before.keys() - after.keys())),
        modified=tuple(sorted(_shown(path) for path in modified)),
    )


async def _tree(agent: AgentClient) -> dict[str, _Entry]:
    fields = (await _output(agent, _FIND, b"", LIST_TIMEOUT_S)).split("\0")
    return {
        path: _Entry(kind, extent, times)
        for path, kind, extent, times in zip(
            fields[::4], fields[1::4], fields[2::4], fields[3::4], strict=False
        )
        if path not in _RENEWED
    }


async def _hashes(agent: AgentClient, paths: Sequence[str]) -> dict[str, str]:
    names = "\0".join(paths).encode("utf-8", "surrogateescape")
    lines = (await _output(agent, _HASH, names, HASH_TIMEOUT_S)).split("\0")
    # A line is 64 digits, two spaces, the name.
    return {line[66:]: line[:64] for line in lines if line}


async def _output(agent: AgentClient, argv: Sequence[str], given: bytes, timeout_s: float) -> str:
    """What a program prints; paths it could not read are left out."""
    printed = bytearray()
    request = ExecRequest(argv, cwd="/", timeout_s=timeout_s, stdin=True)
    async with agent.exec(request) as command:
        feeder = asyncio.create_task(_feed(command, given), name="diff-feeder")
        try:
            async for output in command:
                if output.channel is Channel.OUTPUT:
                    printed += output.data
                if len(printed) > LISTING_LIMIT_BYTES:
                    raise _failed("it has too many files")
        finally:
            feeder.cancel()
            await asyncio.gather(feeder, return_exceptions=True)
        ended = command.exit
    if ended is None or ended.error or ended.exit_code not in (0, 1, 123):
        raise _failed((ended and ended.error) or f"{argv[0]} did not end well")
    return printed.decode("utf-8", "surrogateescape")


async def _feed(command: Command, given: bytes) -> None:
    if given:
        await command.write(given)
    await command.close_input()


def _shown(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _failed(cause: str) -> ApiError:
    return ApiError(
        "file_failed",
        "the sandbox could not list its files",
        cause=cause,
        remediation="The image needs find, xargs and sha256sum in /usr/bin.",
    )
