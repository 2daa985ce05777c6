"""Preview URLs: how they are made, and who is let in by them."""

from __future__ import annotations

import http.client
import time

import pytest

from mitos.server.settings import PreviewSettings, ServerSettings
from mitos.wire.preview import Grant, mint
from tests.server.exposing import PORT, SECRET, at_host, expose, token
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
    wrong = token(exposing, page, expires_in_s=-2)

    for accept in ("text/html", "application/json", "*/*"):
        assert wrong not in at_host(exposing, page, f"/?token={wrong}", Accept=accept).text


@pytest.mark.parametrize("host", ["nobody", "www", "a.b", "console"])
def test_an_unknown_host_is_not_found(exposing: Server, page: str, host: str) -> None:
    assert 404 == at_host(exposing, host, f"/?token={token(exposing, page)}").status_code


def test_a_session_is_for_its_own_sandbox(exposing: Server, page: str) -> None:
    first = at_host(exposing, page, f"/?token={token(exposing, page)}", Accept="text/html")
    other = exposing.create()
    session = first.headers["set-cookie"].partition(";")[0]
    answer = at_host(exposing, other, "/", Cookie=session)
    exposing.delete(f"/v1/sandboxes/{other}")

    assert 403 == answer.status_code


def credentials(server: Server, sandbox: str) -> dict[str, dict[str, str]]:
    """A token and a browser's session for one sandbox, as a request shows them."""
    good = token(server, sandbox)
    first = at_host(server, sandbox, f"/?token={good}", Accept="text/html")
    session = first.headers["set-cookie"].partition(";")[0]
    return {"a bearer": {"Authorization": f"Bearer {good}"}, "a session": {"Cookie": session}}


def opens(server: Server, sandbox: str, shown: dict[str, str]) -> bool:
    """Whether a request gets to the sandbox, where nothing listens."""
    status = at_host(server, sandbox, "/", **shown).status_code
    assert status in (403, 502)
    return status == 502


def test_what_opened_an_ended_sandbox_does_not_open_another_one_of_its_id(
    exposing: Server,
) -> None:
    sandbox = exposing.create()
    old = token(exposing, sandbox)
    shown = credentials(exposing, sandbox)
    assert all(opens(exposing, sandbox, each) for each in shown.values())
    assert 502 == exposing.get(expose(sandbox, f"/?token={old}")).status_code

    exposing.delete(f"/v1/sandboxes/{sandbox}").raise_for_status()
    again = {"template": "python", "id": sandbox}
    exposing.post("/v1/fork", json=again).raise_for_status()
    found = {name: opens(exposing, sandbox, each) for name, each in shown.items()}
    links = [
        at_host(exposing, sandbox, f"/?token={old}").status_code,
        at_host(exposing, sandbox, f"/?token={old}", Accept="text/html").status_code,
        exposing.get(expose(sandbox, f"/?token={old}")).status_code,
    ]
    exposing.delete(f"/v1/sandboxes/{sandbox}")

    assert found == {"a bearer": False, "a session": False}
    assert links == [403, 403, 403]


def test_a_token_without_a_uid_opens_nothing(exposing: Server, page: str) -> None:
    published = mint(SECRET, Grant(page, PORT, int(time.time()) + 100))

    assert 403 == at_host(exposing, page, f"/?token={published}").status_code
    assert 403 == exposing.get(expose(page, f"/?token={published}")).status_code


def test_a_new_link_works_beside_the_session_of_an_ended_sandbox(exposing: Server) -> None:
    sandbox = exposing.create()
    stale = credentials(exposing, sandbox)["a session"]
    exposing.delete(f"/v1/sandboxes/{sandbox}")
    exposing.post("/v1/fork", json={"template": "python", "id": sandbox}).raise_for_status()
    link = f"/x?token={token(exposing, sandbox)}"

    first = at_host(exposing, sandbox, link, Accept="text/html", **stale)
    session = first.headers["set-cookie"].partition(";")[0]
    reached = opens(exposing, sandbox, {"Cookie": session})
    exposing.delete(f"/v1/sandboxes/{sandbox}")

    assert (302, "/x") == (first.status_code, first.headers["location"])
    assert reached


def test_a_parameter_of_the_programs_own_called_token_leaves_the_session(
    exposing: Server, page: str
) -> None:
    session = credentials(exposing, page)["a session"]

    assert 502 == at_host(exposing, page, "/?token=mine", **session).status_code


def test_a_link_ends_with_its_sandbox_when_a_child_is_promoted(exposing: Server) -> None:
    """Not the parent's, whose sandbox is no more, and not the child's, whose id is no more."""
    parent, child = exposing.create(), exposing.new_id()
    exposing.post(f"/v1/sandboxes/{parent}/fork", json={"id": child}).raise_for_status()
    of_parent, of_child = token(exposing, parent), token(exposing, child)

    exposing.post(f"/v1/sandboxes/{child}/promote").raise_for_status()
    found = [
        at_host(exposing, host, f"/?token={shown}").status_code
        for host, shown in ((parent, of_parent), (parent, of_child), (child, of_child))
    ]
    new = at_host(exposing, parent, f"/?token={token(exposing, parent)}").status_code
    exposing.delete(f"/v1/sandboxes/{parent}")

    assert (found, new) == ([403, 403, 404], 502)


def test_the_redirect_never_leaves_the_host(exposing: Server, page: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", exposing.port, timeout=DEADLINE_S)
    headers = {"Host": f"{page}.preview.test", "Accept": "text/html"}
    connection.request("GET", f"//evil.example/?token={token(exposing, page)}", headers=headers)
    answer = connection.getresponse()
    connection.close()

    assert (302, "/evil.example/") == (answer.status, answer.headers["location"])


def test_the_log_holds_no_path_and_no_token(
    exposing: Server, page: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        at_host(exposing, page, f"/private/place?token={token(exposing, page)}")
        exposing.get(expose(page, "/private/place"))

    own = [record.getMessage() for record in caplog.records if record.name.startswith("mitos")]
    said = "\n".join(own)
    assert "op=preview" in said
    assert "private" not in said
    assert token(exposing, page)[:20] not in said


def test_a_secret_is_never_shown() -> None:
    assert "secret" not in repr(ServerSettings(preview=PreviewSettings("http://x", SECRET)))
