"""The SDK for event loops: the same calls as `mitos.direct`, awaited.

import mitos.aio
sb = await mitos.aio.create("python")
print((await sb.exec("echo hello")).stdout)
"""

from __future__ import annotations

from mitos._sdk._async.direct import (
    AsyncDirectSandbox,
    AsyncDirectSandboxFiles,
    AsyncSandboxServer,
    create,
)

__all__ = ["AsyncDirectSandbox", "AsyncDirectSandboxFiles", "AsyncSandboxServer", "create"]
