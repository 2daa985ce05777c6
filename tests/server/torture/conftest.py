"""A server under torture, and a sandbox whose program answers oddly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mitos.server.settings import PreviewSettings, ServerSettings
from tests.server import calling
from tests.server.exposing import SECRET
from tests.server.serving import Server, serving
from tests.server.torture import program
from tests.server.waiting import until

KEY = "the-key"
PORT = 8000


@pytest.fixture(scope="package")
def tortured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = ServerSettings(
        api_key=KEY, preview=PreviewSettings("http://preview.test:8443", SECRET)
    )
    folder = tmp_path_factory.mktemp("tortured")
    with serving(folder, settings=settings, warm_per_template=0) as running:
        yield running


@pytest.fixture(scope="package")
def sandbox(tortured: Server) -> str:
    """A sandbox whose program answers oddly."""
    sandbox = tortured.create()
    source = Path(program.__file__).read_text()
    calling.write(tortured, sandbox, "/tmp/program.py", source.encode())
    calling.run(tortured, sandbox, f"setsid python3 /tmp/program.py {PORT} >/dev/null 2>&1 &")
    path = f"/v1/sandboxes/{sandbox}/expose/{PORT}/answer/plain/closes"
    until(lambda: tortured.get(path).content == b"plain", 10)
    return sandbox
