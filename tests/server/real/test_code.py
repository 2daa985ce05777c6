"""Cells through the runtime service."""

from __future__ import annotations

import base64
from typing import Any

from tests.server import calling
from tests.server.serving import Server


def cell(server: Server, sandbox: str, code: str, **members: Any) -> list[dict[str, Any]]:
    """The messages of a cell; the last one is its exit code."""
    answer = calling.stream(server, "RunCodeStream", sandbox, {"code": code, **members})
    assert answer.status_code == 200
    found, end = calling.messages(answer.content)
    assert end == {}, end
    assert ["exitCode"] == list(found[-1])
    assert all(len(message) == 1 for message in found)
    return found


def test_the_value_of_the_last_expression_is_the_result(server: Server, sandbox: str) -> None:
    found = cell(server, sandbox, "import math; math.sqrt(144)")

    (result,) = [message["result"] for message in found if "result" in message]
    assert "12.0" == result["text"]
    assert b"12.0" == base64.b64decode(result["data"]["text/plain"])
    assert {"exitCode": 0} == found[-1]


def test_variables_stay_between_cells(server: Server, sandbox: str) -> None:
    cell(server, sandbox, "x = 41")

    found = cell(server, sandbox, "x + 1")

    assert "42" == found[0]["result"]["text"]


def test_an_exception_is_an_error_and_the_next_cell_works(server: Server, sandbox: str) -> None:
    found = cell(server, sandbox, "1/0")

    (error,) = [message["error"] for message in found if "error" in message]
    assert "ZeroDivisionError" == error["name"]
    assert error["traceback"]
    assert {"exitCode": 1} == found[-1]
    assert {"exitCode": 0} == cell(server, sandbox, "1")[-1]


def test_a_cell_at_its_deadline_is_an_error(server: Server, sandbox: str) -> None:
    found = cell(server, sandbox, "while True: pass", timeoutSeconds=1)

    assert ["TimeoutError"] == [m["error"]["name"] for m in found if "error" in m]
    assert {"exitCode": 1} == found[-1]


def test_another_language_has_no_kernel(server: Server, sandbox: str) -> None:
    found = cell(server, sandbox, "puts 1", language="ruby")

    assert ["KernelUnavailable"] == [m["error"]["name"] for m in found if "error" in m]
    assert {"exitCode": 127} == found[-1]


def test_a_half_duplex_cell_ignores_its_input(server: Server, sandbox: str) -> None:
    answer = calling.stream(
        server, "RunCode", sandbox, {"open": {"code": "print(5)"}}, {"stdin": "eA=="}
    )

    found, end = calling.messages(answer.content)
    assert ({}, {"exitCode": 0}) == (end, found[-1])
    assert b"5\n" == b"".join(base64.b64decode(m["stdout"]) for m in found if "stdout" in m)
