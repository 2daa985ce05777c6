"""Preview URLs: how they are made, and who is let in by them."""

from __future__ import annotations

import http.client

import pytest

from mitos.server.settings import PreviewSettings, ServerSettings
from tests.server.exposing import SECRET, at_host, expose, token
from tests.server.serving import DEADLINE_S, Server


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"sandbox": "nobody", "port": 80}, 404),
        ({"sandbox": "", "port": 80}, 400),
        ({"sandbox": "a", "port": 0}, 400),
        ({"sandbox": "a", "port": 65536}, 400),
        ({"sandbox": "a", "port": "80"}, 400),
    ],
)
def test_what_cannot_be_minted(exposing: Server, body: dict[str, object], status: int) -> None:
    assert status == exposing.post("/v1/preview", json=body).status_code


def test_an_id_that_is_no_host_name_is_not_minted(exposing: Server) -> None:
    for name in ("x" * 64, "console"):
        created = exposing.post("/v1/fork", json={"template": "python", "id": name})
        assert 200 == created.status_code
        answer = exposing.post("/v1/preview", json={"sandbox": name, "port": 80})
        exposing.delete(f"/v1/sandboxes/{name}")
        assert 400 == answer.status_code


def test_without_previews_the_server_says_so(server: Server, sandbox: str) -> None:
    answer = server.post("/v1/preview", json={"sandbox": sandbox, "port": 80})

    assert (501, "internal") == (answer.status_code, answer.json()["error"]["code"])


def test_no_answer_repeats_the_token(exposing: Server, page: str) -> None:
    wrong = token(page, expires_in_s=-2)

    for accept in ("text/html", "application/json", "*/*"):
        assert wrong not in at_host(exposing, page, f"/?token={wrong}", Accept=accept).text


@pytest.mark.parametrize("host", ["nobody", "www", "a.b", "console"])
def test_an_unknown_host_is_not_found(exposing: Server, page: str, host: str) -> None:
    assert 404 == at_host(exposing, host, f"/?token={token(page)}").status_code


def test_a_session_is_for_its_own_sandbox(exposing: Server, page: str) -> None:
    first = at_host(exposing, page, f"/?token={token(page)}", Accept="text/html")
    other = exposing.create()
    session = first.headers["set-cookie"].partition(";")[0]
    answer = at_host(exposing, other, "/", Cookie=session)
    exposing.delete(f"/v1/sandboxes/{other}")

    assert 403 == answer.status_code


def test_the_redirect_never_leaves_the_host(exposing: Server, page: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", exposing.port, timeout=DEADLINE_S)
    headers = {"Host": f"{page}.preview.test", "Accept": "text/html"}
    connection.request("GET", f"//evil.example/?token={token(page)}", headers=headers)
    answer = connection.getresponse()
    connection.close()

    assert (302, "/evil.example/") == (answer.status, answer.headers["location"])


def test_the_log_holds_no_path_and_no_token(
    exposing: Server, page: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        at_host(exposing, page, f"/private/place?token={token(page)}")
        exposing.get(expose(page, "/private/place"))

    own = [record.getMessage() for record in caplog.records if record.name.startswith("mitos")]
    said = "\n".join(own)
    assert "op=preview" in said
    assert "private" not in said
    assert token(page)[:20] not in said


def test_a_secret_is_never_shown() -> None:
    assert "secret" not in repr(ServerSettings(preview=PreviewSettings("http://x", SECRET)))
