"""`mitos serve` that dies at a point: `python -m tests.crash.server POINT ARMED -- serve …`.

From the moment on in which the file ARMED is there, the passings of the point are counted; the one
that the point says ends the process by SIGKILL. All else is the usual program.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from mitos.cli.main import main
from tests.crash.point import Point, When, find, locate

__all__ = ["arm", "kinds"]

LARGE_BYTES = 16 << 10
"""Of a chunk of output: the lines that other commands say meanwhile are shorter."""


class Fuse:
    """Counts passings, and ends the process at the last one.

    Args:
        passings: how many it takes.
        armed: nothing counts before this file is there.
    """

    def __init__(self, passings: int, armed: Path) -> None:
        self._left = passings
        self._armed = armed

    def burn(self) -> None:
        """One passing."""
        if self._armed.exists():
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class Watched:
    """A context manager, plain or asynchronous, that is passed inside.

    Args:
        manager: that is entered.
        when: `INSIDE` or `LEAVING`.
        fuse: burnt there.
    """

    def __init__(self, manager: Any, when: When, fuse: Fuse) -> None:
        self._manager = manager
        self._when = when
        self._fuse = fuse

    def __enter__(self) -> Any:
        return self._entered(self._manager.__enter__())

    def __exit__(self, *exc: Any) -> Any:
        self._leave(exc)
        return self._manager.__exit__(*exc)

    async def __aenter__(self) -> Any:
        return self._entered(await self._manager.__aenter__())

    async def __aexit__(self, *exc: Any) -> Any:
        self._leave(exc)
        return await self._manager.__aexit__(*exc)

    def _entered(self, value: Any) -> Any:
        if self._when is When.INSIDE:
            self._fuse.burn()
        return value

    def _leave(self, exc: Any) -> None:
        if self._when is When.LEAVING and exc[0] is None:
            self._fuse.burn()


def kinds(function: Any) -> set[When]:
    """Where in a function one can die."""
    plain = inspect.unwrap(function)
    if plain is not function:
        return {When.INSIDE, When.LEAVING}  # `contextmanager` is the only wrapper there is
    if inspect.isasyncgenfunction(function):
        return {When.BEFORE, When.CHUNK}
    return {When.BEFORE, When.AFTER}


def arm(point: Point, fuse: Fuse) -> None:
    """Has the point's function burn the fuse from now on.

    Raises:
        LookupError: there is no such function any more.
    """
    owner, name = locate(point.function)
    found = inspect.getattr_static(owner, name)
    function = found.__func__ if isinstance(found, classmethod) else found
    if point.when not in kinds(function):
        raise LookupError(f"{point.name}: {point.function} is not of a kind that has this place")
    watched = functools.wraps(function)(_watched(function, point.when, fuse))
    setattr(owner, name, classmethod(watched) if isinstance(found, classmethod) else watched)


def _watched(function: Any, when: When, fuse: Fuse) -> Callable[..., Any]:
    match when:
        case When.BEFORE:
            return _before(function, fuse)
        case When.AFTER if inspect.iscoroutinefunction(function):
            return _after_waiting(function, fuse)
        case When.AFTER:
            return _after(function, fuse)
        case When.INSIDE | When.LEAVING:
            return lambda *args, **options: Watched(function(*args, **options), when, fuse)
        case _:
            return _at_chunks(function, fuse)


def _before(function: Any, fuse: Fuse) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        fuse.burn()
        return function(*args, **options)

    return call


def _after(function: Any, fuse: Fuse) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        result = function(*args, **options)
        fuse.burn()
        return result

    return call


def _after_waiting(function: Any, fuse: Fuse) -> Callable[..., Any]:
    async def call(*args: Any, **options: Any) -> Any:
        result = await function(*args, **options)
        fuse.burn()
        return result

    return call


def _at_chunks(function: Any, fuse: Fuse) -> Callable[..., Any]:
    async def call(*args: Any, **options: Any) -> AsyncIterator[Any]:
        async for chunk in function(*args, **options):
            if len(chunk.data) >= LARGE_BYTES:
                fuse.burn()
            yield chunk

    return call


if __name__ == "__main__":
    name, armed, dashes, *arguments = sys.argv[1:]
    if dashes != "--":
        sys.exit(__doc__)
    point = find(name)
    arm(point, Fuse(point.passing, Path(armed)))
    sys.argv[1:] = arguments
    main()
