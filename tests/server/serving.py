"""A real server on loopback with real sandboxes, run by an event loop in a thread of its own."""

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
from mitos.engine.kind import EngineSettings
from mitos.images.catalog import CONFIGURATION_NAME, ImageCatalog
from mitos.images.store import ImageStore
from mitos.node.node import Node
from mitos.node.settings import NodeSettings
from mitos.server import app, http
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
    node: Node
    loop: asyncio.AbstractEventLoop
    told: asyncio.Event
    thread: threading.Thread
    key: str | None = None
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

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
            ids = [record.id for record in self.node.list_sandboxes()]
            await asyncio.gather(*map(self.node.terminate, ids))

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
    """Starts a server with the template `python` ready, and stops it afterwards.

    Args:
        folder: for all its files.
        settings: of the server.
        wrap: puts something around the application, such as an observer.
        node_settings: what differs from an ordinary node.
    """
    home = _new_home(folder)
    leftovers = Leftovers(home)
    wanted = {"warm_per_template": 2, "blanks_per_spec": 0, **node_settings}
    started: Future[Server] = Future()

    async def serve() -> None:
        engine = select.find(select.AUTO).open(EngineSettings(home))
        images = ImageStore(home, ImageCatalog(home / CONFIGURATION_NAME))
        node = Node(NodeSettings(home=home, scratch=folder / "scratch", **wanted), engine, images)
        await node.start()
        await node.templates.create("python")
        listener = http.bind("127.0.0.1", 0)
        port = listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        own = replace(settings or ServerSettings(), base_url=url)
        listener.listen(http.BACKLOG)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        thread = threading.current_thread()
        started.set_result(Server(url, port, node, loop, stop, thread, own.api_key))
        try:
            await http.run(
                wrap(app.build(node, own)), listener, stop=stop.wait, end_requests=node.close
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
    assert leftovers.found() == []


def _new_home(folder: Path) -> Path:
    if reason := why_no_real_sandboxes():
        pytest.skip(reason)
    home = folder / "home"
    home.mkdir(parents=True)
    borrow_cache(home)
    return home


@contextlib.contextmanager
def raw(server: Server, data: bytes = b"") -> Iterator[socket.socket]:
    """A plain connection to the server."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        connection.sendall(data)
        yield connection
