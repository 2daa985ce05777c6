"""What a server answered, and the error that is raised for it."""

from __future__ import annotations

import base64
import copy
import json
import logging
import pickle
import sys
from typing import Any

import pytest

import mitos
from mitos import errors
from mitos._sdk import failure
from mitos.wire.errors import CONNECT_STATUS, TABLE, ConnectCode
from tests.sdk.conftest import KEY, Sdk
from tests.sdk.scripted import ScriptedServer, envelope, page, reply, stream

CLASSES = {
    "idle_timeout": mitos.IdleTimeoutError,
    "exec_timeout": mitos.ExecutionDeadlineError,
    "canceled": mitos.RequestCanceledError,
    "rate_limited": mitos.RateLimitedError,
    "not_found": mitos.NotFoundError,
    "unauthorized": mitos.UnauthorizedError,
    "timeout_too_large": mitos.TimeoutTooLargeError,
}


def of_body(status: int, body: Any) -> mitos.AgentRunError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return failure.from_control_plane(status, data, KEY)


@pytest.mark.parametrize(("code", "kind"), CLASSES.items())
def test_the_code_selects_the_class(code: str, kind: type[mitos.AgentRunError]) -> None:
    assert kind is type(of_body(400, {"error": {"code": code, "message": "m"}}))


def test_an_unknown_code_gives_the_base_class() -> None:
    error = of_body(404, {"error": {"code": "brand_new", "message": "m"}})

    assert mitos.AgentRunError is type(error)
    assert ("brand_new", 404) == (error.code, error.status)


def test_an_envelope_s_members_are_the_error_s(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    members = {
        "message": "too many",
        "cause": "a burst",
        "remediation": "Wait.",
        "context": {"retry_after_ms": 250},
    }
    server.on("POST", "/v1/pause", envelope(429, "rate_limited", **members))

    with pytest.raises(mitos.RateLimitedError) as caught:
        sdk.run(sandbox.pause())

    error = caught.value
    assert ("rate_limited", "a burst", "Wait.", 429) == (
        error.code,
        error.cause,
        error.remediation,
        error.status,
    )
    assert {"retry_after_ms": 250} == error.context
    assert "[rate_limited] too many | cause: a burst | remediation: Wait." == str(error)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "bad_request"),
        (401, "unauthorized"),
        (403, "forbidden"),
        (404, "not_found"),
        (409, "conflict"),
        (413, "request_too_large"),
        (429, "rate_limited"),
        (500, "internal_error"),
        (503, "unavailable"),
        (502, "server_error"),
        (418, "request_failed"),
        (302, "request_failed"),
    ],
)
def test_without_an_envelope_the_status_gives_the_code(status: int, code: str) -> None:
    error = of_body(status, b"upstream is away")

    assert (code, status, "upstream is away") == (error.code, error.status, error.cause)
    assert error.remediation
    assert f"HTTP {status}" == of_body(status, b"").cause


def test_a_text_error_is_the_cause() -> None:
    error = of_body(500, {"error": "boom"})

    assert ("internal_error", "boom") == (error.code, error.cause)


@pytest.mark.parametrize(
    "error",
    [None, 7, [], {}, {"code": ""}, {"code": 7, "message": None, "context": []}],
)
def test_an_odd_envelope_falls_back_to_the_status(error: Any) -> None:
    found = of_body(503, {"error": error})

    assert ("unavailable", {}) == (found.code, found.context)
    assert found.cause


@pytest.mark.parametrize("body", [b"\xff\xfe", b"[" * 100_000, b"null", b'"text"'])
def test_a_body_of_any_bytes_gives_an_error(body: bytes) -> None:
    assert "unavailable" == of_body(503, body).code
    assert "internal_error" == failure.from_runtime(503, body, KEY).code


def test_redirects_are_not_followed(sdk: Sdk, server: ScriptedServer) -> None:
    moved = envelope(307, "moved")
    moved.headers["Location"] = f"{server.url}/v1/elsewhere"
    server.on("GET", "/v1/health", moved)

    with pytest.raises(mitos.AgentRunError) as caught:
        sdk.run(sdk.Server(server.url, KEY).health())

    assert 307 == caught.value.status
    assert 1 == len(server.requests)


@pytest.mark.parametrize("connect", ConnectCode)
@pytest.mark.parametrize("is_streamed", [True, False])
def test_every_connect_code_has_its_error(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, connect: ConnectCode, is_streamed: bool
) -> None:
    body = {"code": connect.value, "message": "why"}
    status = CONNECT_STATUS[connect]
    server.on_call(
        "ExecStream", stream(end={"error": body}) if is_streamed else reply(body, status)
    )

    with pytest.raises(mitos.AgentRunError) as caught:
        sdk.run(sandbox.exec("x"))

    renamed = {"deadline_exceeded": "exec_timeout", "resource_exhausted": "too_many_streams"}
    code = renamed.get(connect.value, connect.value)
    error = caught.value
    assert (code, status, "why", {}) == (error.code, error.status, error.cause, error.context)
    assert error.remediation
    kinds = {**CLASSES, "unauthenticated": mitos.UnauthorizedError}
    assert kinds.get(code, mitos.AgentRunError) is type(error)


def test_an_unknown_connect_code_is_kept(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    body = {"code": "out_of_cheese", "message": "why"}
    server.on_call("ExecStream", stream(end={"error": body}), reply(body, 418))

    for status in (500, 418):
        with pytest.raises(mitos.AgentRunError) as caught:
            sdk.run(sandbox.exec("x"))
        assert ("out_of_cheese", status) == (caught.value.code, caught.value.status)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"upstream is away", "internal_error"),
        (b'{"message": "x"}', "internal_error"),
        (b'{"error": {"code": "idle_timeout", "message": "gone"}}', "idle_timeout"),
    ],
)
def test_a_runtime_answer_that_is_no_connect_error_is_understood_as_far_as_it_goes(
    body: bytes, code: str
) -> None:
    error = failure.from_runtime(410, body, KEY)

    assert (code, 410) == (error.code, error.status)
    assert error.remediation


def error_info(reason: str, domain: str, metadata: dict[str, str]) -> dict[str, str]:
    """The detail as a server encodes it: fields 1 and 2 are texts, 3 is a map of texts."""

    def text(number: int, value: bytes) -> bytes:
        length = len(value)
        size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
        return bytes([number << 3 | 2]) + size + value

    data = text(1, reason.encode()) + text(2, domain.encode())
    for key, value in metadata.items():
        data += text(3, text(1, key.encode()) + text(2, value.encode()))
    value = base64.b64encode(data).decode().rstrip("=")
    return {"type": "google.rpc.ErrorInfo", "value": value}


@pytest.mark.parametrize("code", TABLE)
def test_the_detail_carries_every_code_of_the_catalogue(code: str) -> None:
    row = TABLE[code]
    metadata = {"remediation": "Do this.", "cause": "because", "sandbox": "sb-1", "limit": "16"}
    body = {
        "code": row.connect.value,
        "message": "it failed: because",
        "details": [error_info(code, "mitos.run", metadata)],
    }

    error = failure.from_connect(body, KEY)

    assert (code, row.status, "because", "Do this.") == (
        error.code,
        error.status,
        error.cause,
        error.remediation,
    )
    assert {"sandbox": "sb-1", "limit": 16} == error.context
    assert "it failed" == error.args[0]


@pytest.mark.parametrize(
    "details",
    [
        [error_info("idle_timeout", "elsewhere.test", {})],
        [error_info("no_such_code", "mitos.run", {})],
        [{"type": "google.rpc.ErrorInfo", "value": "////"}],
        [{"type": "google.rpc.ErrorInfo"}],
        [7],
        {},
    ],
)
def test_a_detail_that_is_not_ours_is_ignored(details: Any) -> None:
    error = failure.from_connect({"code": "internal", "message": "m", "details": details}, KEY)

    assert "internal" == error.code


HTML = "<!doctype html><title>Welcome</title>"


@pytest.mark.parametrize("body", [HTML, "not json"])
def test_a_web_page_is_an_invalid_response_everywhere(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, body: str
) -> None:
    for path in ("/v1/templates", "/v1/fork", "/v1/pause", "/v1/sandboxes/sb-1/fork"):
        server.on("POST", path, page(body))
    server.on("GET", "/v1/health", page(body))
    for rpc in ("List", "ExecStream", "ReadFile", "RunCodeStream"):
        server.on_call(rpc, page(body))

    for attempt in (
        lambda: sdk.create(server),
        lambda: sdk.run(sdk.Server(server.url).health()),
        lambda: sdk.run(sandbox.fork()),
        lambda: sdk.run(sandbox.pause()),
        lambda: sdk.run(sandbox.files.list()),
        lambda: sdk.run(sandbox.files.read("x")),
        lambda: sdk.run(sandbox.exec("x")),
        lambda: sdk.run(sandbox.run_code("x")),
    ):
        with pytest.raises(mitos.AgentRunError) as caught:
            attempt()
        assert ("invalid_response", None) == (caught.value.code, caught.value.status)
        assert "MITOS_BASE_URL" in caught.value.remediation
        assert ("API's host" in caught.value.remediation) is (body == HTML)


def everything_of(error: mitos.AgentRunError) -> str:
    return f"{error} {error!r} {error.args} {error.__dict__} {error.context}"


@pytest.mark.parametrize(
    "body",
    [
        f"bad key {KEY}",
        json.dumps({"error": f"bad key {KEY}"}),
        json.dumps({"error": {"code": KEY, "message": KEY, "cause": KEY, "remediation": KEY}}),
        json.dumps(
            {
                "error": {
                    "code": "unauthorized",
                    "message": "m",
                    "context": {"key": KEY, "list": [KEY, {"deep": f"x{KEY}x"}], KEY: 1},
                }
            }
        ),
        json.dumps({"error": f"bad key {KEY}"}).replace("mitos", "\\u006ditos"),
    ],
)
def test_a_reflected_key_is_nowhere_in_the_error(
    sdk: Sdk, server: ScriptedServer, caplog: pytest.LogCaptureFixture, body: str
) -> None:
    caplog.set_level(logging.DEBUG)
    sandbox = sdk.handle(server.url, KEY)
    server.on("POST", "/v1/pause", page(body, 401))
    server.on_call("ExecStream", page(body, 401))
    server.on_call("List", page(f"<p>{body}"))

    for call in (sandbox.pause, sandbox.files.list, lambda: sandbox.exec("x")):
        with pytest.raises(mitos.AgentRunError) as caught:
            sdk.run(call())
        assert KEY not in everything_of(caught.value)
        if KEY in body:
            assert "[REDACTED]" in everything_of(caught.value)
    assert KEY not in caplog.text


def test_a_key_in_a_connect_error_is_redacted_too() -> None:
    detail = error_info("unauthorized", "mitos.run", {"remediation": KEY, "cause": KEY, "op": KEY})
    body = {"code": "unauthenticated", "message": f"bad {KEY}", "details": [detail]}

    for error in (
        failure.from_connect(body, KEY),
        failure.from_connect({**body, "details": []}, KEY),
        failure.from_connect({"code": KEY, "message": KEY}, KEY),
    ):
        assert KEY not in everything_of(error)
        assert "[REDACTED]" in everything_of(error)


def test_a_key_that_json_must_escape_is_redacted_too() -> None:
    key = 'a"b\\c'
    body = json.dumps({"echo": key}).encode()

    assert key not in failure.redact({"a": [key]}, key)["a"][0]
    for error in (failure.from_control_plane(400, body, key), failure.invalid_response(body, key)):
        assert json.dumps(key)[1:-1] not in everything_of(error)
        assert "[REDACTED]" in everything_of(error)


def test_a_body_that_is_nested_without_end_gives_an_error() -> None:
    nested: Any = KEY
    for _ in range(2 * sys.getrecursionlimit()):
        nested = [nested]

    assert "[REDACTED]" == failure.redact(nested, KEY)


@pytest.mark.parametrize("number", ["--5", "-", "9" * 5000, "٣"])
def test_a_context_s_odd_number_stays_text(number: str) -> None:
    details = [error_info("quota_exceeded", "mitos.run", {"limit": number})]

    error = failure.from_connect({"code": "resource_exhausted", "details": details}, None)

    assert {"limit": number} == error.context


def test_the_text_of_an_error_leaves_out_what_is_empty() -> None:
    assert "[c] m" == str(mitos.AgentRunError("m", "c"))
    assert "[c] m | cause: x" == str(mitos.AgentRunError("m", "c", "x"))
    assert "[c] m | remediation: r" == str(mitos.AgentRunError("m", "c", "", "r"))
    assert ("m",) == mitos.AgentRunError("m", "c").args
    assert {} == mitos.AgentRunError("m", "c").context


def test_typed_classes_are_direct_children_with_the_same_constructor() -> None:
    for code, kind in CLASSES.items():
        assert (mitos.AgentRunError,) == kind.__bases__
        error = errors.error_for_code(code, "m", cause="c", remediation="r", status=1, context={})
        assert kind is type(error)
        assert ("m", code, "c", "r", 1) == (
            error.args[0],
            error.code,
            error.cause,
            error.remediation,
            error.status,
        )


def test_errors_survive_pickling_and_copying() -> None:
    context = {"sandbox": "sb-1"}
    error = mitos.NotFoundError("m", "not_found", "c", "r", 404, context)

    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert mitos.NotFoundError is type(again)
        assert str(error) == str(again)
        assert (404, context) == (again.status, again.context)
