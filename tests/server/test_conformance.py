"""Every call in spec/vectors/runtime.json, in each form of the wire, on a real sandbox."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.server import calling
from tests.server.serving import Server
from tests.server.transport import TRANSPORTS, Transport, WireError

VECTORS = json.loads(
    (Path(__file__).parent.parent.parent / "spec" / "vectors" / "runtime.json").read_text()
)["vectors"]

STEP_DEADLINE_S = 10
JOINED = ("stdout", "stderr", "data")
"""Members whose pieces may be cut anywhere; neighbours of one kind are compared as one."""


@pytest.fixture(params=TRANSPORTS.values(), ids=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Transport:
    found: Transport = request.param
    return found


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_a_call_is_answered_as_the_vector_says(
    server: Server, sandbox: str, transport: Transport, vector: dict[str, Any]
) -> None:
    for command in vector.get("before", []):
        calling.run(server, sandbox, command)
    requests = [_filled(server, sandbox, request) for request in vector["requests"]]
    answers: list[dict[str, Any]] = []
    error: dict[str, Any] | None = None
    try:
        with transport.call(server, vector["rpc"], sandbox, *requests) as messages:
            for message in messages:
                answers.append(message)
                if len(answers) == vector.get("take"):
                    break
    except WireError as exc:
        error = exc.body

    check_error(error, vector.get("error"))
    check_answers(_joined(answers), vector.get("responses", []))
    for command, output in vector.get("after", {}).items():
        _wait_for(server, sandbox, command, output)


def test_every_call_of_the_service_has_a_vector() -> None:
    proto = (Path(__file__).parent.parent.parent / "spec/sandbox/v1/sandbox.proto").read_text()
    calls = [line.split()[1].split("(")[0] for line in proto.splitlines() if "rpc " in line]

    assert {vector["rpc"] for vector in VECTORS} == set(calls)


def _filled(server: Server, sandbox: str, request: Any) -> Any:
    """The request, with `{"$sh": command}` replaced by what the command prints."""
    if not isinstance(request, dict):
        return request
    if set(request) == {"$sh"}:
        return calling.run(server, sandbox, request["$sh"])[0].strip()
    return {name: _filled(server, sandbox, value) for name, value in request.items()}


def check_error(error: dict[str, Any] | None, expected: dict[str, Any] | None) -> None:
    """The Connect code, and the catalogue's code in the detail."""
    if expected is None or error is None:
        assert error == expected
        return
    found = {"code": error["code"]}
    if "reason" in expected:
        detail = calling.detail(error)
        assert detail["metadata"]["remediation"]
        found["reason"] = detail["reason"]
    _match(found, expected)


def check_answers(answers: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Member by member; `<number>`, `<text>` and `<any>` stand for what differs each time."""
    assert len(answers) == len(expected), answers
    for answer, wanted in zip(answers, expected, strict=True):
        _match(answer, wanted)


def _match(found: Any, wanted: Any) -> None:
    if wanted == "<number>":
        assert float(found) > 0
    elif wanted == "<text>":
        assert isinstance(found, str)
        assert found
    elif wanted == "<any>":
        pass
    elif isinstance(wanted, dict):
        assert set(found) == set(wanted), found
        for name, value in wanted.items():
            _match(found[name], value)
    elif isinstance(wanted, list):
        check_answers(found, wanted)
    else:
        assert found == wanted


def _joined(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring pieces of one kind as one, and their bytes as text where they are."""
    joined: list[dict[str, Any]] = []
    for answer in answers:
        (name, value) = next(iter(answer.items()), ("", ""))
        if len(answer) == 1 and name in JOINED:
            text = base64.b64decode(value).decode("utf-8", "backslashreplace")
            if joined and set(joined[-1]) == {name}:
                joined[-1][name] += text
            else:
                joined.append({name: text})
        else:
            joined.append(answer)
    return joined


def _wait_for(server: Server, sandbox: str, command: str, output: str) -> None:
    deadline = time.monotonic() + STEP_DEADLINE_S
    while (found := calling.run(server, sandbox, command)[0]) != output:
        assert time.monotonic() < deadline, f"{command!r} prints {found!r}, not {output!r}"
        time.sleep(0.05)
