"""Servers for the tests of this folder; most share one, each with sandboxes of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mitos.server.settings import ServerSettings
from tests.server.serving import Server, serving

KEY = "key-that-nobody-may-see"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without a key."""
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that needs a key."""
    settings = ServerSettings(api_key=KEY, is_mock=True)
    with serving(tmp_path_factory.mktemp("keyed"), settings=settings) as running:
        yield running


@pytest.fixture
def sandbox(server: Server) -> str:
    """A sandbox of the shared server."""
    return server.create()
