"""Direct mode: sandboxes of one server, no cluster needed.

    import mitos
    sb = mitos.create("python")
    print(sb.exec("echo hello").stdout)
    a, b = sb.fork(2)

Which server and key: arguments, then `MITOS_BASE_URL` and `MITOS_API_KEY`, then the credential
file, then the hosted service. `mitos.aio` has the same for event loops.
"""

from __future__ import annotations

from mitos._sdk._sync.direct import DirectSandbox
from mitos._sdk._sync.files import DirectSandboxFiles
from mitos._sdk._sync.server import SandboxServer, create
from mitos._sdk.pool import close_http_pools
from mitos._sdk.request import MAX_EXEC_TIMEOUT_SECONDS
from mitos._sdk.settings import DEFAULT_BASE_URL, ENV_API_KEY, ENV_BASE_URL, ENV_CONFIG_DIR

__all__ = [
    "DEFAULT_BASE_URL",
    "ENV_API_KEY",
    "ENV_BASE_URL",
    "ENV_CONFIG_DIR",
    "MAX_EXEC_TIMEOUT_SECONDS",
    "DirectSandbox",
    "DirectSandboxFiles",
    "SandboxServer",
    "close_http_pools",
    "create",
]
