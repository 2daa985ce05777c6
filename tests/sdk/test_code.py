"""Cells: how a stream becomes an `Execution`."""

from __future__ import annotations

import base64
from typing import Any

import pytest

import mitos
from mitos._sdk.framing import encode_bytes as b64
from mitos.types import Result
from tests.sdk.conftest import Sdk
from tests.sdk.scripted import ScriptedServer, stream

END = {"exitCode": 0}


def run(sdk: Sdk, sandbox: Any, server: ScriptedServer, *messages: Any, **options: Any) -> Any:
    """Runs a cell that the server answers with these messages."""
    server.on_call("RunCodeStream", stream(*messages))
    return sdk.run(sandbox.run_code("code", **options))


def test_the_request_is_the_published_one(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    run(sdk, sandbox, server, END)

    expected = {"code": "code", "language": "python", "timeoutSeconds": 60}
    assert [expected] == server.calls("RunCodeStream")[0].messages


def test_the_last_expression_is_the_text(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    found = run(sdk, sandbox, server, {"result": {"text": "12.0"}}, END)

    assert "12.0" == found.text
    assert [Result({"text/plain": "12.0"}, is_main_result=True)] == found.results
    assert found.error is None


def test_printing_gives_logs_and_no_text(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    messages = [{"stdout": b64(b"x")}, {"stderr": b64(b"warn")}, {"stdout": b64(b"\n")}]

    found = run(sdk, sandbox, server, *messages, END)

    assert found.text is None
    assert {"stdout": ["x", "\n"], "stderr": ["warn"]} == found.logs


def test_a_cell_that_raises_does_not_raise_here(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    error = {"name": "ZeroDivisionError", "value": "division by zero", "traceback": ["a", "b"]}

    found = run(sdk, sandbox, server, {"error": error}, {"exitCode": 1})

    expected = mitos.ExecutionError("ZeroDivisionError", "division by zero", ["a", "b"])
    assert expected == found.error


def test_an_image_is_base64_text(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    image = base64.b64encode(b"\x89PNG").decode()
    data = {"image/png": b64(image.encode())}

    found = run(sdk, sandbox, server, {"result": {"data": data}}, END)

    (shown,) = found.results
    assert image == shown.png
    assert (False, None) == (shown.is_main_result, shown.html)
    assert found.text is None


def test_the_last_main_result_is_the_text(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    first = {"result": {"text": "1", "data": {"text/plain": b64(b"one")}}}

    found = run(sdk, sandbox, server, first, {"result": {"text": "2"}}, END)

    assert ("2", "one") == (found.text, found.results[0].text)


def test_a_payload_that_does_not_decode_is_kept(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    found = run(sdk, sandbox, server, {"result": {"data": {"image/gif": "/w=="}}}, END)

    assert "/w==" == found.results[0].data["image/gif"]


def test_callbacks_get_text_and_results(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    seen: list[Any] = []
    messages = [{"stdout": b64(b"out")}, {"stderr": b64(b"err")}, {"result": {"text": "1"}}]

    run(
        sdk,
        sandbox,
        server,
        *messages,
        END,
        on_stdout=seen.append,
        on_stderr=seen.append,
        on_result=seen.append,
    )

    assert ["out", "err", Result({"text/plain": "1"}, is_main_result=True)] == seen


@pytest.mark.parametrize("messages", [[], [{"result": {"text": "1"}}], [{}]])
def test_a_cell_without_an_exit_code_raises(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, messages: list[Any]
) -> None:
    with pytest.raises(mitos.AgentRunError, match="truncated_stream") as caught:
        run(sdk, sandbox, server, *messages)

    assert isinstance(caught.value, RuntimeError)


def test_what_follows_the_exit_code_is_ignored(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    found = run(sdk, sandbox, server, END, {"result": {"text": "late"}})

    assert (None, []) == (found.text, found.results)


@pytest.mark.parametrize(
    "odd",
    [{"stdout": []}, {"result": "x"}, {"error": 7}, {"result": {"data": ["x"]}}],
)
def test_a_message_of_another_form_is_a_typed_error(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, odd: dict[str, Any]
) -> None:
    with pytest.raises(mitos.AgentRunError, match="internal_error"):
        run(sdk, sandbox, server, odd, END)


def test_executions_do_not_share_their_logs() -> None:
    first, second = mitos.Execution(), mitos.Execution()
    first.logs["stdout"].append("x")

    assert {"stdout": [], "stderr": []} == second.logs


def test_mime_accessors_name_their_types() -> None:
    names = {
        "text": "text/plain",
        "png": "image/png",
        "svg": "image/svg+xml",
        "html": "text/html",
        "markdown": "text/markdown",
        "latex": "text/latex",
        "json": "application/json",
        "chart": "application/vnd.vegalite.v5+json",
    }
    for accessor, mime in names.items():
        assert "payload" == getattr(Result({mime: "payload"}), accessor)
        assert getattr(Result(), accessor) is None
    both = {"application/vnd.vega.v5+json": "vega"}
    assert "vega" == Result(both).chart
    assert "lite" == Result({**both, "application/vnd.vegalite.v5+json": "lite"}).chart
