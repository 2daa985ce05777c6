"""Connections that programs in a sandbox make to its agent, each brought to a handler.

A few `ACCEPT` streams wait in the agent at all times; each becomes one connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from mitos.agent.client import AgentClient
from mitos.agent.link import Link
from mitos.agent.tunnel import Tunnel
from mitos.wire.errors import ApiError

__all__ = ["serve_connections"]

_log = logging.getLogger(__name__)

RETRY_S = 1.0

_Handler = Callable[[Tunnel], Awaitable[None]]


async def serve_connections(
    link: Link, port: int | None, handler: _Handler, *, name: str, waiting: int, at_once: int
) -> None:
    """Serves what connects to a port, or to the self-service socket, until the link is lost.

    Args:
        link: of the sandbox.
        port: of `127.0.0.1` inside; None for the self-service socket.
        handler: serves one connection; what it raises ends that one only.
        name: of the tasks.
        waiting: streams that wait for the next connection: enough for a burst.
        at_once: connections at the same time; more wait in the listener's queue.
    """
    agent = AgentClient(link, _ended)
    door, slots = asyncio.Semaphore(waiting), asyncio.Semaphore(at_once)
    with contextlib.suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(_end_with(link), name=f"{name}-end")
            while True:
                await slots.acquire()
                await door.acquire()
                group.create_task(_serve_one(agent, port, handler, door, slots), name=name)


async def _end_with(link: Link) -> None:
    """Ends the whole group, whatever its handlers do, when the link is lost."""
    await link.lost.wait()
    raise ConnectionError("the link to the sandbox is gone")


async def _serve_one(
    agent: AgentClient,
    port: int | None,
    handler: _Handler,
    door: asyncio.Semaphore,
    slots: asyncio.Semaphore,
) -> None:
    try:
        is_waiting = True
        try:
            async with agent.accept(port) as tunnel:
                await tunnel.accepted()
                door.release()
                is_waiting = False
                await handler(tunnel)
        except ApiError as exc:
            _log.debug("a connection from a sandbox failed: %s", exc)
            if is_waiting:
                await asyncio.sleep(RETRY_S)
        except Exception:  # noqa: BLE001  the edge of a task: one connection must not end the rest
            _log.exception("a connection from a sandbox ended in a bug of ours")
        finally:
            if is_waiting:
                door.release()
    finally:
        slots.release()


async def _ended() -> ApiError:
    return ApiError("internal", "the sandbox ended while a connection from it was served")
