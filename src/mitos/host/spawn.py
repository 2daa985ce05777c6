"""Starting a process without holding up the event loop.

Whoever starts a process waits until it has had its first moment on a CPU. On a busy host that is
tens of milliseconds, and `subprocess` holds the interpreter's lock for that time. Here a thread
waits in posix_spawn(3), which is called without the lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from mitos.host import priority
from mitos.host.finish import finish

__all__ = ["Spawned", "spawn"]

_libc = ctypes.CDLL(None)
_starters = ThreadPoolExecutor(8, "spawn", initializer=priority.as_usual)

# Of <spawn.h>, alike in every C library of Linux; a structure of theirs is smaller than the buffer.
_SETSIGDEF, _SETSIGMASK, _SETSID = 0x04, 0x08, 0x80
_STRUCTURE_BYTES = 1024

_Buffer: TypeAlias = "ctypes.Array[ctypes.c_char]"

_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


@dataclass(frozen=True, slots=True)
class Spawned:
    """A child of ours: its id, and a descriptor that becomes readable when it has ended.

    Whoever started it must collect its exit code and close the descriptor.
    """

    pid: int
    pidfd: int


async def spawn(
    argv: Sequence[str],
    *,
    streams: Sequence[int | None],
    environment: Mapping[str, str] | None,
    directory: Path | None,
) -> Spawned:
    """Starts a program in a session of its own.

    Args:
        argv: the program, found by the path of this process, and its arguments.
        streams: descriptors for its standard input, output and error; None is the null device.
        environment: all its variables, ours when None.
        directory: where it runs.

    Raises:
        OSError: it could not be started.
    """
    loop = asyncio.get_running_loop()
    started: list[Spawned] = []

    async def start() -> None:
        job = loop.run_in_executor(_starters, _spawn, argv, streams, environment, directory)
        started.append(await job)

    async def abandon(spawned: Spawned) -> None:
        await loop.run_in_executor(_starters, _abandon, spawned)

    try:
        await finish(start())  # the caller's descriptors are in use until it is done
    except asyncio.CancelledError:
        for each in started:
            await finish(abandon(each))
        raise
    return started[0]


def _spawn(
    argv: Sequence[str],
    streams: Sequence[int | None],
    environment: Mapping[str, str] | None,
    directory: Path | None,
) -> Spawned:
    variables = os.environ if environment is None else environment
    pid = ctypes.c_int()
    with _actions(streams, directory) as actions, _attributes() as attributes:
        _check(
            _libc.posix_spawnp(
                ctypes.byref(pid),
                os.fsencode(argv[0]),
                actions,
                attributes,
                _strings(argv),
                _strings([f"{name}={value}" for name, value in variables.items()]),
            )
        )
    try:
        return Spawned(pid.value, os.pidfd_open(pid.value))
    except OSError:
        os.kill(pid.value, signal.SIGKILL)
        os.waitpid(pid.value, 0)
        raise


def _abandon(spawned: Spawned) -> None:
    os.close(spawned.pidfd)
    os.killpg(spawned.pid, signal.SIGKILL)
    os.waitpid(spawned.pid, 0)


@contextlib.contextmanager
def _actions(streams: Sequence[int | None], directory: Path | None) -> Iterator[_Buffer]:
    """What the child does with its descriptors and directory before it runs the program."""
    actions = ctypes.create_string_buffer(_STRUCTURE_BYTES)
    _check(_libc.posix_spawn_file_actions_init(actions))
    try:
        for number, descriptor in enumerate(streams):
            if descriptor is None:
                null = os.fsencode(os.devnull)
                add = _libc.posix_spawn_file_actions_addopen
                _check(add(actions, number, null, os.O_RDWR, 0))
            else:
                _check(_libc.posix_spawn_file_actions_adddup2(actions, descriptor, number))
        if directory is not None:
            path = os.fsencode(directory)
            _check(_libc.posix_spawn_file_actions_addchdir_np(actions, path))
        yield actions
    finally:
        _libc.posix_spawn_file_actions_destroy(actions)


@contextlib.contextmanager
def _attributes() -> Iterator[_Buffer]:
    """A session of its own, and signals as a program expects them."""
    attributes = ctypes.create_string_buffer(_STRUCTURE_BYTES)
    signals = ctypes.create_string_buffer(_STRUCTURE_BYTES)
    _check(_libc.posix_spawnattr_init(attributes))
    try:
        _libc.sigemptyset(signals)
        _check(_libc.posix_spawnattr_setsigmask(attributes, signals))
        for number in _IGNORED_BY_PYTHON:
            _libc.sigaddset(signals, number)
        _check(_libc.posix_spawnattr_setsigdefault(attributes, signals))
        flags = ctypes.c_short(_SETSIGDEF | _SETSIGMASK | _SETSID)
        _check(_libc.posix_spawnattr_setflags(attributes, flags))
        yield attributes
    finally:
        _libc.posix_spawnattr_destroy(attributes)


def _strings(words: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    encoded = [os.fsencode(word) for word in words]
    if any(b"\0" in word for word in encoded):
        raise OSError("a word of a command line has a null byte")
    return (ctypes.c_char_p * (len(encoded) + 1))(*encoded, None)


def _check(error: int) -> None:
    if error:
        raise OSError(error, os.strerror(error))
