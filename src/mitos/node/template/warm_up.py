"""What is done in a booted machine before it is snapshotted: build steps, kernels, workload."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator

from mitos.agent.client import AgentClient
from mitos.agent.command import ExecRequest
from mitos.node.recipe import Recipe, Step, WarmUp
from mitos.node.template.workload import start_workload
from mitos.wire.errors import ApiError
from mitos.wire.link import KernelEventKind

__all__ = ["Progress", "build_failed", "run_steps", "warm_up"]

Progress = Callable[[str], None]
"""Told each step of long work, as a short line."""

STEP_DEADLINE_S = 1800
WARM_UP_DEADLINE_S = 60.0
MAX_CAUSE_BYTES = 2000


async def run_steps(agent: AgentClient, recipe: Recipe, progress: Progress) -> None:
    """Runs the build steps of a recipe, in order.

    Raises:
        ApiError: `build_failed` with the number of the step, from 1, and what it said last.
    """
    for number, step in enumerate(recipe.steps, start=1):
        progress(f"{recipe.base.name}: step {number} of {len(recipe.steps)}")
        with _failing_as(recipe.base.name, "run", step=number):
            await _run_step(agent, recipe.base.name, number, step)


async def warm_up(agent: AgentClient, name: str, wanted: WarmUp, progress: Progress) -> None:
    """Starts the kernels and the workload.

    Raises:
        ApiError: `build_failed`.
    """
    progress(f"{name}: warming up")
    for language in wanted.kernels:
        with _failing_as(name, "preload" if wanted.preload else "kernel"):
            await _start_kernel(agent, name, language, wanted.preload)
    if wanted.workload is not None:
        progress(f"{name}: starting {wanted.workload.command[0]}")
        with _failing_as(name, "workload"):
            await start_workload(agent, wanted.workload)


def build_failed(
    name: str, step_kind: str, cause: str, *, step: int = 0, remediation: str = ""
) -> ApiError:
    """The error for a template that cannot be made."""
    return ApiError(
        "build_failed",
        f"template {name!r} could not be built" + (f": step {step} failed" if step else ""),
        cause=cause,
        remediation=remediation,
        context={"step": step, "step_kind": step_kind},
    )


@contextlib.contextmanager
def _failing_as(name: str, step_kind: str, *, step: int = 0) -> Iterator[None]:
    """Says of what the agent, or its loss, made fail in which part of the recipe it was."""
    try:
        yield
    except ApiError as exc:
        if "step_kind" in exc.context:
            raise
        cause, remediation = exc.cause or exc.message, exc.remediation
        raise build_failed(name, step_kind, cause, step=step, remediation=remediation) from exc


async def _run_step(agent: AgentClient, name: str, number: int, step: Step) -> None:
    request = ExecRequest(["/bin/sh", "-c", step.run], timeout_s=STEP_DEADLINE_S)
    said: deque[bytes] = deque(maxlen=MAX_CAUSE_BYTES)
    async with agent.exec(request) as command:
        async for output in command:
            said.append(output.data[-MAX_CAUSE_BYTES:])
    ended = command.exit
    if ended is None or ended.error or ended.exit_code != 0:
        code = None if ended is None else ended.exit_code
        reason = (ended and ended.error) or f"it ended with exit code {code}"
        last = b"".join(said)[-MAX_CAUSE_BYTES:].decode("utf-8", "replace").strip()
        cause = f"{reason}; it said:\n{last}" if last else reason
        raise build_failed(name, "run", cause, step=number)


async def _start_kernel(
    agent: AgentClient, name: str, language: str, preload: tuple[str, ...]
) -> None:
    """Starts a kernel; an image without it is fine, unless modules are to be preloaded.

    Raises:
        ApiError: `build_failed`: a module cannot be imported.
    """
    cell = _preload_cell(preload) if language == "python" else ""
    async with agent.run_code(cell, language=language, timeout_s=WARM_UP_DEADLINE_S) as events:
        async for event in events:
            if preload and event.kind is KernelEventKind.ERROR:
                cause = event.payload[:MAX_CAUSE_BYTES].decode("utf-8", "replace")
                raise build_failed(name, "preload", cause)


def _preload_cell(modules: tuple[str, ...]) -> str:
    """Imports the modules without a name in the user's namespace, and without a result."""
    names = ", ".join(map(repr, modules))
    return f"[__import__('importlib').import_module(name) for name in [{names}]].clear()"
