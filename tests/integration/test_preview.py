"""A page of a real framework, in two forks on the same port, seen by a real browser."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

import mitos
from tests.integration.chromium import browser
from tests.integration.conftest import Server

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

PORT = 8000
TEMPLATE = "web"
CONFIGURATION = """
[templates.web]
packages = ["ca-certificates", "curl", "procps", "python3-aiohttp"]
"""

SITE = """
from pathlib import Path
from aiohttp import web

PAGE = '''<!doctype html><link rel=stylesheet href=/style.css><h1></h1><p id=echo></p><script>
fetch('/name').then(answer => answer.text()).then(name => {
  document.querySelector('h1').textContent = name
  const socket = new WebSocket(location.origin.replace('http', 'ws') + '/echo')
  socket.onopen = () => socket.send('hello from ' + name)
  socket.onmessage = event => { document.querySelector('#echo').textContent = event.data }
})
</script>'''

async def page(_):
    return web.Response(text=PAGE, content_type='text/html')

async def style(_):
    return web.Response(text='h1 { color: rgb(1, 2, 3) }', content_type='text/css')

async def name(_):
    return web.Response(text=Path('/workspace/name').read_text().strip())

async def echo(request):
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str('echo: ' + message.data)
    return socket

app = web.Application()
app.add_routes([web.get('/', page), web.get('/style.css', style), web.get('/name', name),
                web.get('/echo', echo)])
web.run_app(app, host='127.0.0.1', port=8000, print=None)
"""


def serve_site(sandbox: mitos.DirectSandbox) -> None:
    """Starts the site, and waits until it answers."""
    sandbox.files.write("/workspace/site.py", SITE)
    sandbox.files.write("/workspace/name", "parent")
    sandbox.exec("nohup python3 /workspace/site.py >/tmp/site.log 2>&1 &")
    started = sandbox.exec(
        f"for i in $(seq 200); do curl -s 127.0.0.1:{PORT}/name && exit; sleep 0.05; done;"
        " cat /tmp/site.log; exit 1"
    )
    assert started.exit_code == 0, started.stdout


def test_two_forks_serve_two_pages_on_one_port(server: Server, tmp_path: Path) -> None:
    (server.home / "templates.toml").write_text(CONFIGURATION)
    with server.create(TEMPLATE) as parent:
        serve_site(parent)
        children = parent.fork(2)
        try:
            for name, child in zip(("one", "two"), children, strict=True):
                child.files.write("/workspace/name", name)
            urls = {
                name: sandbox.get_host(PORT)
                for name, sandbox in zip(("parent", "one", "two"), (parent, *children), strict=True)
            }
            with browser(tmp_path / "profile") as page:
                for name, url in urls.items():
                    page.open(url)
                    page.wait_for("document.querySelector('h1')?.textContent", name)
                    page.wait_for(
                        "document.querySelector('#echo').textContent", f"echo: hello from {name}"
                    )
                    color = "getComputedStyle(document.querySelector('h1')).color"
                    page.wait_for(color, "rgb(1, 2, 3)")
                    assert "token" not in page.value("location.href")
        finally:
            for child in children:
                child.terminate()
        url = httpx.URL(urls["one"])
        gone = httpx.get(
            f"{server.url}{url.raw_path.decode()}",
            headers={"Host": url.netloc.decode()},
            trust_env=False,
        )
    assert 404 == gone.status_code
