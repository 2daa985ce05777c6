"""Bodies, routes and methods: what is the same for every resource."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mitos.node.tenant import Tenant
from mitos.server.settings import ServerSettings
from tests.server.answer import error_of, outcome
from tests.server.serving import Server, raw, serving_fake

JSON = {"Content-Type": "application/json"}
POST_ROUTES = [
    "/v1/templates",
    "/v1/fork",
    "/v1/sandboxes/x/fork",
    "/v1/set_timeout",
    "/v1/pause",
    "/v1/resume",
]


@pytest.mark.parametrize("route", POST_ROUTES)
@pytest.mark.parametrize(
    "body",
    [
        *(b"", b'{"id": ', b"[]", b"null", b'"x"', b"\xff", b"[" * 100_000, b"NaN"),
        b'{"name": "\xed\xa0\x80"}',
    ],
)
def test_a_body_that_is_no_json_object_is_refused(server: Server, route: str, body: bytes) -> None:
    assert (400, "invalid_json") == outcome(server.post(route, content=body, headers=JSON))


def test_text_may_be_any_unicode(server: Server, sandbox: str) -> None:
    body = b'{"name": "\\ud83c\\udf52 \xf0\x9f\x8d\x92"}'

    made = server.post(f"/v1/sandboxes/{sandbox}/checkpoints", content=body, headers=JSON).json()
    assert "\N{CHERRIES} \N{CHERRIES}" == made["name"]


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "without a Content-Type"),
        ({"Content-Type": "text/plain;charset=UTF-8"}, "text/plain"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "x-www-form-urlencoded"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, "multipart/form-data"),
        ({"Content-Type": "text/plain; a=application/json"}, "text/plain"),
        ({"Content-Type": "application/jsonp"}, "application/jsonp"),
    ],
)
@pytest.mark.parametrize("route", [*POST_ROUTES, "/v1/sandboxes/x/hibernate"])
def test_without_a_key_a_json_body_must_come_as_json(
    server: Server, route: str, headers: dict[str, str], said: str
) -> None:
    """A page of another site can send the others without asking first."""
    body = json.dumps({"template": "python", "id": "never-made", "sandbox": "never-made"})

    answer = server.post(route, content=body, headers=headers)

    assert (400, "invalid_json") == outcome(answer)
    error = error_of(answer)
    assert said in str(error["message"])
    assert "-H 'Content-Type: application/json'" in str(error["remediation"])
    assert [] == [row for row in server.tenant.list_sandboxes() if row.id == "never-made"]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
def test_the_content_type_may_have_parameters(server: Server, sandbox: str, kind: str) -> None:
    body = json.dumps({"sandbox": sandbox})

    assert (
        200 == server.post("/v1/resume", content=body, headers={"Content-Type": kind}).status_code
    )


def test_a_request_without_a_body_needs_no_content_type(server: Server, sandbox: str) -> None:
    assert 200 == server.post(f"/v1/sandboxes/{sandbox}/hibernate").status_code


def test_with_a_key_the_content_type_does_not_matter(keyed: Server) -> None:
    sandbox = keyed.create()

    answer = keyed.post("/v1/resume", content=json.dumps({"sandbox": sandbox}))

    assert 200 == answer.status_code


def test_a_body_over_the_limit_is_refused(server: Server) -> None:
    answer = server.post("/v1/fork", content=b" " * (33 << 20))

    assert (413, "body_too_large") == outcome(answer)


def test_a_body_over_the_limit_is_refused_while_it_comes(tmp_path: Path) -> None:
    """The server does not wait for the end of a body it will not take."""
    settings = ServerSettings(max_body_bytes=1000)
    with serving_fake(tmp_path / "own", settings=settings) as own:
        head = b"POST /v1/fork HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
        with raw(own, head + b" " * 2000) as connection:
            assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/nothing", 404),
        ("POST", "/v1/exec", 404),
        ("GET", "/v1/fork", 405),
        ("PUT", "/v1/sandboxes", 405),
        ("PATCH", "/v1/sandboxes/x", 405),
        ("POST", "/v1/health", 405),
        ("GET", "/v1/sandboxes/", 404),
        ("GET", "/v1/../etc/passwd", 404),
    ],
)
def test_an_unknown_route_or_method_is_an_envelope(
    server: Server, method: str, path: str, status: int
) -> None:
    answer = server.request(method, path)

    assert status == answer.status_code
    error_of(answer)
    assert (status == 405) == ("allow" in answer.headers)


def test_members_nobody_knows_are_ignored(server: Server) -> None:
    body = {"template": "python", "id": server.new_id(), "unknown": {"deep": [1]}}

    assert 200 == server.post("/v1/fork", json=body).status_code


def test_a_bug_is_internal_and_tells_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_tenant: Tenant) -> None:
        raise RuntimeError("secret of ours")

    monkeypatch.setattr(Tenant, "list_sandboxes", fail)
    answer = server.get("/v1/sandboxes")

    assert (500, "internal") == outcome(answer)
    assert "secret of ours" not in answer.text


TEXTS = [b'"\\ud800"', b'"a\\uDFFFb"', b'"\\ude00\\ud83d"', b'{"\\ud800": 1}', b'["\\udc80"]']


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("route", POST_ROUTES)
def test_half_a_surrogate_pair_is_refused_wherever_it_stands(
    server: Server, route: str, text: bytes
) -> None:
    for body in (
        b'{"id": "x", "spare": %s}' % text,
        b'{"network": {"allow_domains": [%s]}}' % text,
    ):
        assert (400, "invalid_input") == outcome(server.post(route, content=body, headers=JSON))


def test_a_member_is_named_in_a_form_that_every_answer_can_hold(server: Server) -> None:
    answer = server.post("/v1/fork", content=b'{"\\ud800": 1}', headers=JSON)

    assert "\\ud800" in str(error_of(answer)["message"])


def test_a_whole_pair_is_text(server: Server, sandbox: str) -> None:
    path = f"/v1/sandboxes/{sandbox}/checkpoints"
    body = b'{"name": "\\ud83d\\ude00 \xc3\xa9"}'

    made = server.post(path, content=body, headers=JSON)

    assert (200, "\U0001f600 é") == (made.status_code, made.json()["name"])
    assert ["\U0001f600 é"] == [each["name"] for each in server.get(path).json()]


@pytest.mark.parametrize(
    "name", [b'"a\\u0000"', b'"a\\u0000\\ud800"', b"5", b'"%s"' % (b"x" * 257)]
)
def test_a_checkpoint_name_that_cannot_be_kept_is_refused(
    server: Server, sandbox: str, name: bytes
) -> None:
    path = f"/v1/sandboxes/{sandbox}/checkpoints"

    made = server.post(path, content=b'{"name": %s}' % name, headers=JSON)

    assert (400, "invalid_input") == outcome(made)
    assert (200, []) == (server.get(path).status_code, server.get(path).json())


def test_an_idempotency_key_is_bounded(server: Server) -> None:
    body = {"template": "python", "id": server.new_id()}

    answer = server.post("/v1/fork", json=body, headers={"Idempotency-Key": "k" * 256})

    assert (400, "invalid_input") == outcome(answer)


@pytest.mark.parametrize(
    "members",
    [
        {"network": {"allow_domains": ["a\0b:80"]}},
        {"network": {"allow_domains": ["x" * 300 + ":80"]}},
        {"network": {"allow_domains": ["a:" + "1" * 5000]}},
        {"network": {"allow_domains": ["a:80"] * 1025}},
        {"network": {"allow_cidrs": ["10.0.0.0/8"] * 1025}},
        {"workload": {"command": ["a\0"]}},
        {"workload": {"command": ["x" * 40_000]}},
        {"workload": {"command": ["true"], "env": {"A\0": "b"}}},
        {"workload": {"command": ["true"], "env": {"A" * 300: "b"}}},
        {"workload": {"command": ["true"], "env": {"A": "b\0"}}},
        {"id": "a\0b"},
        {"id": "a" * 65},
    ],
)
def test_what_a_template_cannot_keep_is_refused(server: Server, members: dict[str, object]) -> None:
    before = server.get("/v1/templates").json()

    answer = server.post("/v1/templates", json={"id": "base", **members})

    assert (400, "invalid_input") == outcome(answer)
    assert before == server.get("/v1/templates").json()
