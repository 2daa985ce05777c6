"""A real server on loopback, run by an event loop in a thread of its own.

Its sandboxes are real, or those of the fake engine where a test is about the server alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from starlette.types import ASGIApp

from mitos.engine import select
from mitos.engine.base import Engine
from mitos.engine.fake import FakeEngine
from mitos.engine.kind import EngineSettings
from mitos.node.node import Node, RunningNode
from mitos.node.principal import LOCAL
from mitos.node.settings import NodeSettings
from mitos.node.template.catalog import CONFIGURATION_NAME
from mitos.node.tenant import Tenant
from mitos.server import app
from mitos.server.http import server as http
from mitos.server.settings import ServerSettings
from tests.integration.leftovers import Leftovers
from tests.machine import borrow_cache, why_no_real_sandboxes

DEADLINE_S = 15

_T = TypeVar("_T")


@dataclass
class Server:
    """A running server, and what a test may look at behind it."""

    url: str
    port: int
    node: RunningNode
    loop: asyncio.AbstractEventLoop
    told: asyncio.Event
    thread: threading.Thread
    key: str | None = None
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def tenant(self) -> Tenant:
        """The only owner's part of the node."""
        return self.node.tenant(LOCAL)

    def client(self, **options: Any) -> httpx.Client:
        """An HTTP client that sends the server's key."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        options["headers"] = headers | options.get("headers", {})
        return httpx.Client(
            base_url=self.url, timeout=DEADLINE_S, verify=False, trust_env=False, **options
        )

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request with a connection of its own."""
        with self.client() as client:
            return client.request(method, path, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def delete(self, path: str, **options: Any) -> httpx.Response:
        return self.request("DELETE", path, **options)

    def new_id(self) -> str:
        """An id that no other test uses."""
        return f"sandbox-{next(self.numbers):08x}"

    def create(self, template: str = "python") -> str:
        """A new sandbox's id."""
        answer = self.post("/v1/fork", json={"template": template, "id": self.new_id()})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def end_sandboxes(self) -> None:
        """Terminates every sandbox there is."""

        async def end() -> None:
            ids = [record.id for record in self.tenant.list_sandboxes()]
            await asyncio.gather(*map(self.tenant.terminate, ids))

        self.run(end())

    def stop(self) -> None:
        """Tells the server to stop."""
        with contextlib.suppress(RuntimeError):  # it has stopped, and its loop with it
            self.loop.call_soon_threadsafe(self.told.set)

    def join(self) -> None:
        """Waits until it has stopped."""
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive(), "the server did not stop"

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Runs a coroutine in the server's own loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(DEADLINE_S)


@contextlib.contextmanager
def serving(
    folder: Path,
    *,
    settings: ServerSettings | None = None,
    wrap: Callable[[ASGIApp], ASGIApp] = lambda application: application,
    **node_settings: Any,
) -> Iterator[Server]:
    """Starts a server with real sandboxes and the template `python`, and stops it afterwards.

    Args:
        folder: for all its files.
        settings: of the server.
        wrap: puts something around the application, such as an observer.
        node_settings: what differs from an ordinary node.
    """
    if reason := why_no_real_sandboxes():
        pytest.skip(reason)
    home = folder / "home"
    home.mkdir(parents=True)
    borrow_cache(home)
    leftovers = Leftovers(home)
    wanted = {"warm_per_template": 2, "blanks_per_spec": 0, **node_settings}
    engine = select.find(select.AUTO).open(EngineSettings(home))
    with _serving(folder, engine, settings or ServerSettings(), wrap, wanted) as running:
        yield running
    assert leftovers.found() == []


@contextlib.contextmanager
def serving_fake(
    folder: Path,
    *,
    settings: ServerSettings | None = None,
    engine: FakeEngine | None = None,
    **node_settings: Any,
) -> Iterator[Server]:
    """The same over the fake engine, or one that goes further: no root, a few milliseconds."""
    home, rootfs = folder / "home", folder / "rootfs"
    home.mkdir(parents=True)
    (rootfs / "etc").mkdir(parents=True)
    lines = (f'[templates.{name}]\nrootfs = "{rootfs}"\n' for name in ("python", "base"))
    (home / CONFIGURATION_NAME).write_text("".join(lines))
    wanted = {"warm_per_template": 0, "blanks_per_spec": 0, **node_settings}
    with _serving(
        folder, engine or FakeEngine(), settings or ServerSettings(), lambda app: app, wanted
    ) as running:
        yield running


@contextlib.contextmanager
def _serving(
    folder: Path,
    engine: Engine,
    settings: ServerSettings,
    wrap: Callable[[ASGIApp], ASGIApp],
    node_settings: dict[str, Any],
) -> Iterator[Server]:
    home = folder / "home"
    started: Future[Server] = Future()

    async def serve() -> None:
        wanted = NodeSettings(home=home, scratch=folder / "scratch", **node_settings)
        node = await Node(wanted, engine).start()
        await node.tenant(LOCAL).templates.create("python")
        listener = http.bind("127.0.0.1", 0)
        port = listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        own = replace(settings, base_url=url)
        listener.listen(http.BACKLOG)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        thread = threading.current_thread()
        started.set_result(Server(url, port, node, loop, stop, thread, own.api_key))
        try:
            await http.run(
                wrap(app.build(node, own)),
                listener,
                max_connections=own.max_connections,
                stop=stop.wait,
                end_requests=node.close,
            )
        finally:
            listener.close()
            await node.close()

    def main() -> None:
        try:
            asyncio.run(serve())
        except BaseException as exc:
            if not started.done():
                started.set_exception(exc)
            raise

    thread = threading.Thread(target=main, name="test-server")
    thread.start()
    try:
        server = started.result(DEADLINE_S)
        try:
            yield server
        finally:
            server.stop()
    finally:
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "the server did not stop"


@contextlib.contextmanager
def raw(server: Server, data: bytes = b"") -> Iterator[socket.socket]:
    """A plain connection to the server."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        connection.sendall(data)
        yield connection
