"""Terminals, over a WebSocket server that records the session and plays a shell."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import websocket
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

import mitos
from mitos._sdk import terminal as messages
from mitos._sdk.framing import END_STREAM, FrameReader, decode_bytes, encode_bytes, encode_frame
from mitos.pty import AsyncPtyHandle, PtyHandle
from tests.sdk.conftest import KEY, Sdk
from tests.sdk.scripted import DEADLINE_S
from tests.server.waiting import until

ROUTE = "/sandbox.v1.Sandbox/Exec"


@dataclass
class Session:
    """What a client did."""

    path: str
    headers: dict[str, str]
    subprotocol: str | None
    messages: list[Any] = field(default_factory=list)
    has_ended: threading.Event = field(default_factory=threading.Event)


def output(data: bytes) -> bytes:
    return encode_frame({"stdout": encode_bytes(data)})


def exit_with(code: int | None, **members: Any) -> bytes:
    exited = members if code is None else {"exitCode": code, **members}
    return encode_frame({"exit": exited}, END_STREAM)


class Shell:
    """A server of terminals: echoes input, and ends on `exit N`."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.refusals: dict[str, tuple[int, str]] = {}
        self.location = ""
        self.breaks = False
        self.last: Callable[[int], list[bytes]] = lambda code: [exit_with(code)]
        self._server: Server = serve(
            self._session,
            "127.0.0.1",
            0,
            process_request=self._check,
            subprotocols=["connect.sandbox.v1", "mitos.pty.v1"],  # type: ignore[list-item]
            close_timeout=1,
        )
        port = self._server.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def session(self) -> Session:
        """The one session there is, as soon as the server has noted it."""
        until(lambda: self.sessions)
        (found,) = self.sessions
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(DEADLINE_S)

    def _check(self, connection: ServerConnection, request: Request) -> Response | None:
        refusal = self.refusals.get(urlsplit(request.path).path)
        if refusal is None:
            return None
        response = connection.respond(*refusal)
        if self.location:
            response.headers["Location"] = self.location
        return response

    def _session(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        headers = {name.lower(): value for name, value in connection.request.headers.items()}
        found = Session(connection.request.path, headers, connection.subprotocol)
        self.sessions.append(found)
        try:
            with contextlib.suppress(ConnectionClosed):
                self._play(connection, found)
        finally:
            found.has_ended.set()

    def _play(self, connection: ServerConnection, found: Session) -> None:
        for message in connection:
            if isinstance(message, str):
                found.messages.append(json.loads(message))
                data = found.messages[-1].get("data")
            else:
                (body,) = FrameReader().feed(message)
                found.messages.append(body)
                data = body.get("stdin")
            typed = decode_bytes(data) if data else b""
            if typed.startswith(b"exit "):
                self._end(connection, found, int(typed[5:]))
                return
            if typed:
                self._echo(connection, found, typed)

    def _echo(self, connection: ServerConnection, found: Session, typed: bytes) -> None:
        if found.subprotocol == "mitos.pty.v1":
            connection.send(json.dumps({"kind": "output", "data": encode_bytes(typed)}))
        else:
            connection.send(output(typed))

    def _end(self, connection: ServerConnection, found: Session, code: int) -> None:
        if self.breaks:
            connection.socket.shutdown(socket.SHUT_RDWR)
            return
        if found.subprotocol == "mitos.pty.v1":
            body = {"kind": "exit", "exit_code": code} if code else {"kind": "exit"}
            connection.send(json.dumps(body))
            return
        for message in self.last(code):
            connection.send(message)


@pytest.fixture
def shell() -> Iterator[Shell]:
    found = Shell()
    yield found
    found.close()


class Screen:
    """Collects what a terminal shows."""

    def __init__(self) -> None:
        self.data = b""
        self._changed = threading.Condition()

    def take(self, data: bytes) -> None:
        assert type(data) is bytes
        with self._changed:
            self.data += data
            self._changed.notify_all()

    def wait_for(self, text: bytes) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: text in self.data, DEADLINE_S), self.data


def talk(sdk: Sdk, terminal: Any, screen: Screen, *lines: bytes) -> int:
    """Types lines, waiting for each one's echo, and gives the exit code."""

    async def session() -> int:
        for line in lines:
            await terminal.send_input(line)
            if not line.startswith(b"exit"):
                await asyncio.to_thread(screen.wait_for, line)
        return int(await asyncio.wait_for(terminal.wait(), DEADLINE_S))

    if sdk.is_async:
        return int(sdk.run(session()))
    for line in lines:
        terminal.send_input(line)
        if not line.startswith(b"exit"):
            screen.wait_for(line)
    return int(terminal.wait(DEADLINE_S))


def test_a_session_echoes_and_gives_the_exit_code(sdk: Sdk, shell: Shell) -> None:
    screen = Screen()

    terminal = sdk.run(sdk.handle(shell.url, KEY).pty(screen.take, 100, 30))

    assert isinstance(terminal, AsyncPtyHandle if sdk.is_async else PtyHandle)
    assert 7 == talk(sdk, terminal, screen, b"ls\n", b"exit 7\n")
    session = shell.session()
    assert {"open": {"pty": {"size": {"cols": 100, "rows": 30}}}} == session.messages[0]
    assert [{"stdin": encode_bytes(b"ls\n")}, {"stdin": encode_bytes(b"exit 7\n")}] == (
        session.messages[1:]
    )
    assert terminal.error is None


def test_the_handshake_names_the_sandbox_and_hides_the_key(sdk: Sdk, shell: Shell) -> None:
    terminal = sdk.run(sdk.handle(shell.url, KEY).create_pty(lambda _: None))
    sdk.run(terminal.kill())

    session = shell.session()
    assert ROUTE == urlsplit(session.path).path
    assert {"sandbox": ["sb-1"]} == parse_qs(urlsplit(session.path).query)
    assert "connect.sandbox.v1" == session.subprotocol
    assert f"Bearer {KEY}" == session.headers["authorization"]
    assert "x-sandbox-id" not in session.headers
    assert KEY not in session.path + repr(terminal)


def test_without_a_key_there_is_no_authorization(sdk: Sdk, shell: Shell) -> None:
    terminal = sdk.run(sdk.handle(shell.url).pty(lambda _: None))
    sdk.run(terminal.kill())

    assert "authorization" not in shell.session().headers


def test_resize_sends_the_size(sdk: Sdk, shell: Shell) -> None:
    screen = Screen()
    terminal = sdk.run(sdk.handle(shell.url).pty(screen.take))

    sdk.run(terminal.resize(120, 40))
    assert 0 == talk(sdk, terminal, screen, b"exit 0\n")

    assert {"resize": {"cols": 120, "rows": 40}} in shell.session().messages


def test_kill_ends_the_session_without_an_exit_code(sdk: Sdk, shell: Shell) -> None:
    terminal = sdk.run(sdk.handle(shell.url).pty(lambda _: None))

    sdk.run(terminal.kill())
    sdk.run(terminal.kill())

    assert -1 == sdk.run(terminal.wait())
    assert shell.session().has_ended.wait(DEADLINE_S)
    with pytest.raises((websocket.WebSocketConnectionClosedException, ConnectionClosed)):
        sdk.run(terminal.send_input(b"x"))


@pytest.mark.parametrize(
    ("last", "code"),
    [
        ([exit_with(-1)], -1),
        ([encode_frame({"exit": {"exit_code": 3}}), encode_frame({}, END_STREAM)], 3),
        ([encode_frame({"exit": {"exitCode": 4}})], 4),
        ([encode_frame({}, END_STREAM)], 0),
        ([exit_with(None)], 0),
        ([], -1),
    ],
)
def test_the_exit_code_comes_in_several_forms(
    sdk: Sdk, shell: Shell, last: list[bytes], code: int
) -> None:
    shell.last = lambda _: last
    screen = Screen()
    terminal = sdk.run(sdk.handle(shell.url).pty(screen.take))

    assert code == talk(sdk, terminal, screen, b"exit 0\n")


@pytest.mark.parametrize("odd", [b"\xff\xff", b"\x00\x00\x00\x00\x02{x", b"\x01\x00\x00\x00\x02{}"])
def test_a_message_of_another_form_ends_the_session_with_an_error(
    sdk: Sdk, shell: Shell, odd: bytes
) -> None:
    shell.last = lambda _: [odd, exit_with(0)]
    screen = Screen()
    terminal = sdk.run(sdk.handle(shell.url).pty(screen.take))

    code = talk(sdk, terminal, screen, b"exit 0\n")

    # A header cut short is no message yet, and nothing more of it can come.
    assert (0, None) == (code, terminal.error) if odd == b"\xff\xff" else -1 == code
    if odd != b"\xff\xff":
        assert isinstance(terminal.error, mitos.AgentRunError)


@pytest.mark.parametrize(
    "message",
    [
        "nonsense",
        b"\xff\xfe",
        "[" * 100_000,
        '{"kind": "output", "data": "a"}',
        '{"kind": "exit", "exit_code": "x"}',
        encode_frame({"stdout": "a"}),
        encode_frame({"exit": {"exitCode": "x"}}, END_STREAM),
        encode_frame({"error": {"code": "internal"}}, END_STREAM),
    ],
)
def test_a_message_of_no_dialect_is_a_typed_error(message: bytes | str) -> None:
    is_frame = isinstance(message, bytes) and message[0] <= END_STREAM
    session = messages.Session(lambda _: None, is_legacy=not is_frame, api_key=None)

    with pytest.raises(mitos.AgentRunError):
        session.take(message)

    assert -1 == session.exit_code


@pytest.mark.parametrize("status", [404, 405, 426])
def test_a_server_with_only_the_older_route_is_served(sdk: Sdk, shell: Shell, status: int) -> None:
    shell.refusals[ROUTE] = (status, "no such route")
    screen = Screen()

    terminal = sdk.run(sdk.handle(shell.url, KEY).pty(screen.take, 100, 30))
    sdk.run(terminal.resize(120, 40))
    code = talk(sdk, terminal, screen, b"ls\n", b"exit 7\n")

    assert 7 == code
    session = shell.session()
    assert "/v1/pty" == urlsplit(session.path).path
    assert {"sandbox": ["sb-1"], "cols": ["100"], "rows": ["30"]} == parse_qs(
        urlsplit(session.path).query
    )
    assert "mitos.pty.v1" == session.subprotocol
    assert f"Bearer {KEY}" == session.headers["authorization"]
    assert {"kind": "resize", "cols": 120, "rows": 40} == session.messages[0]


REFUSAL = {"error": {"code": "not_found", "message": f"gone, {KEY}", "remediation": "Make one."}}


def failure_of(sdk: Sdk, url: str) -> mitos.AgentRunError:
    """The error of a terminal that cannot be opened; the sync form keeps it, and `wait` says -1."""
    sandbox = sdk.handle(url, KEY)
    if sdk.is_async:
        with pytest.raises(mitos.AgentRunError) as caught:
            sdk.run(sandbox.pty(lambda _: None))
        return caught.value
    terminal = sandbox.pty(lambda _: None)
    assert -1 == terminal.wait()
    with pytest.raises(websocket.WebSocketConnectionClosedException):
        terminal.send_input(b"x")
    terminal.kill()
    assert isinstance(terminal.error, mitos.AgentRunError)
    return terminal.error


@pytest.mark.parametrize("status", [404, 401, 429, 500])
def test_a_refused_handshake_is_the_server_s_error(sdk: Sdk, shell: Shell, status: int) -> None:
    shell.refusals[ROUTE] = (status, json.dumps(REFUSAL))
    shell.refusals["/v1/pty"] = (410, "never mind")

    error = failure_of(sdk, shell.url)

    assert (mitos.NotFoundError, status) == (type(error), error.status)
    assert "gone, [REDACTED]" in str(error)
    assert "Make one." == error.remediation


def test_a_refused_connection_ends_the_wait_at_once(sdk: Sdk) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    began = time.monotonic()

    error = failure_of(sdk, url)

    assert time.monotonic() - began < 3
    assert "connection_failed" == error.code
    assert "mitos serve" in error.remediation


def test_a_server_that_does_not_answer_is_given_up(
    sdk: Sdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "OPEN_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = failure_of(sdk, f"http://127.0.0.1:{silent.getsockname()[1]}")

    assert "connection_failed" == error.code


def test_output_comes_beside_the_caller(sdk: Sdk, shell: Shell) -> None:
    """On a thread of its own; in the loop's thread for the asynchronous form."""
    threads: list[threading.Thread] = []
    screen = Screen()

    def take(data: bytes) -> None:
        threads.append(threading.current_thread())
        screen.take(data)

    terminal = sdk.run(sdk.handle(shell.url).pty(take))
    talk(sdk, terminal, screen, b"ls\n", b"exit 0\n")

    assert sdk.is_async is (threading.current_thread() in threads)


def test_a_terminal_may_be_killed_by_its_own_callback(shell: Shell) -> None:
    def take(_: bytes) -> None:
        terminal.kill()

    terminal = mitos.DirectSandbox("sb-1", "python", "", shell.url, 1.0).pty(take)
    terminal.send_input(b"ls\n")

    assert -1 == terminal.wait(DEADLINE_S)
    assert terminal.error is None


def test_a_terminal_whose_opening_cannot_be_sent_is_closed(
    sdk: Sdk, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise OSError("gone")

    monkeypatch.setattr(messages.Session, "opening", fail)

    error = failure_of(sdk, shell.url)

    assert "connection_failed" == error.code
    until(lambda: shell.sessions)
    assert shell.sessions[0].has_ended.wait(DEADLINE_S)


def test_a_canceled_opening_leaves_no_connection(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise asyncio.CancelledError

    async def open_it() -> None:
        sandbox = mitos.aio.AsyncDirectSandbox("sb-1", "python", "", shell.url, 1.0)
        with pytest.raises(asyncio.CancelledError):
            await sandbox.pty(lambda _: None)
        assert 1 == len(asyncio.all_tasks())

    monkeypatch.setattr(messages.Session, "opening", fail)

    asyncio.run(open_it())


def test_redirects_are_not_followed(sdk: Sdk, shell: Shell) -> None:
    """They would carry the key to wherever they point."""
    elsewhere = Shell()
    shell.refusals[ROUTE] = (307, "")
    shell.location = elsewhere.url.replace("http", "ws") + ROUTE
    try:
        error = failure_of(sdk, shell.url)
    finally:
        elsewhere.close()

    assert error.code in {"connection_failed", "request_failed"}
    assert [] == elsewhere.sessions


def test_a_shell_that_never_ran_says_why(sdk: Sdk, shell: Shell) -> None:
    shell.last = lambda _: [exit_with(1, error=f"no /bin/sh, {KEY}")]
    terminal = sdk.run(sdk.handle(shell.url, KEY).pty(lambda _: None))

    assert 1 == talk(sdk, terminal, Screen(), b"exit 1\n")
    assert isinstance(terminal.error, mitos.AgentRunError)
    assert ("exec_failed", "no /bin/sh, [REDACTED]") == (terminal.error.code, terminal.error.cause)


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, KeyError])
def test_a_callback_that_fails_ends_the_session(
    sdk: Sdk, shell: Shell, kind: type[Exception]
) -> None:
    def fail(_: bytes) -> None:
        raise kind("mine")

    terminal = sdk.run(sdk.handle(shell.url).pty(fail))
    sdk.run(terminal.send_input(b"ls\n"))

    assert -1 == sdk.run(terminal.wait())
    assert "mine" in str(terminal.error)


def test_a_connection_that_breaks_ends_the_session_with_an_error(sdk: Sdk, shell: Shell) -> None:
    shell.breaks = True
    terminal = sdk.run(sdk.handle(shell.url, KEY).pty(lambda _: None))

    assert -1 == talk(sdk, terminal, Screen(), b"exit 0\n")
    # The asynchronous form keeps what the library raised.
    assert isinstance(terminal.error, ConnectionClosed if sdk.is_async else mitos.AgentRunError)


def test_a_terminal_whose_callback_never_returns_can_be_killed(shell: Shell) -> None:
    is_stuck, may_return = threading.Event(), threading.Event()

    def hang(_: bytes) -> None:
        is_stuck.set()
        may_return.wait(DEADLINE_S)

    terminal = mitos.DirectSandbox("sb-1", "python", "", shell.url, 1.0).pty(hang)
    terminal.send_input(b"ls\n")
    assert is_stuck.wait(DEADLINE_S)

    terminal.kill()

    assert -1 == terminal.wait()
    may_return.set()


def test_the_reader_is_a_named_thread_or_task(sdk: Sdk, shell: Shell) -> None:
    async def names() -> set[str]:
        return {task.get_name() for task in asyncio.all_tasks()}

    terminal = sdk.run(sdk.handle(shell.url).pty(lambda _: None))

    found = sdk.run(names()) if sdk.is_async else {each.name for each in threading.enumerate()}
    assert "mitos-pty" in found
    sdk.run(terminal.kill())


def test_wait_gives_up_after_its_timeout(sdk: Sdk, shell: Shell) -> None:
    terminal = sdk.run(sdk.handle(shell.url).pty(lambda _: None))

    assert -1 == sdk.run(terminal.wait(0.05))
    sdk.run(terminal.send_input(b"exit 5\n"))
    assert 5 == sdk.run(terminal.wait(DEADLINE_S))


def test_without_websockets_the_error_names_the_extra(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "websockets.exceptions", None)
    sandbox = mitos.aio.AsyncDirectSandbox("sb-1", "python", "", shell.url, 1.0)

    with pytest.raises(ImportError, match=r"websockets.*mitos-run\[async\]"):
        asyncio.run(sandbox.create_pty(lambda _: None))


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("http://a.test:8080", "ws://a.test:8080/sandbox.v1.Sandbox/Exec?sandbox=sb-1"),
        ("HTTPS://a.test/", "wss://a.test/sandbox.v1.Sandbox/Exec?sandbox=sb-1"),
        ("https://http.test", "wss://http.test/sandbox.v1.Sandbox/Exec?sandbox=sb-1"),
    ],
)
def test_the_address_is_the_websocket_form_of_the_server_s(
    sdk: Sdk, base: str, expected: str
) -> None:
    assert expected == sdk.handle(base, KEY).pty_url()
