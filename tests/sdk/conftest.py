"""One suite for both forms of the SDK: tests say `sdk.run(...)`, which awaits where it must."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

import mitos
import mitos.aio
from mitos.server.settings import PreviewSettings, ServerSettings
from tests.sdk.recorder import Recorder
from tests.sdk.scripted import ScriptedServer, scripted_server
from tests.server.serving import Server, serving

KEY = "mitos_live_0123456789abcdef"

_VARIABLES = (
    "MITOS_API_KEY",
    "MITOS_BASE_URL",
    "MITOS_CONFIG_DIR",
    "MITOS_GATEWAY_SERVICE_HOST",
    "MITOS_GATEWAY_SERVICE_PORT",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
)


class Sdk:
    """One form of the SDK, and how to call it."""

    def __init__(self, *, is_async: bool) -> None:
        self.is_async = is_async
        self._runner = asyncio.Runner() if is_async else None
        self.module: Any = mitos.aio if is_async else mitos.direct
        self.Sandbox: Any = mitos.aio.AsyncDirectSandbox if is_async else mitos.direct.DirectSandbox
        self.Server: Any = mitos.aio.AsyncSandboxServer if is_async else mitos.direct.SandboxServer

    def inside(self, name: str) -> ModuleType:
        """A module of this form."""
        return importlib.import_module(
            f"mitos._sdk.{'_async' if self.is_async else '_sync'}.{name}"
        )

    def run(self, call: Any) -> Any:
        """The call's result."""
        if inspect.iscoroutine(call):
            assert self._runner is not None
            return self._runner.run(call)
        return call

    def create(self, server: ScriptedServer, **options: Any) -> Any:
        """A sandbox of a server."""
        return self.run(self.module.create(**{"base_url": server.url, "api_key": "", **options}))

    def handle(self, url: str, api_key: str | None = None, sandbox_id: str = "sb-1") -> Any:
        """A handle of a sandbox, without asking any server."""
        return self.Sandbox(sandbox_id, "python", "ignored:1", url, 1.0, api_key)

    def mocked(self, answer: Any) -> Any:
        """A handle whose requests go to a function."""
        kind: Any = httpx.AsyncClient if self.is_async else httpx.Client
        client = kind(transport=httpx.MockTransport(answer))
        return self.Sandbox("sb-1", "python", "", "http://mocked.test", 1.0, None, _http=client)

    def close(self) -> None:
        """Ends the event loop, and with it its connections."""
        if self._runner is not None:
            self._runner.close()
        mitos.close_http_pools()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's configuration gets into a test."""
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture(params=["sync", "async"])
def sdk(request: pytest.FixtureRequest) -> Iterator[Sdk]:
    """Both forms of the SDK, one after the other."""
    found = Sdk(is_async=request.param == "async")
    yield found
    found.close()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as running:
        yield running


@pytest.fixture
def sandbox(sdk: Sdk, server: ScriptedServer) -> Any:
    """A handle of a sandbox of the scripted server."""
    return sdk.handle(server.url)


@pytest.fixture(scope="session")
def recorder() -> Recorder:
    """What the observed server was asked."""
    return Recorder()


@pytest.fixture(scope="session")
def observed(tmp_path_factory: pytest.TempPathFactory, recorder: Recorder) -> Iterator[Server]:
    """A real server with real sandboxes that records every request."""
    settings = ServerSettings(preview=PreviewSettings("https://preview.test", b"0123456789abcdef"))
    with serving(
        tmp_path_factory.mktemp("observed"), settings=settings, wrap=recorder.around
    ) as running:
        yield running
