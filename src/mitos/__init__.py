"""Mitos: forkable computers for AI agents.

import mitos
sb = mitos.create("python")          # a warm, isolated sandbox
sb.run_code("x = 41")
a, b = sb.fork(2)                    # two copies of it while it runs
a.run_code("x + 1").text             # '42'
"""

from __future__ import annotations

from mitos import aio, direct, errors, pty, sandbox, types
from mitos.direct import DirectSandbox, SandboxServer, close_http_pools, create
from mitos.errors import (
    AgentRunError,
    ExecutionDeadlineError,
    IdleTimeoutError,
    NotFoundError,
    RateLimitedError,
    RequestCanceledError,
    TimeoutTooLargeError,
    UnauthorizedError,
)
from mitos.sandbox import Sandbox
from mitos.types import ExecResult, Execution, ExecutionError, FileInfo, Network, Result

__version__ = "0.4.0"

__all__ = [
    "AgentRunError",
    "DirectSandbox",
    "ExecResult",
    "Execution",
    "ExecutionDeadlineError",
    "ExecutionError",
    "FileInfo",
    "IdleTimeoutError",
    "Network",
    "NotFoundError",
    "RateLimitedError",
    "RequestCanceledError",
    "Result",
    "Sandbox",
    "SandboxServer",
    "TimeoutTooLargeError",
    "UnauthorizedError",
    "aio",
    "close_http_pools",
    "create",
    "direct",
    "errors",
    "pty",
    "sandbox",
    "types",
]
