"""Commands: what is sent, and how a stream becomes a result or an error."""

from __future__ import annotations

from typing import Any

import pytest

import mitos
from mitos._sdk.framing import encode_bytes as b64
from mitos._sdk.framing import encode_frame
from tests.sdk.conftest import KEY, Sdk
from tests.sdk.scripted import ScriptedServer, cut, frame_chunks, stream


def said(text: str, name: str = "stdout") -> dict[str, Any]:
    return {name: b64(text.encode())}


DONE = {"exit": {"execTimeMs": 1.5}}


def test_exec_gives_output_exit_code_and_time(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on_call("ExecStream", stream(said("hel"), said("lo\n"), said("oops", "stderr"), DONE))

    result = sdk.run(sandbox.exec("echo hello"))

    assert mitos.ExecResult(0, "hello\n", "oops", 1.5) == result


def test_the_request_is_the_published_one(sdk: Sdk, server: ScriptedServer) -> None:
    server.on_call("ExecStream", stream(DONE))

    sdk.run(sdk.handle(server.url, KEY).exec("echo hello"))

    (request,) = server.calls("ExecStream")
    assert [{"command": "echo hello", "timeoutSeconds": 30}] == request.messages
    assert "sb-1" == request.headers["x-sandbox-id"]
    assert f"Bearer {KEY}" == request.headers["authorization"]
    assert "application/connect+json" == request.headers["content-type"]
    assert "content-length" in request.headers
    assert not [name for name in request.headers if name.startswith("connect-")]


def test_arguments_are_quoted_for_the_shell(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on_call("ExecStream", stream(DONE))

    sdk.run(sandbox.exec(["python", "-c", "print(1)"]))
    sdk.run(sandbox.exec(("sleep", 1)))

    commands = [request.messages[0]["command"] for request in server.calls("ExecStream")]
    assert ["python -c 'print(1)'", "sleep 1"] == commands


def test_directory_and_variables_are_sent_when_given(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on_call("ExecStream", stream(DONE))

    sdk.run(sandbox.exec("env", cwd="/tmp", env={"A": "1"}))

    (message,) = server.calls("ExecStream")[0].messages
    assert "/tmp" == message["cwd"]
    assert [{"key": "A", "value": "1"}] == message["env"]


def test_a_failing_command_is_a_result(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on_call("ExecStream", stream(said("no\n", "stderr"), {"exit": {"exitCode": 3}}))

    assert mitos.ExecResult(3, "", "no\n", 0.0) == sdk.run(sandbox.exec("exit 3"))


def test_a_character_split_over_messages_is_whole(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    first, rest = "é".encode()[:1], "é".encode()[1:]
    pieces = [{"stdout": b64(first)}, {"stdout": b64(rest)}, {"stdout": b64(b"\xff")}]
    server.on_call("ExecStream", stream(*pieces, DONE))

    assert "é\ufffd" == sdk.run(sandbox.exec("cat")).stdout


def test_callbacks_get_each_piece(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on_call("ExecStream", stream(said("a"), said("e", "stderr"), said("b"), DONE))
    out: list[bytes] = []
    err: list[bytes] = []

    result = sdk.run(sandbox.exec("x", on_stdout=out.append, on_stderr=err.append))

    assert ([b"a", b"b"], [b"e"]) == (out, err)
    assert ("ab", "e") == (result.stdout, result.stderr)


def test_a_callback_s_error_comes_out_as_it_is(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on_call("ExecStream", stream(said("a"), DONE))

    def fail(_: bytes) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        sdk.run(sandbox.exec("x", on_stdout=fail))


def test_a_callback_s_own_failed_call_is_not_taken_for_ours(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on_call("ExecStream", stream(said("a"), DONE))
    unreachable = mitos.SandboxServer("http://127.0.0.1:1")

    def ask_another(_: bytes) -> None:
        unreachable.health()

    with pytest.raises(mitos.AgentRunError, match=r"cannot reach the server at \S+:1 "):
        sdk.run(sandbox.exec("x", on_stdout=ask_another))


def test_exit_code_124_is_the_deadline(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on_call("ExecStream", stream({"exit": {"exitCode": 124}}))

    with pytest.raises(mitos.ExecutionDeadlineError) as caught:
        sdk.run(sandbox.exec("sleep 9", timeout=7))

    assert ("exec_timeout", None) == (caught.value.code, caught.value.status)
    assert {"timeout_s": 7} == caught.value.context
    assert caught.value.remediation


def test_an_exit_with_an_error_is_exec_failed(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on_call("ExecStream", stream({"exit": {"exitCode": 1, "error": "no such directory"}}))

    with pytest.raises(mitos.AgentRunError) as caught:
        sdk.run(sandbox.exec("x", cwd="/nope"))

    assert ("exec_failed", None) == (caught.value.code, caught.value.status)
    assert "no such directory" == caught.value.cause
    assert isinstance(caught.value, RuntimeError)


@pytest.mark.parametrize(
    "call",
    [
        lambda sandbox, timeout: sandbox.exec("x", timeout=timeout),
        lambda sandbox, timeout: sandbox.run_code("x", timeout=timeout),
        lambda sandbox, timeout: sandbox.set_timeout(timeout),
    ],
)
def test_a_timeout_over_the_ceiling_is_refused_before_any_request(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, call: Any
) -> None:
    with pytest.raises(mitos.TimeoutTooLargeError) as caught:
        sdk.run(call(sandbox, 86_401))

    assert ("timeout_too_large", None) == (caught.value.code, caught.value.status)
    assert {"requested_s": 86_401, "max_timeout_s": 86_400} == caught.value.context
    assert [] == server.requests


def test_the_ceiling_itself_passes(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on_call("ExecStream", stream(DONE))
    server.on_call("RunCodeStream", stream({"exitCode": 0}))

    sdk.run(sandbox.exec("x", timeout=86_400))
    sdk.run(sandbox.run_code("x", timeout=86_400))

    assert [86_400] * 2 == [each.messages[0]["timeoutSeconds"] for each in server.requests]


def test_a_stream_without_an_exit_raises(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on_call("ExecStream", stream(said("a")))

    with pytest.raises(mitos.AgentRunError, match="truncated_stream") as caught:
        sdk.run(sandbox.exec("x"))

    assert isinstance(caught.value, RuntimeError)


def test_a_stream_without_its_end_raises(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on_call("ExecStream", frame_chunks(encode_frame(said("a")), encode_frame(DONE)))

    with pytest.raises(mitos.AgentRunError, match="truncated_stream"):
        sdk.run(sandbox.exec("x"))


def test_a_stream_that_breaks_off_raises(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on_call("ExecStream", frame_chunks(encode_frame(said("a")), is_cut=True))

    with pytest.raises(mitos.AgentRunError, match="connection_failed"):
        sdk.run(sandbox.exec("x"))

    assert 1 == len(server.requests)


def test_a_command_is_never_sent_twice(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on_call("ExecStream", cut())

    with pytest.raises(mitos.AgentRunError, match="connection_failed"):
        sdk.run(sandbox.exec("rm x"))

    assert 1 == len(server.requests)


@pytest.mark.parametrize(
    "odd",
    [
        {"stdout": 7},
        {"stdout": "&"},
        {"stdout": "x"},
        {"exit": []},
        {"exit": {"exitCode": "many"}},
        {"exit": {"execTimeMs": {}}},
    ],
)
def test_a_message_of_another_form_is_a_typed_error(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, odd: dict[str, Any]
) -> None:
    server.on_call("ExecStream", stream(odd))

    with pytest.raises(mitos.AgentRunError) as caught:
        sdk.run(sandbox.exec("x"))

    assert caught.value.code in {"internal_error", "truncated_stream"}


def test_a_part_of_a_second_is_rounded_up(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on_call("ExecStream", stream(DONE))

    sdk.run(sandbox.exec("x", timeout=1.2))

    assert 2 == server.requests[-1].messages[0]["timeoutSeconds"]


@pytest.mark.parametrize(
    ("command", "timeout", "error"),
    [
        ("x", "30", TypeError),
        ("x", True, TypeError),
        ("x", None, TypeError),
        ("x", float("nan"), ValueError),
        ("x", float("inf"), mitos.TimeoutTooLargeError),
        (5, 30, TypeError),
        (b"x", 30, TypeError),
        (None, 30, TypeError),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is_sent(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, command: Any, timeout: Any, error: type
) -> None:
    with pytest.raises(error):
        sdk.run(sandbox.exec(command, timeout=timeout))

    assert [] == server.requests
