"""The public surface: names, signatures, what an import loads, and both forms alike."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import mitos
import mitos.aio
from mitos.background import AsyncBackgroundProcess, BackgroundProcess
from mitos.pty import AsyncPtyHandle, PtyHandle

ROOT = Path(mitos.__file__).parents[2]
MODULES = (
    *("aio", "direct", "errors", "guest", "pty", "sandbox", "subagent", "template", "types"),
)
PUBLISHED_NAMES = {
    "mitos": (
        *("create", "DirectSandbox", "SandboxServer", "Sandbox", "Template", "AgentRunError"),
        *("ExecutionDeadlineError", "IdleTimeoutError", "NotFoundError", "RateLimitedError"),
        *("RequestCanceledError", "TimeoutTooLargeError", "UnauthorizedError", "ExecResult"),
        *("Execution", "FileInfo", "ExecutionError", "Result", "ForkPolicy", "Network"),
        *("guest", "subagent", "git", "GitSpec", "close_http_pools"),
    ),
    "mitos.aio": ("AsyncDirectSandbox", "create"),
    "mitos.direct": (
        *("create", "DirectSandbox", "SandboxServer", "DirectSandboxFiles", "DEFAULT_BASE_URL"),
        *("ENV_API_KEY", "ENV_BASE_URL", "ENV_CONFIG_DIR", "MAX_EXEC_TIMEOUT_SECONDS"),
    ),
    "mitos.types": (
        *("ExecResult", "Execution", "ExecutionError", "Result", "FileInfo", "Network"),
        *("SandboxInfo", "PoolStatus", "ForkInfo", "BackgroundProcess", "ForkPolicy"),
        "SandboxPhase",
    ),
    "mitos.pty": ("PtyHandle", "AsyncPtyHandle"),
    "mitos.git": ("GitSpec", "coerce_git", "git"),
    "mitos.guest": (
        *("SOCKET_ENV", "Budget", "GuestClient", "GuestError", "GuestUnavailableError"),
        *("Identity", "Info", "connect", "fork", "identity", "info", "socket_path"),
    ),
    "mitos.subagent": (
        *("SubagentHandle", "SubagentResult", "current_sandbox", "is_on_mitos"),
        "spawn_subagent",
    ),
    "mitos.e2b": ("Commands", "Files", "Sandbox", "SandboxInfo"),
    "mitos.daytona": (
        *("Daytona", "DaytonaConfig", "CreateSandboxBaseParams", "CreateSandboxParams"),
        *("CreateSandboxFromSnapshotParams", "CreateSandboxFromImageParams", "CodeRunParams"),
        *("ExecuteResponse", "ExecutionArtifacts", "PortPreviewUrl", "Sandbox", "Process"),
        "FileSystem",
    ),
}

CREATE = [
    ("image", "python"),
    ("api_key", None),
    ("base_url", None),
    ("id", None),
    ("network", None),
    ("idempotency_key", None),
    ("workload", None),
    ("resources", None),
    ("region", None),
]
TEMPLATE = [
    ("id", inspect.Parameter.empty),
    ("init_wait_seconds", 5),
    ("network", None),
    ("idempotency_key", None),
    ("workload", None),
    ("resources", None),
]
REQUIRED = inspect.Parameter.empty


def positional(function: Any) -> list[tuple[str, Any]]:
    """Names and defaults that positions can fill."""
    found = inspect.signature(function).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [(each.name, each.default) for each in found if each.kind in kinds]


PUBLISHED: dict[str, list[tuple[str, Any]]] = {
    "create": CREATE,
    "Sandbox.create": CREATE,
    "DirectSandbox.create": CREATE,
    "SandboxServer": [("url", "https://mitos.run"), ("api_key", None)],
    "SandboxServer.from_auth": [("api_key", None), ("base_url", None)],
    "SandboxServer.create_template": [("self", REQUIRED), *TEMPLATE],
    "SandboxServer.ensure_template": [("self", REQUIRED), *TEMPLATE],
    "SandboxServer.fork": [
        ("self", REQUIRED),
        ("template", REQUIRED),
        ("id", None),
        ("idempotency_key", None),
        ("region", None),
    ],
    "DirectSandbox.exec": [("self", REQUIRED), ("command", REQUIRED), ("timeout", 30)],
    "DirectSandbox.run_code": [
        ("self", REQUIRED),
        ("code", REQUIRED),
        ("language", "python"),
        ("timeout", 60),
        ("on_stdout", None),
        ("on_stderr", None),
        ("on_result", None),
    ],
    "DirectSandbox.pty": [("self", REQUIRED), ("on_data", REQUIRED), ("cols", 80), ("rows", 24)],
    "DirectSandbox.set_timeout": [("self", REQUIRED), ("timeout_seconds", REQUIRED)],
    "DirectSandbox.get_host": [("self", REQUIRED), ("port", 80)],
    "DirectSandbox.fork": [("self", REQUIRED), ("n", 1), ("id", None)],
    "DirectSandbox.pause": [("self", REQUIRED)],
    "DirectSandbox.resume": [("self", REQUIRED)],
    "DirectSandbox.terminate": [("self", REQUIRED)],
    "DirectSandbox.pty_url": [("self", REQUIRED)],
    "direct.DirectSandboxFiles.write": [
        ("self", REQUIRED),
        ("path", REQUIRED),
        ("content", REQUIRED),
        ("mode", 0o644),
    ],
    "direct.DirectSandboxFiles.list": [("self", REQUIRED), ("path", "/")],
    "aio.create": CREATE,
    "aio.AsyncDirectSandbox.create_pty": [
        ("self", REQUIRED),
        ("on_data", REQUIRED),
        ("cols", 80),
        ("rows", 24),
    ],
    "pty.AsyncPtyHandle": [("ws", REQUIRED), ("on_data", REQUIRED)],
    "pty.PtyHandle.connect": [
        ("url", REQUIRED),
        ("token", REQUIRED),
        ("on_data", REQUIRED),
        ("cols", 80),
        ("rows", 24),
    ],
    "pty.PtyHandle.send_input": [("self", REQUIRED), ("data", REQUIRED)],
    "pty.PtyHandle.resize": [("self", REQUIRED), ("cols", REQUIRED), ("rows", REQUIRED)],
    "pty.PtyHandle.wait": [("self", REQUIRED), ("timeout", None)],
    "pty.AsyncPtyHandle.connect": [
        ("url", REQUIRED),
        ("token", REQUIRED),
        ("on_data", REQUIRED),
        ("cols", 80),
        ("rows", 24),
    ],
    "guest.fork": [("n", 1), ("label", "")],
    "guest.connect": [("path", None)],
    "subagent.SubagentHandle": [("sandbox_id", REQUIRED), ("label", ""), ("on_mitos", True)],
    "subagent.SubagentResult": [("on_mitos", REQUIRED), ("children", ()), ("reason", "")],
    "subagent.spawn_subagent": [("n", 1)],
    "pty.PtyHandle": [
        ("url", REQUIRED),
        ("token", REQUIRED),
        ("on_data", REQUIRED),
        ("cols", 80),
        ("rows", 24),
    ],
    "errors.AgentRunError": [
        ("message", REQUIRED),
        ("code", REQUIRED),
        ("cause", ""),
        ("remediation", ""),
        ("status", None),
        ("context", None),
    ],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_signature_is_the_published_one(name: str) -> None:
    found: Any = mitos
    for part in name.split("."):
        found = getattr(found, part)

    assert PUBLISHED[name] == positional(found)


def test_the_handle_s_constructor_begins_as_published() -> None:
    expected = [
        ("id", REQUIRED),
        ("template", REQUIRED),
        ("endpoint", REQUIRED),
        ("server_url", REQUIRED),
        ("fork_time_ms", REQUIRED),
        ("api_key", None),
    ]

    assert expected == positional(mitos.DirectSandbox)[:6]


def public_members(kind: type) -> dict[str, Any]:
    return {
        name: value
        for name, value in inspect.getmembers(kind, callable)
        if not name.startswith("_") or name == "__init__"
    }


@pytest.mark.parametrize(
    ("sync", "asynchronous"),
    [
        (mitos.DirectSandbox, mitos.aio.AsyncDirectSandbox),
        (mitos.direct.DirectSandboxFiles, mitos.aio.AsyncDirectSandboxFiles),
        (mitos.SandboxServer, mitos.aio.AsyncSandboxServer),
        (BackgroundProcess, AsyncBackgroundProcess),
    ],
)
def test_both_forms_have_the_same_methods(sync: type, asynchronous: type) -> None:
    assert_alike(public_members(sync), public_members(asynchronous))
    assert positional(mitos.create) == positional(mitos.aio.create)


def test_both_forms_of_a_terminal_differ_in_their_constructors_alone() -> None:
    ours, theirs = public_members(PtyHandle), public_members(AsyncPtyHandle)
    del ours["__init__"], theirs["__init__"]

    assert_alike(ours, theirs)


def assert_alike(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """The same names, with the same parameters."""
    assert ours.keys() == theirs.keys()
    for name, method in ours.items():
        found = inspect.signature(method), inspect.signature(theirs[name])
        first, second = (
            [(p.name, p.kind, p.default) for p in s.parameters.values()] for s in found
        )
        assert first == second, name


def test_every_public_name_exists_and_is_listed() -> None:
    assert sorted(mitos.__all__) == sorted(set(mitos.__all__))
    for name in mitos.__all__:
        assert getattr(mitos, name) is not None
        assert name in dir(mitos)
    for name in MODULES:
        module = importlib.import_module(f"mitos.{name}")
        for public in module.__all__:
            assert hasattr(module, public)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mitos.nothing


@pytest.mark.parametrize("module", PUBLISHED_NAMES)
def test_the_published_names_are_there(module: str) -> None:
    assert set() == set(PUBLISHED_NAMES[module]) - set(importlib.import_module(module).__all__)


def test_the_published_constants_have_their_values() -> None:
    direct = mitos.direct

    assert ("MITOS_API_KEY", "MITOS_BASE_URL") == (direct.ENV_API_KEY, direct.ENV_BASE_URL)
    assert ("MITOS_CONFIG_DIR", "MITOS_SOCKET") == (direct.ENV_CONFIG_DIR, mitos.guest.SOCKET_ENV)
    assert ("https://mitos.run", 86_400) == (
        direct.DEFAULT_BASE_URL,
        direct.MAX_EXEC_TIMEOUT_SECONDS,
    )


def test_modules_are_reached_by_importing_the_package_alone() -> None:
    program = f"import mitos; print(*(getattr(mitos, name).__name__ for name in {MODULES}))"

    assert [f"mitos.{name}" for name in MODULES] == run_python(program).split()


def test_lazy_names_are_what_a_type_checker_sees() -> None:
    """The names behind `TYPE_CHECKING` and those found at run time are the same."""
    tree = ast.parse(Path(mitos.__file__).read_text())
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        (node.module if node.module != "mitos" else f"mitos.{alias.name}", alias.name)
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    modules = {(f"mitos.{name}", name) for name in mitos._MODULES}

    assert {(home, name) for name, home in mitos._HOMES.items()} | modules == seen
    assert set(mitos.__all__) == {name for _, name in seen} | {"GitSpec", "git"}


def run_python(program: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", program]
    done = subprocess.run(
        argv, check=True, capture_output=True, text=True, timeout=15, env=environment
    )
    return done.stdout


FOREIGN = {
    "kubernetes",
    "websockets",
    "langchain",
    "deepagents",
    "agents",
    "claude_agent_sdk",
    "vibekit",
    "zenml",
    "e2b",
    "daytona",
    "starlette",
    "uvicorn",
    "connectrpc",
    "protobuf",
}


def test_importing_and_using_names_loads_no_framework_and_no_server() -> None:
    modules = ", ".join(f"mitos.{name}" for name in MODULES)
    program = (
        f"import sys, mitos, mitos.e2b, mitos.daytona, {modules}\n"
        "[getattr(mitos, name) for name in mitos.__all__]\n"
        "print(*sys.modules)"
    )

    loaded = set(run_python(program).split())

    assert "mitos.direct" in loaded
    assert set() == FOREIGN & {name.split(".")[0] for name in loaded}
    server_side = ("server", "node", "engine", "images", "host", "cli", "wire._generated")
    assert [] == [
        name for name in loaded if name.startswith(tuple(f"mitos.{s}" for s in server_side))
    ]


def test_importing_the_package_alone_loads_nothing_of_others() -> None:
    loaded = set(run_python("import sys, mitos; print(*sys.modules)").split())

    own = {name for name in loaded if name.split(".")[0] == "mitos"}
    assert {"mitos", "mitos.errors", "mitos.git"} == own  # `git` must be the function at once
    assert set() == {"httpx", "websocket", "asyncio", "ssl"} & loaded


def test_importing_the_package_is_quick() -> None:
    """The one promise in seconds: 0.15. It takes a tenth of that; the best of some runs counts."""

    def best_s(program: str) -> float:
        runs = []
        for _ in range(7):
            started = time.perf_counter()
            run_python(program)
            runs.append(time.perf_counter() - started)
        return min(runs)

    assert best_s("import mitos") - best_s("pass") < 0.15


def test_a_class_is_where_it_was_published() -> None:
    home = importlib.import_module("mitos.background")

    assert mitos.types.BackgroundProcess is home.BackgroundProcess
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = mitos.types.Nothing


def test_the_sync_form_is_what_the_generator_writes() -> None:
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "unasync", "--check"], check=True, timeout=15
    )


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(mitos.__file__).parent / "py.typed").exists()
