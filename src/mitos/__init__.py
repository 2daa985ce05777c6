"""Mitos: forkable computers for AI agents.

import mitos
sb = mitos.create("python")          # a warm, isolated sandbox
sb.run_code("x = 41")
a, b = sb.fork(2)                    # two copies of it while it runs
a.run_code("x + 1").text             # '42'

Names are loaded when they are first used, so that `import mitos` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# At once: the name `git` is the function, and importing the module later would bind it again.
from mitos.git import GitSpec, git

if TYPE_CHECKING:
    from mitos import aio, direct, errors, guest, pty, sandbox, subagent, template, types
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
    from mitos.template import Template
    from mitos.types import (
        Checkpoint,
        ExecResult,
        Execution,
        ExecutionError,
        FileDiff,
        FileInfo,
        Forked,
        ForkPolicy,
        Network,
        Relative,
        Result,
    )

__version__ = "0.4.0"

_NAMES = {
    "mitos.direct": ("DirectSandbox", "SandboxServer", "close_http_pools", "create"),
    "mitos.errors": (
        "AgentRunError",
        "ExecutionDeadlineError",
        "IdleTimeoutError",
        "NotFoundError",
        "RateLimitedError",
        "RequestCanceledError",
        "TimeoutTooLargeError",
        "UnauthorizedError",
    ),
    "mitos.sandbox": ("Sandbox",),
    "mitos.template": ("Template",),
    "mitos.types": (
        "Checkpoint",
        "ExecResult",
        "Execution",
        "ExecutionError",
        "FileDiff",
        "FileInfo",
        "ForkPolicy",
        "Forked",
        "Relative",
        "Network",
        "Result",
    ),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
_MODULES = (
    *("aio", "direct", "errors", "guest", "pty", "sandbox", "subagent", "template", "types"),
)

__all__ = [
    "AgentRunError",
    "Checkpoint",
    "DirectSandbox",
    "ExecResult",
    "Execution",
    "ExecutionDeadlineError",
    "ExecutionError",
    "FileDiff",
    "FileInfo",
    "ForkPolicy",
    "Forked",
    "GitSpec",
    "IdleTimeoutError",
    "Network",
    "NotFoundError",
    "RateLimitedError",
    "Relative",
    "RequestCanceledError",
    "Result",
    "Sandbox",
    "SandboxServer",
    "Template",
    "TimeoutTooLargeError",
    "UnauthorizedError",
    "aio",
    "close_http_pools",
    "create",
    "direct",
    "errors",
    "git",
    "guest",
    "pty",
    "sandbox",
    "subagent",
    "template",
    "types",
]


if not TYPE_CHECKING:  # for a type checker, a name that is not listed is a mistake

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return importlib.import_module(f"mitos.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module 'mitos' has no attribute {name!r}")
        found = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
