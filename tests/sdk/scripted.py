"""An HTTP server on loopback that records requests and answers from a script.

It speaks the wire contract just as far as a test says: an answer is a status and a body, a stream
of frames, or a way to fail. It stands in for servers of others, and for what ours never does.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mitos._sdk.framing import END_STREAM, FrameReader, encode_frame

DEADLINE_S = 10
RUNTIME = "/sandbox.v1.Sandbox/"


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    peer: tuple[str, int]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages of a streaming request, which has no end frame."""
        return list(FrameReader().feed(self.body))


@dataclass(frozen=True)
class Answer:
    """What to say: a body of a known length, or chunks, with a pause before each."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[bytes] | None = None
    pause_s: float = 0.0
    is_cut: bool = False
    """True: the connection closes in mid-answer; without chunks, before an answer."""


Script = Callable[[Request], Answer]


def reply(value: Any, status: int = 200) -> Answer:
    """A JSON answer."""
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def page(text: str, status: int = 200) -> Answer:
    """A web page, as a wrong host would answer."""
    return Answer(status, text.encode(), {"Content-Type": "text/html"})


def envelope(status: int, code: str, **members: Any) -> Answer:
    """A `/v1` error."""
    error = {"code": code, "message": f"failed: {code}", "remediation": "Do better.", **members}
    return reply({"error": error}, status)


def stream(*messages: dict[str, Any], end: dict[str, Any] | None = None) -> Answer:
    """A streamed answer, one chunk a frame, with its end."""
    frames = [encode_frame(message) for message in messages]
    return frame_chunks(*frames, encode_frame(end or {}, END_STREAM))


def frame_chunks(*chunks: bytes, is_cut: bool = False, pause_s: float = 0.0) -> Answer:
    """A streamed answer in exactly these pieces."""
    kind = {"Content-Type": "application/connect+json"}
    return Answer(200, b"", kind, list(chunks), pause_s, is_cut)


def cut() -> Answer:
    """No answer: the connection closes."""
    return Answer(is_cut=True)


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away in mid-answer are part of the tests."""


class ScriptedServer:
    """The server; `on` writes its script, `requests` is what came.

    Args:
        port: 0 takes a free one.
        earlier: whose script it goes on with.
    """

    def __init__(self, port: int = 0, earlier: ScriptedServer | None = None) -> None:
        self.requests: list[Request] = []
        self.released = threading.Event()
        self._scripts: dict[tuple[str, str], list[Answer | Script]] = (
            {} if earlier is None else earlier._scripts
        )
        self._lock = threading.Lock()
        self._server = _QuietServer(("127.0.0.1", port), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        if earlier is None:
            self._serve_sandboxes()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def on(self, method: str, path: str, *answers: Answer | Script) -> None:
        """Answers a route with these in turn; the last one stays."""
        self._scripts[method, path] = list(answers)

    def on_call(self, rpc: str, *answers: Answer | Script) -> None:
        """The same for a runtime call."""
        self.on("POST", RUNTIME + rpc, *answers)

    def hang(self, _: Request) -> Answer:
        """An answer that does not come before the test ends."""
        self.released.wait(DEADLINE_S)
        return cut()

    def sent(self, path: str) -> list[Request]:
        """The requests that came for a path."""
        return [request for request in self.requests if request.path == path]

    def calls(self, rpc: str) -> list[Request]:
        """The runtime calls that came."""
        return self.sent(RUNTIME + rpc)

    def close(self) -> None:
        """Stops serving and closes the port."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(DEADLINE_S)

    def answer(self, request: Request) -> Answer:
        """The next answer of the script."""
        with self._lock:
            self.requests.append(request)
            script = self._scripts.get((request.method, request.path))
            if script is None:
                return Answer(404, b"404 page not found\n", {"Content-Type": "text/plain"})
            step = script.pop(0) if len(script) > 1 else script[0]
        return step if isinstance(step, Answer) else step(request)

    def _serve_sandboxes(self) -> None:
        """What every server does: templates, sandboxes, forks and their end."""
        self.on("POST", "/v1/templates", lambda request: reply({**request.json, "ready": True}))
        self.on("POST", "/v1/fork", lambda request: reply(descriptor(request.json["id"])))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            timeout = DEADLINE_S

            def _serve(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = _read_body(self)
                request = Request(self.command, self.path, headers, body, self.client_address)
                answer = scripted.answer(request)
                with contextlib.suppress(ConnectionError):
                    self._send(answer)

            def _send(self, answer: Answer) -> None:
                self.close_connection = answer.is_cut
                if answer.is_cut and answer.chunks is None:
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if answer.chunks is None:
                    self.send_header("Content-Length", str(len(answer.body)))
                    self.end_headers()
                    self.wfile.write(answer.body)
                    return
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for chunk in answer.chunks:
                    time.sleep(answer.pause_s)
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                if not answer.is_cut:
                    self.wfile.write(b"0\r\n\r\n")

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

            do_GET = do_POST = do_DELETE = _serve  # noqa: N815

        return Handler


def _read_body(request: BaseHTTPRequestHandler) -> bytes:
    """A request's body, of a known length or in chunks."""
    if request.headers.get("Transfer-Encoding") != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length") or 0))
    body = b""
    while size := int(request.rfile.readline(), 16):
        body += request.rfile.read(size)
        request.rfile.readline()
    request.rfile.readline()
    return body


def descriptor(sandbox_id: str, template: str = "python") -> dict[str, Any]:
    """A sandbox as a server describes it."""
    return {
        "id": sandbox_id,
        "template_id": template,
        "endpoint": "10.0.0.1:9000",
        "fork_time_ms": 12.345,
        "created_at": "2026-01-01T00:00:00Z",
    }


@contextlib.contextmanager
def scripted_server() -> Iterator[ScriptedServer]:
    """A server for the time of a test."""
    server = ScriptedServer()
    try:
        yield server
    finally:
        server.close()
