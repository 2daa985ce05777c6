"""Servers for the tests of this folder, over the fake engine: they are about the server alone.

Most tests share one, each with sandboxes of its own. Tests that need real sandboxes are in `real/`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mitos.server.settings import ServerSettings
from tests.server.serving import Server, serving_fake

KEY = "key-that-nobody-may-see"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without a key."""
    with serving_fake(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that needs a key."""
    settings = ServerSettings(api_key=KEY)
    with serving_fake(tmp_path_factory.mktemp("keyed"), settings=settings) as running:
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
