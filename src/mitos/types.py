"""The values that calls return and take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mitos._sdk.value.cluster import ForkInfo, PoolStatus, SandboxInfo, SandboxPhase
from mitos._sdk.value.command import CommandInfo, ExecResult
from mitos._sdk.value.execution import Execution, ExecutionError, Result
from mitos._sdk.value.file import FileDiff, FileEvent, FileInfo
from mitos._sdk.value.fork import Checkpoint, Forked, ForkPolicy, Relative
from mitos._sdk.value.network import Network

if TYPE_CHECKING:
    from mitos._sdk._sync.background import BackgroundProcess

__all__ = [
    "BackgroundProcess",
    "Checkpoint",
    "CommandInfo",
    "ExecResult",
    "Execution",
    "ExecutionError",
    "FileDiff",
    "FileEvent",
    "FileInfo",
    "ForkInfo",
    "ForkPolicy",
    "Forked",
    "Network",
    "PoolStatus",
    "Relative",
    "Result",
    "SandboxInfo",
    "SandboxPhase",
]


def __getattr__(name: str) -> Any:
    """`BackgroundProcess` is published here too; the values alone need no HTTP client."""
    if name == "BackgroundProcess":
        from mitos._sdk._sync.background import BackgroundProcess  # noqa: PLC0415  only when asked

        return BackgroundProcess
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
