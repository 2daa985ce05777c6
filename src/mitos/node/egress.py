"""Connections that programs in a sandbox make to its proxy, brought to `mitos.egress`.

A few `ACCEPT` streams wait in the agent at all times; each becomes one connection. Only sandboxes
whose posture lets anything out have a listener at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from mitos.egress.policy import Policy
from mitos.egress.proxy import Proxy
from mitos.node.guest import Guest
from mitos.node.link import Link
from mitos.wire.errors import ApiError
from mitos.wire.network import NetworkPosture

__all__ = ["PROXY_PORT", "proxy_environment", "serve_egress"]

_log = logging.getLogger(__name__)

PROXY_PORT = 3128
WAITING = 4
"""Streams that wait for the next connection: enough for a burst, few enough to cost nothing."""
MAX_CONNECTIONS = 64
"""Connections of one sandbox at the same time; more wait in the listener's queue."""
RETRY_S = 1.0


def proxy_environment(posture: NetworkPosture) -> dict[str, str]:
    """The variables that lead programs to the proxy; none when nothing may leave."""
    if not posture.allows_egress:
        return {}
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    proxy = f"http://127.0.0.1:{PROXY_PORT}"
    local = "localhost,127.0.0.1,::1"
    both = {spelling: proxy for name in names for spelling in (name, name.lower())}
    return {**both, "NO_PROXY": local, "no_proxy": local}


async def serve_egress(link: Link, posture: NetworkPosture, sandbox_id: str) -> None:
    """Serves the sandbox's proxy until it is canceled or the link is lost."""
    guest = Guest(link, _ended)
    proxy = Proxy(Policy(posture), sandbox_id)
    waiting = asyncio.Semaphore(WAITING)
    slots = asyncio.Semaphore(MAX_CONNECTIONS)
    with contextlib.suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(_end_with(link), name=f"egress-end-{sandbox_id}")
            while True:
                await slots.acquire()
                await waiting.acquire()
                group.create_task(
                    _serve_one(guest, proxy, waiting, slots), name=f"egress-{sandbox_id}"
                )


async def _end_with(link: Link) -> None:
    """Ends the whole group, connections to the outside included, when the link is lost."""
    await link.lost.wait()
    raise ConnectionError("the link to the sandbox is gone")


async def _serve_one(
    guest: Guest, proxy: Proxy, waiting: asyncio.Semaphore, slots: asyncio.Semaphore
) -> None:
    try:
        is_waiting = True
        try:
            async with guest.accept(PROXY_PORT) as tunnel:
                await tunnel.accepted()
                waiting.release()
                is_waiting = False
                await proxy.serve(tunnel)
        except ApiError as exc:
            _log.debug("a connection to the proxy failed: %s", exc)
            if is_waiting:
                await asyncio.sleep(RETRY_S)
        except Exception:  # noqa: BLE001  the edge of a task: one connection must not end the rest
            _log.exception("a connection to the proxy ended in a bug of ours")
        finally:
            if is_waiting:
                waiting.release()
    finally:
        slots.release()


async def _ended() -> ApiError:
    return ApiError("internal", "the sandbox ended while its proxy was served")
