"""No answer: connections refused, broken, or too slow; and how long each call waits."""

from __future__ import annotations

import pickle
import socket
from typing import Any

import httpx
import pytest

import mitos
from mitos._sdk.framing import END_STREAM, encode_frame
from tests.sdk.conftest import KEY, Sdk
from tests.sdk.scripted import Answer, ScriptedServer, cut, descriptor, frame_chunks, reply


@pytest.fixture
def nobody() -> str:
    """An address where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def calls_of(sandbox: Any) -> list[Any]:
    return [
        lambda: sandbox.exec("x"),
        lambda: sandbox.run_code("x"),
        lambda: sandbox.files.read("x"),
        lambda: sandbox.files.write("x", "y"),
        sandbox.files.list,
        sandbox.fork,
        sandbox.pause,
        sandbox.terminate,
    ]


def test_a_refused_connection_says_what_to_check(sdk: Sdk, nobody: str) -> None:
    for call in calls_of(sdk.handle(nobody, KEY)):
        with pytest.raises(mitos.AgentRunError) as caught:
            sdk.run(call())

        error = caught.value
        assert "connection_failed" == error.code
        assert isinstance(error, mitos.errors.TransportFailedError)
        assert isinstance(error, httpx.ConnectError)
        assert nobody in str(error)
        assert "mitos serve" in error.remediation
        assert "MITOS_BASE_URL" in error.remediation
        assert error.status is None


def test_create_reports_it_too(sdk: Sdk, nobody: str) -> None:
    with pytest.raises(httpx.ConnectError) as caught:
        sdk.run(sdk.module.create(base_url=nobody, api_key=""))

    assert isinstance(caught.value, mitos.AgentRunError)
    assert httpx.URL(nobody).port == caught.value.request.url.port


def raising(error: type[httpx.RequestError]) -> Any:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error(f"went wrong with {KEY}", request=request)

    return answer


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.ReadTimeout,
        httpx.WriteTimeout,
        httpx.PoolTimeout,
        httpx.ReadError,
        httpx.RemoteProtocolError,
        httpx.DecodingError,
        httpx.ProxyError,
    ],
)
def test_every_failure_is_ours_and_of_httpx(sdk: Sdk, error: type[httpx.RequestError]) -> None:
    for call in (lambda sandbox: sandbox.pause(), lambda sandbox: sandbox.exec("x")):
        with pytest.raises(mitos.AgentRunError) as caught:
            sdk.run(call(sdk.mocked(raising(error))))

        assert isinstance(caught.value, error)
        assert isinstance(caught.value, mitos.errors.TransportFailedError)
        assert "http://mocked.test" in str(caught.value)
        assert type(caught.value.__cause__) is error


def test_a_key_in_a_transport_error_is_redacted(sdk: Sdk) -> None:
    sandbox = sdk.mocked(raising(httpx.ReadTimeout))
    sandbox._http.api_key = KEY

    with pytest.raises(mitos.AgentRunError) as caught:
        sdk.run(sandbox.pause())

    assert KEY not in f"{caught.value} {caught.value.__dict__}"
    assert "[REDACTED]" in caught.value.cause


def test_a_transport_error_survives_pickling(sdk: Sdk) -> None:
    with pytest.raises(httpx.ReadTimeout) as caught:
        sdk.run(sdk.mocked(raising(httpx.ReadTimeout)).pause())

    again = pickle.loads(pickle.dumps(caught.value))

    assert type(caught.value) is type(again)
    assert str(caught.value) == str(again)


def test_each_call_waits_as_long_as_it_must(sdk: Sdk) -> None:
    waits: dict[str, float] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        timeouts = request.extensions["timeout"]
        waits[f"{request.url.path} {len(waits)}"] = timeouts["read"]
        assert 10.0 == timeouts["connect"]
        if request.url.path.endswith("Stream"):
            content = encode_frame({"exit": {}}) + encode_frame({"exitCode": 0})
            return httpx.Response(200, content=content + encode_frame({}, END_STREAM))
        return httpx.Response(200, json=descriptor("sb-2"))

    sandbox = sdk.mocked(answer)
    for call in (
        sandbox.exec("x"),
        sandbox.exec("x", timeout=7),
        sandbox.exec("x", timeout=0),
        sandbox.run_code("x"),
        sandbox.run_code("x", timeout=7),
        sandbox.run_code("x", timeout=-1),
        sandbox.pause(),
        sandbox.files.list("/"),
        sandbox.fork(),
    ):
        sdk.run(call)

    assert [35, 12, 35, 70, 17, 70, 30, 30, 130] == list(waits.values())


def test_an_answer_that_does_not_come_ends_the_wait(
    sdk: Sdk, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = sdk.handle(server.url)
    sandbox._http._timeout_s = 0.2
    server.on("POST", "/v1/pause", server.hang)

    with pytest.raises(httpx.ReadTimeout) as caught:
        sdk.run(sandbox.pause())

    assert isinstance(caught.value, mitos.AgentRunError)
    assert "in time" in str(caught.value)
    assert 1 == len(server.requests)


@pytest.mark.parametrize(
    ("chunk", "words"),
    [
        (b"\x01\x00\x00\x00\x02{}", "compressed"),
        (b'{"code": "internal"}', "not a stream"),
        (b"\x00\xff\xff\xff\xff", "announced a message of 4294967295 bytes"),
        (b"\x00\x00\x00\x00\x02{x", "not JSON"),
        (b"\x00\x00\x00\x00\x02[]", "not a JSON object"),
    ],
)
def test_a_frame_that_may_not_be_is_an_internal_error(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, chunk: bytes, words: str
) -> None:
    server.on_call("ExecStream", frame_chunks(chunk))

    with pytest.raises(mitos.AgentRunError, match=words) as caught:
        sdk.run(sandbox.exec("x"))

    assert ("internal_error", 500) == (caught.value.code, caught.value.status)


def test_frames_may_be_split_anywhere_and_empty_ones_are_skipped(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    whole = (
        encode_frame({"stdout": "aGk="})
        + b"\x00\x00\x00\x00\x00"
        + encode_frame({"exit": {"exitCode": 5}})
        + encode_frame({}, END_STREAM)
    )
    server.on_call("ExecStream", frame_chunks(*(bytes([each]) for each in whole)))

    result = sdk.run(sandbox.exec("x"))

    assert ("hi", 5) == (result.stdout, result.exit_code)


@pytest.mark.parametrize("end", [b"", b"{", b"[]", b"null", b'{"error": 7}'])
def test_an_odd_end_is_a_clean_one(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, end: bytes
) -> None:
    last = bytes([END_STREAM]) + len(end).to_bytes(4, "big") + end
    server.on_call("ExecStream", frame_chunks(encode_frame({"exit": {}}), last))

    assert 0 == sdk.run(sandbox.exec("x")).exit_code


def test_what_comes_after_the_end_is_not_waited_for(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    done = encode_frame({"exit": {}}) + encode_frame({}, END_STREAM)
    endless = [done] + [b"junk"] * 400
    server.on_call("ExecStream", frame_chunks(*endless, pause_s=0.05))

    assert 0 == sdk.run(sandbox.exec("x")).exit_code


def test_a_connection_that_breaks_after_the_end_is_no_failure(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    done = encode_frame({"exit": {}}) + encode_frame({}, END_STREAM)
    server.on_call("ExecStream", frame_chunks(done, is_cut=True))

    assert 0 == sdk.run(sandbox.exec("x")).exit_code


def test_output_arrives_while_the_command_runs(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    seen_before_the_end: list[bytes] = []
    first = encode_frame({"stdout": "YQ=="})
    rest = encode_frame({"exit": {}}) + encode_frame({}, END_STREAM)

    class Waiting(list[bytes]):
        def __iter__(self) -> Any:
            yield first
            assert server.released.wait(5), "the first piece did not arrive on its own"
            yield rest

    answer = Answer(200, b"", {}, Waiting())
    server.on_call("ExecStream", answer)

    def take(data: bytes) -> None:
        seen_before_the_end.append(data)
        server.released.set()

    sdk.run(sandbox.exec("x", on_stdout=take))

    assert [b"a"] == seen_before_the_end


def test_a_safe_request_is_repeated_once_when_the_connection_breaks(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    route = "/v1/sandboxes/sb-1/fork"
    server.on("POST", route, cut(), reply(descriptor("kid")))

    (child,) = sdk.run(sandbox.fork(id="kid"))

    first, second = server.sent(route)
    assert "kid" == child.id
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
