"""Background commands against a scripted server: starting, waiting, killing, finding again."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import mitos
from mitos._sdk.framing import END_STREAM, encode_bytes, encode_frame
from mitos.types import ExecResult
from tests.sdk.conftest import Sdk
from tests.sdk.scripted import (
    DEADLINE_S,
    Answer,
    Request,
    ScriptedServer,
    envelope,
    frame_chunks,
    reply,
    stream,
)

DONE = {"exit": {"exitCode": 7, "execTimeMs": 2.5}}
KEPT = {"X-Command-Id": "cmd-1"}


def said(text: str) -> dict[str, str]:
    return {"stdout": encode_bytes(text.encode())}


def kept(answer: Answer, **headers: str) -> Answer:
    """The answer of a server that keeps commands."""
    return dataclasses.replace(answer, headers={**answer.headers, **KEPT, **headers})


class Held(list[bytes]):
    """Pieces of an answer: one at once, the others when `released` is set."""

    def __init__(self, *last: bytes) -> None:
        super().__init__([encode_frame(said("begun")), *last])
        self.released = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        first, *last = super().__iter__()
        yield first
        self.released.wait(DEADLINE_S)
        yield from last

    @property
    def answer(self) -> Answer:
        return dataclasses.replace(frame_chunks(), chunks=self)


@pytest.fixture
def held() -> Iterator[Held]:
    """A command that begins and does not end by itself."""
    found = Held(encode_frame({"exit": {"exitCode": -1}}), encode_frame({}, END_STREAM))
    yield found
    found.released.set()


def begin(sdk: Sdk, sandbox: Any, **options: Any) -> Any:
    return sdk.run(sandbox.exec_background("serve", **options))


def test_a_command_is_started_to_be_kept(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on_call("ExecStream", kept(stream(said("hi"), DONE)))

    process = begin(sdk, sandbox, timeout=9, working_dir="/w", env={"A": "1"})

    assert ExecResult(7, "hi", "", 2.5) == sdk.run(process.wait())
    assert not process.running()
    (request,) = server.requests
    expected = {
        "command": "serve",
        "timeoutSeconds": 9,
        "cwd": "/w",
        "env": [{"key": "A", "value": "1"}],
    }
    assert [expected] == request.messages
    assert "true" == request.headers["x-command-keep"]
    assert process.id == request.headers["x-command-id"]
    assert re.fullmatch("cmd-[0-9a-f]{16}", process.id)
    assert process.id in repr(process)


def test_output_comes_to_callbacks_and_the_result(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on_call("ExecStream", kept(stream(said("a"), {"stderr": encode_bytes(b"b")}, DONE)))
    heard: list[bytes] = []

    process = begin(sdk, sandbox, on_stdout=heard.append, on_stderr=heard.append)
    found = sdk.run(process.wait())

    assert [b"a", b"b"] == heard
    assert ("a", "b") == (found.stdout, found.stderr)


def test_a_deadline_is_a_result(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on_call("ExecStream", kept(stream({"exit": {"exitCode": 124}})))

    assert 124 == sdk.run(begin(sdk, sandbox).wait()).exit_code


@pytest.mark.parametrize(
    ("answer", "code"),
    [(envelope(404, "not_found"), "not_found"), (envelope(429, "rate_limited"), "rate_limited")],
)
def test_a_command_that_cannot_start_fails_at_the_call(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, answer: Answer, code: str
) -> None:
    server.on_call("ExecStream", answer)

    with pytest.raises(mitos.AgentRunError) as caught:
        begin(sdk, sandbox)

    assert code == caught.value.code


def test_a_command_that_never_ran_is_said_by_wait(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on_call("ExecStream", kept(stream(said(""), {"exit": {"error": "no sh"}})))

    def run() -> None:
        sdk.run(begin(sdk, sandbox).wait())

    with pytest.raises(RuntimeError, match="exec_failed"):
        run()


def test_a_callback_s_error_is_raised_by_wait(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, held: Held
) -> None:
    server.on_call("ExecStream", kept(held.answer))

    def fail(_: bytes) -> None:
        raise KeyError("mine")

    def run() -> None:
        sdk.run(begin(sdk, sandbox, on_stdout=fail).wait())

    with pytest.raises(KeyError, match="mine"):
        run()


def test_a_server_that_says_nothing_at_first_is_not_waited_for(
    sdk: Sdk,
    sandbox: Any,
    server: ScriptedServer,
    held: Held,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may be one that says that a command runs only with its output."""
    monkeypatch.setattr(sdk.inside("background"), "READY_S", 0.05)

    def answer(_: Request) -> Answer:
        held.released.wait(DEADLINE_S)
        return stream(DONE)

    server.on_call("ExecStream", answer)

    process = begin(sdk, sandbox)

    assert process.running()
    held.released.set()
    assert 7 == sdk.run(process.wait(DEADLINE_S)).exit_code


def test_a_timeout_over_the_ceiling_is_refused_before_any_request(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    with pytest.raises(mitos.TimeoutTooLargeError):
        begin(sdk, sandbox, timeout=86_401)

    assert [] == server.requests


def test_wait_gives_up_after_its_timeout_and_the_command_goes_on(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, held: Held
) -> None:
    server.on_call("ExecStream", kept(held.answer))
    process = begin(sdk, sandbox)

    with pytest.raises(TimeoutError, match=process.id):
        sdk.run(process.wait(0.05))

    assert process.running()
    held.released.set()
    assert -1 == sdk.run(process.wait(DEADLINE_S)).exit_code


def test_kill_asks_the_server_once(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, held: Held
) -> None:
    def end(_: Request) -> Answer:
        held.released.set()
        return reply({"status": "ended"})

    server.on_call("ExecStream", kept(held.answer))
    process = begin(sdk, sandbox)
    server.on("DELETE", f"/v1/sandboxes/sb-1/commands/{process.id}", end)

    sdk.run(process.kill())
    sdk.run(process.kill())

    found = sdk.run(process.wait(DEADLINE_S))
    assert (-1, "begun") == (found.exit_code, found.stdout)
    assert 1 == len([each for each in server.requests if each.method == "DELETE"])


@pytest.mark.parametrize("status", [404, 405, 501])
def test_kill_hangs_up_on_a_server_that_keeps_no_commands(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, held: Held, status: int
) -> None:
    """The command ends with its connection there; the sandbox is used on."""
    server.on_call("ExecStream", held.answer, stream(DONE))
    process = begin(sdk, sandbox)
    if status != 404:
        server.on(
            "DELETE",
            f"/v1/sandboxes/sb-1/commands/{process.id}",
            envelope(status, "internal"),
        )

    sdk.run(process.kill())
    found = sdk.run(process.wait(DEADLINE_S))

    assert (-1, "begun") == (found.exit_code, found.stdout)
    assert not process.running()
    assert not held.released.is_set()
    assert 7 == sdk.run(sandbox.exec("x")).exit_code


def test_a_kill_that_fails_says_so(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, held: Held
) -> None:
    server.on_call("ExecStream", kept(held.answer))
    process = begin(sdk, sandbox)
    server.on("DELETE", f"/v1/sandboxes/sb-1/commands/{process.id}", envelope(401, "unauthorized"))

    with pytest.raises(mitos.UnauthorizedError):
        sdk.run(process.kill())

    assert process.running()
    held.released.set()
    sdk.run(process.wait(DEADLINE_S))


def test_a_broken_connection_is_replaced_from_the_same_byte(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    broken = kept(frame_chunks(encode_frame(said("abc")), is_cut=True))
    server.on_call("ExecStream", broken, kept(stream(said("de"), DONE)))

    process = begin(sdk, sandbox)

    assert "abcde" == sdk.run(process.wait(DEADLINE_S)).stdout
    first, second = server.requests
    assert "x-command-offset" not in first.headers
    assert "3" == second.headers["x-command-offset"]
    assert "x-command-keep" not in second.headers
    assert first.headers["x-command-id"] == second.headers["x-command-id"]


def test_a_command_is_found_again_by_its_id(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    lost = {"X-Command-Offset": "5", "X-Command-Lost": "5"}
    server.on_call("ExecStream", kept(stream(said("rest"), DONE), **lost))

    process = sdk.run(sandbox.command("cmd-1"))

    assert "rest" == sdk.run(process.wait(DEADLINE_S)).stdout
    assert 5 == process.lost_bytes
    (request,) = server.requests
    assert "0" == request.headers["x-command-offset"]
    with pytest.raises(mitos.AgentRunError, match="invalid_input"):
        sdk.run(sandbox.command("../x"))


def test_commands_are_listed(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    rows = [
        {"id": "a", "command": "x", "running": True, "kept": True, "output_end": 3, "pid": 9},
        {"id": "b", "command": "y", "running": False, "exit_code": -1, "error": "no sh"},
    ]
    server.on("GET", "/v1/sandboxes/sb-1/commands", reply({"commands": rows}))

    first, second = sdk.run(sandbox.commands())

    assert ("a", True, True, 3, 9, None) == (
        first.id,
        first.running,
        first.kept,
        first.output_end,
        first.pid,
        first.exit_code,
    )
    assert (False, -1, "no sh") == (second.running, second.exit_code, second.error)


@pytest.mark.parametrize(
    "odd", [7, {"commands": [7]}, {"commands": {}}, {"commands": [{"pid": "x"}]}]
)
def test_a_listing_of_another_form_is_a_typed_error(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, odd: Any
) -> None:
    server.on("GET", "/v1/sandboxes/sb-1/commands", reply(odd))

    with pytest.raises(mitos.AgentRunError) as caught:
        sdk.run(sandbox.commands())
    assert caught.value.code in {"invalid_response", "internal_error"}
