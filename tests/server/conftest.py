"""Servers for the tests of this folder; most share one, each with sandboxes of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mitos.server.settings import ServerSettings
from tests.server.serving import Server, serving

HERE = Path(__file__).parent
KEY = "key-that-nobody-may-see"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder: nearly all need a real sandbox."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.real)
            item.add_marker(pytest.mark.timeout(60))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without a key."""
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that needs a key."""
    settings = ServerSettings(api_key=KEY)
    with serving(tmp_path_factory.mktemp("keyed"), settings=settings) as running:
        yield running


@pytest.fixture
def sandbox(server: Server) -> str:
    """A sandbox of the shared server."""
    return server.create()


@pytest.fixture(autouse=True)
def every_sandbox_is_gone(request: pytest.FixtureRequest) -> Iterator[None]:
    """Ends what a test made on a shared server."""
    yield
    for name in {"server", "keyed"} & set(request.fixturenames):
        request.getfixturevalue(name).end_sandboxes()
