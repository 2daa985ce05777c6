"""The SDK for event loops: the same calls as `mitos.direct`, awaited.

import mitos.aio
sb = await mitos.aio.create("python")
print((await sb.exec("echo hello")).stdout)

Connections belong to the running loop and are closed with it; `close_http_pools` does so earlier.
"""

from __future__ import annotations

from mitos._sdk._async.direct import AsyncDirectSandbox
from mitos._sdk._async.files import AsyncDirectSandboxFiles
from mitos._sdk._async.server import AsyncSandboxServer, create
from mitos._sdk.pool import aclose_http_pools as close_http_pools

__all__ = [
    "AsyncDirectSandbox",
    "AsyncDirectSandboxFiles",
    "AsyncSandboxServer",
    "close_http_pools",
    "create",
]
