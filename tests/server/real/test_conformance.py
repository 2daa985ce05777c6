"""Every call in spec/vectors/runtime.json in one form of the wire, and a sample in each other one.

What a call does is the same code whatever the form; what differs is the codec and the framing. The
sample has each call, so each message type, once, and an error of each streaming shape. The lane
`matrix` has the rest: every call in every form.
"""

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

VECTORS = json.loads((Path(__file__).parents[3] / "spec" / "vectors" / "runtime.json").read_text())[
    "vectors"
]

STEP_DEADLINE_S = 10
JOINED = ("stdout", "stderr", "data")
"""Members whose pieces may be cut anywhere; neighbours of one kind are compared as one."""


WHOLE = "HTTP/1.1 JSON"
"""The form that published clients use."""

ALSO_SAMPLED = {
    "a resize reaches the terminal",
    "a command at its deadline",
    *("nothing at a path", "a file that is not there", "a write that opens nothing"),
    *("a first message that opens nothing", "a port where nothing listens"),
}


def _sample() -> list[dict[str, Any]]:
    first = {vector["rpc"]: vector["name"] for vector in reversed(VECTORS)}
    names = {*first.values(), *ALSO_SAMPLED}
    return [vector for vector in VECTORS if vector["name"] in names]


def _cases() -> list[Any]:
    sample = _sample()
    return [
        pytest.param(
            form,
            vector,
            id=f"{name}-{vector['name']}",
            marks=[] if name == WHOLE or vector in sample else pytest.mark.matrix,
        )
        for name, form in TRANSPORTS.items()
        for vector in VECTORS
    ]


@pytest.mark.parametrize(("transport", "vector"), _cases())
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
    proto = (Path(__file__).parents[3] / "spec/sandbox/v1/sandbox.proto").read_text()
    calls = [line.split()[1].split("(")[0] for line in proto.splitlines() if "rpc " in line]

    assert {vector["rpc"] for vector in VECTORS} == set(calls)


def test_the_sample_has_every_call_and_an_error_of_each_shape() -> None:
    sample = _sample()

    assert {vector["rpc"] for vector in sample} == {vector["rpc"] for vector in VECTORS}
    assert {vector["name"] for vector in sample} >= ALSO_SAMPLED
    assert {"Stat", "ReadFile", "WriteFile", "Exec"} <= {
        vector["rpc"] for vector in sample if "error" in vector
    }


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
