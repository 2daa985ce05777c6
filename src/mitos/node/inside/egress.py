"""Connections that programs in a sandbox make to its proxy, brought to `mitos.egress`.

Only sandboxes whose posture lets anything out have a listener at all.
"""

from __future__ import annotations

from mitos.agent.accept import serve_connections
from mitos.agent.link import Link
from mitos.egress.policy import Policy
from mitos.egress.proxy import Proxy
from mitos.wire.network import NetworkPosture

__all__ = ["PROXY_PORT", "proxy_environment", "serve_egress"]

PROXY_PORT = 3128
WAITING = 4
MAX_CONNECTIONS = 64


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
    await serve_connections(
        link,
        PROXY_PORT,
        Proxy(Policy(posture), sandbox_id).serve,
        name=f"egress-{sandbox_id}",
        waiting=WAITING,
        at_once=MAX_CONNECTIONS,
    )
