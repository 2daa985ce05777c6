"""Cases of the REST contract, made from `spec/openapi.yaml` by schemathesis, and their check.

schemathesis makes requests that the file allows and such that it does not. Here most of the ids in
them become ids that exist, some come without the key or from another site's page, and some bodies
are no JSON at all.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from tests.fuzz.guest import COMMAND, PORT
from tests.fuzz.world import CHILD, KEY, OTHER, PARENT, TEMPLATE, World

__all__ = ["SPEC", "Tally", "fuzz", "load"]

SPEC = Path(__file__).parents[2] / "spec" / "openapi.yaml"

DEADLINE_S = 30
SHOWN = 2000
WITHOUT_CASES = ("terminals",)
"""Tags of operations that are no HTTP: schemathesis speaks no WebSocket."""

LENIENT = ("POST /v1/templates",)
"""Where null, 0 and what is empty are taken as left out, and what is not used is not read."""

CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


@dataclass
class Tally:
    """How often each operation was answered with each status."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """Cases so far."""
        return self.answers.total()

    def reached(self, hundred: int) -> set[str]:
        """The operations that were answered with a status of this hundred."""
        return {label for label, status in self.answers if status // 100 == hundred}

    def lines(self) -> Iterator[str]:
        """A table of it, as text."""
        for label in sorted({label for label, _ in self.answers}):
            found = sorted((s, n) for (each, s), n in self.answers.items() if each == label)
            yield f"{label:58}" + " ".join(f"{status}:{count}" for status, count in found)


@dataclass(frozen=True)
class Request:
    """One case: what schemathesis made, and what differs from it on the wire."""

    case: Any
    headers: dict[str, str]
    raw: bytes | None = None

    def __repr__(self) -> str:
        body = self.raw if self.raw is not None else self.case.body
        parts = f"{self.case.path_parameters} {self.case.query} {self.case.headers}"
        return f"{self.case.method} {self.case.path} {parts} {self.headers} {str(body)[:SHOWN]}"


def load() -> list[Any]:
    """The operations that cases are made for."""
    schema = schemathesis.openapi.from_path(SPEC)
    found = [result.ok() for result in schema.get_all_operations()]
    return [each for each in found if not set(each.tags or ()) & set(WITHOUT_CASES)]


def fuzz(operation: Any, world: World, tally: Tally, *, cases: int, seed: int) -> None:
    """Sends cases of one operation; raises with the smallest that is answered wrongly.

    Args:
        operation: one of `load`.
        world: what they are sent to.
        tally: takes in the answers.
        cases: at most so many, of one to four requests; fewer where there are no more.
        seed: gives the same cases again.
    """
    session = requests.Session()
    session.trust_env = False

    @hypothesis.seed(seed)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(_requests(operation, _made(operation)))
    def answers_as_written(requests: list[Request]) -> None:
        for request in requests:
            world.stand()
            status = _send_and_check(_placed(request, world), world, session)
            tally.answers[operation.label, status] += 1

    with session:
        answers_as_written()


# ---- making ----

_IDS = {
    "sandbox": st.sampled_from([PARENT, CHILD, OTHER]),
    "id": st.sampled_from([PARENT, CHILD, OTHER]),
    "with": st.sampled_from([PARENT, CHILD, OTHER]),
    "source": st.sampled_from([PARENT, CHILD]),
    "template": st.just(TEMPLATE),
    "checkpoint": st.just("<checkpoint>"),
    "command": st.just(COMMAND),
    "port": st.just(PORT),
}
"""Members and parameters by name, and what in them exists."""

_KNOWN = {
    *_IDS,
    *("name", "network", "resources", "workload", "init_wait_seconds"),
    *("ids", "partial", "pause_source", "timeout_seconds", "guest_port"),
}
"""Members of bodies."""

_NEW_IDS = st.sampled_from(["new-1", "new-2", OTHER])
_NEW = {
    "/v1/fork": {"id": _NEW_IDS},
    "/v1/sandboxes/{id}/fork": {"id": st.just("new-1"), "ids": st.just(["new-1", "new-2"])},
}
"""Where a body's id is that of something new."""

_CALLER = {"Authorization": f"Bearer {KEY}"}
_FOREIGN_PAGE = {**_CALLER, "Origin": "https://elsewhere.example"}

_TEXTS = st.text(max_size=12) | st.sampled_from(["\ud800", "\udcff.", "\0", "9" * 5000])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=8,
)
_NO_JSON = st.binary(max_size=64) | st.sampled_from(
    [b"", b"[", b"null", b"[]", b"\xff\xfe{\0}\0", b"[" * 5000, b'{"a":' * 5000, b"9" * 5000]
)


def _made(operation: Any) -> st.SearchStrategy[Any]:
    """What the file allows, and where there is anything to get wrong, what it does not."""
    right = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    if operation.path_parameters or operation.query or operation.headers or operation.body:
        wrong = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
        return st.one_of(right, right, right, wrong)
    return right


@st.composite
def _requests(draw: st.DrawFn, operation: Any, made: st.SearchStrategy[Any]) -> list[Request]:
    """One case as it was made, and what is near it: ids that exist, other callers, other bodies.

    The first case of all has the simplest of everything: it succeeds, and a foreign page's fails.
    """
    case = draw(made)
    case.body = _with_short_waits(case.body)
    known = _with_known_ids(draw, operation, case)
    found = [Request(case, _CALLER), Request(known, _CALLER)]
    if operation.body:
        found.append(Request(known, _CALLER, draw(_broken(operation, known.body))))
    if draw(st.integers(0, 3)) == 0:
        found.append(Request(known, draw(st.sampled_from([_FOREIGN_PAGE, {}]))))
    return found


def _with_known_ids(draw: st.DrawFn, operation: Any, case: Any) -> Any:
    names = dict(_IDS)

    def fill(values: Any, names: dict[str, st.SearchStrategy[Any]]) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: draw(names[name]) if name in names else values[name] for name in values}

    if "/templates" in operation.path:
        names["id"] = st.just(TEMPLATE)
    if operation.path.endswith("/promote"):
        names["id"] = st.sampled_from([CHILD, OTHER])
    return operation.Case(
        path_parameters=fill(case.path_parameters, names),
        query=fill(case.query, names),
        headers=case.headers,
        body=fill(case.body, {**names, **_NEW.get(operation.path, {})}),
        media_type=case.media_type,
    )


@st.composite
def _broken(draw: st.DrawFn, operation: Any, body: Any) -> bytes:
    """No JSON, or a member that is anything JSON can say, text that is no Unicode included."""
    if not isinstance(body, dict) or draw(st.integers(0, 2)) == 0:
        return draw(_NO_JSON)
    name = draw(st.sampled_from(sorted(_members(operation))))
    changed = _with_short_waits({**body, name: draw(_JSON | _TEXTS)})
    return json.dumps(changed).encode()


def _members(operation: Any) -> set[str]:
    """The members that a body of the operation may have, and one that it may not."""
    text = json.dumps(operation.body[0].definition["schema"])
    return {name for name in _KNOWN if f'"{name}": {{' in text} | {"unknown"}


def _with_short_waits(body: Any) -> Any:
    """The same, but a template's program that does not get ready is soon given up."""
    if not isinstance(body, dict):
        return body
    wait, workload = body.get("init_wait_seconds"), body.get("workload")
    if isinstance(wait, int) and wait > 1:
        body = {**body, "init_wait_seconds": 1}
    if isinstance(workload, dict) and isinstance(workload.get("ready"), dict):
        ready = {"timeout_seconds": 1, **workload["ready"]}
        if isinstance(ready["timeout_seconds"], int) and ready["timeout_seconds"] > 1:
            ready["timeout_seconds"] = 1
        body = {**body, "workload": {**workload, "ready": ready}}
    return body


def _placed(request: Request, world: World) -> Request:
    """The same with the ids that only the server knows."""
    for values in (request.case.path_parameters, request.case.body):
        if isinstance(values, dict) and values.get("checkpoint") == "<checkpoint>":
            values["checkpoint"] = world.checkpoint
    return request


# ---- sending ----


def _send_and_check(request: Request, world: World, session: requests.Session) -> int:
    case = request.case
    options = case.as_transport_kwargs(base_url=world.server.url)
    options["headers"] = {**options["headers"], **request.headers}
    if request.raw is not None:
        options = {name: options[name] for name in options if name not in ("json", "data")}
        options["data"] = request.raw
        options["headers"] = {**options["headers"], "Content-Type": "application/json"}
    is_feed = case.path == "/v1/events"
    options |= {"timeout": DEADLINE_S, "allow_redirects": False, "stream": is_feed}
    with session.request(**options) as answer:
        if is_feed and answer.status_code == 200:
            _check_feed(answer)
            return 200
        _check_error(answer)
        case.validate_response(answer, checks=CHECKS)
        if answer.ok and case.operation.body and case.operation.label not in LENIENT:
            _check_accepted(case.operation, request)
    return int(answer.status_code)


def _check_feed(answer: requests.Response) -> None:
    """The stream begins with the listing, or with nothing for a while; it does not end."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    first = next(answer.iter_content(16))
    assert first.startswith((b"id: ", b": quiet"))
    answer.close()


def _check_error(answer: requests.Response) -> None:
    """A failure of the server itself is never the answer to what a client sends."""
    if answer.status_code < 500 or "json" not in answer.headers.get("content-type", ""):
        return
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) != (500, "internal"), answer.text


def _check_accepted(operation: Any, request: Request) -> None:
    """What the server takes is what the file allows."""
    body = request.case.body if request.raw is None else json.loads(request.raw)
    validator = Draft202012Validator(operation.body[0].definition["schema"])
    assert [error.message for error in validator.iter_errors(body)] == []
