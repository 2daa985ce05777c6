"""Commands of the host: run one to its end with a deadline, or keep one running.

A command runs in a session of its own, so ending it ends what it started. Output is captured
through pipes of ours that are read until the command itself has ended, not until the last holder
closes them: a daemon that inherits a pipe holds nothing up. `pidfd` follows processes that are not
our children.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mitos.host.spawn import Spawned, spawn

__all__ = [
    "Child",
    "CommandError",
    "CommandTimeoutError",
    "Completed",
    "command_line",
    "find",
    "run",
    "start",
]

_log = logging.getLogger(__name__)

_OUTPUT_LIMIT_BYTES = 1 << 20
_READ_BYTES = 1 << 16
_ERROR_TAIL_BYTES = 2000
# SIGKILL cannot be refused; a process that outlives it this long is stuck in the kernel.
_KILL_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended. Outputs hold their last bytes when they went over the limit."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: bytes
    stderr: bytes


class CommandError(Exception):
    """A command could not be started, ended with a failure, or was ended by us.

    Args:
        message: what failed, with the end of what the command said.
        exit_code: the command's; negative is a signal, None is "did not start or did not end".
    """

    def __init__(self, message: str, *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class CommandTimeoutError(CommandError):
    """A command was still running at its deadline and was killed."""


async def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    stdin: int | None = None,
    stdout: int | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    check: bool = True,
    output_limit_bytes: int = _OUTPUT_LIMIT_BYTES,
    on_output: Callable[[bytes], None] | None = None,
) -> Completed:
    """Runs a command to its end.

    Args:
        argv: program and arguments; never a shell string.
        timeout_s: after this the command's whole session is killed.
        stdin: descriptor to read from, the null device when None. Stays the caller's.
        stdout: descriptor to write to, captured when None. Stays the caller's.
        environment: all its variables, ours when None.
        directory: where it runs.
        check: whether a non-zero exit code raises.
        output_limit_bytes: how much of the end of each output is kept.
        on_output: called with every piece of output as it comes, both outputs mixed.

    Returns:
        Exit code and outputs.

    Raises:
        CommandTimeoutError: the deadline passed.
        CommandError: the program could not be started, or it failed and `check` is set.
    """
    words = [os.fspath(word) for word in argv]
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(_Capture(output_limit_bytes, on_output))
        outputs = stack.enter_context(_Capture(output_limit_bytes, on_output))
        child = await start(
            words,
            stdin=stdin,
            stdout=outputs.writer if stdout is None else stdout,
            stderr=errors.writer,
            environment=environment,
            directory=directory,
        )
        errors.close_writer()
        outputs.close_writer()
        try:
            async with asyncio.timeout(timeout_s):
                exit_code = await child.wait()
        except TimeoutError:
            raise CommandTimeoutError(
                f"{words[0]} did not end within {timeout_s:g} s and was killed"
            ) from None
        finally:
            await child.kill()
        completed = Completed(tuple(words), exit_code, outputs.finish(), errors.finish())
    if check and exit_code != 0:
        said = (completed.stderr or completed.stdout)[-_ERROR_TAIL_BYTES:]
        text = said.decode("utf-8", "replace").strip()
        raise CommandError(f"{words[0]} ended with {exit_code}: {text}", exit_code=exit_code)
    return completed


async def start(
    argv: Sequence[str | Path],
    *,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Child:
    """Starts a command that the caller must `kill`.

    Args:
        argv: program and arguments.
        stdin: descriptor, the null device when None; likewise `stdout` and `stderr`.
        stdout: descriptor.
        stderr: descriptor.
        environment: all its variables, ours when None.
        directory: where it runs.

    Raises:
        CommandError: the program could not be started.
    """
    words = [os.fspath(word) for word in argv]
    _log.debug("run: %s", shlex.join(words))
    try:
        spawned = await spawn(
            words,
            streams=(stdin, stdout, stderr),
            environment=environment,
            directory=directory,
        )
    except OSError as exc:
        raise CommandError(f"cannot start {words[0]}: {exc}") from exc
    return Child(spawned)


class Child:
    """A command that runs in a session of its own."""

    def __init__(self, spawned: Spawned) -> None:
        self.pid = spawned.pid
        """Its process id, which is also its session's."""
        self._pidfd = spawned.pidfd
        self._loop = asyncio.get_running_loop()
        self._exit_code: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(self._pidfd, self._on_end)

    @property
    def is_running(self) -> bool:
        """True until its end was noticed."""
        return not self._exit_code.done()

    async def wait(self) -> int:
        """Waits for its end; returns the exit code, negative for a signal."""
        return await asyncio.shield(self._exit_code)

    async def kill(self) -> None:
        """Kills it and its process group if it still runs. Idempotent."""
        if not self.is_running:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILL_WAIT_S):
                await self.wait()

    def _on_end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        _, status = os.waitpid(self.pid, 0)
        self._exit_code.set_result(os.waitstatus_to_exitcode(status))


def find(argument: str) -> list[int]:
    """Lists the processes that have `argument` as one word of their command line.

    Raises:
        OSError: they cannot be read now, for want of descriptors.
    """
    wanted, found = os.fsencode(argument), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if wanted in command_line(int(entry.name)).split(b"\0"):
                found.append(int(entry.name))
    return found


def command_line(pid: int) -> bytes:
    """A process's words, each ended by a null byte; b"" of one that has ended.

    Raises:
        OSError: it is gone, or there is no descriptor to look with.
    """
    return Path(f"/proc/{pid}/cmdline").read_bytes()


class _Capture:
    """A pipe whose last bytes are kept, read by the running loop."""

    def __init__(self, limit_bytes: int, on_output: Callable[[bytes], None] | None) -> None:
        self._limit_bytes = limit_bytes
        self._on_output = on_output
        self._kept = bytearray()

    def __enter__(self) -> _Capture:
        self._loop = asyncio.get_running_loop()
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reader, False)
        self._loop.add_reader(self._reader, self._read)
        return self

    def __exit__(self, *_: object) -> None:
        self.close_writer()
        self._loop.remove_reader(self._reader)
        os.close(self._reader)

    def close_writer(self) -> None:
        """Closes our copy of the writing end."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def finish(self) -> bytes:
        """Reads what is still in the pipe and returns all that was kept."""
        while self._read():
            pass
        return bytes(self._kept)

    def _read(self) -> bool:
        try:
            data = os.read(self._reader, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._reader)
            return False
        self._kept += data
        del self._kept[: -self._limit_bytes]
        if self._on_output is not None:
            self._on_output(data)
        return True
