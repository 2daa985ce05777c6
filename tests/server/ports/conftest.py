"""A server with a key and previews; nothing serves inside its sandboxes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mitos.server.settings import PreviewSettings, ServerSettings
from tests.server.exposing import SECRET
from tests.server.serving import Server, serving_fake


@pytest.fixture(scope="session")
def exposing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = ServerSettings(
        api_key="the key", preview=PreviewSettings("http://preview.test:8443", SECRET)
    )
    with serving_fake(tmp_path_factory.mktemp("exposing"), settings=settings) as running:
        yield running


@pytest.fixture
def page(exposing: Server) -> Iterator[str]:
    """A sandbox."""
    sandbox = exposing.create()
    yield sandbox
    exposing.delete(f"/v1/sandboxes/{sandbox}")
