"""Other SDKs' names on ours: what each call sends, and what it makes of the answers."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

import mitos
from mitos import daytona, e2b
from mitos._sdk.framing import encode_bytes
from tests.sdk.conftest import KEY
from tests.sdk.scripted import ScriptedServer, descriptor, envelope, reply, stream

ROWS = [descriptor("a"), descriptor("b", "node")]
DONE = {"exit": {"exitCode": 0, "execTimeMs": 1.0}}


@pytest.fixture(autouse=True)
def close_connections() -> Any:
    yield
    mitos.close_http_pools()


@pytest.fixture
def listing(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> ScriptedServer:
    """A server that the environment names, where two sandboxes run."""
    monkeypatch.setenv("MITOS_BASE_URL", server.url)
    monkeypatch.setenv("MITOS_API_KEY", KEY)
    server.on("GET", "/v1/sandboxes", reply(ROWS))
    return server


def said(text: str) -> dict[str, str]:
    return {"stdout": encode_bytes(text.encode())}


# E2B


def test_e2b_run_code_has_the_native_signature() -> None:
    native = inspect.signature(mitos.DirectSandbox.run_code).parameters
    ours = inspect.signature(e2b.Sandbox.run_code).parameters

    assert [(p.name, p.default) for p in native.values()] == [
        (p.name, p.default) for p in ours.values()
    ]


def test_e2b_create_takes_what_e2b_takes(listing: ScriptedServer) -> None:
    listing.on("POST", "/v1/set_timeout", reply({"deadline_unix": 7}))

    sandbox = e2b.Sandbox.create(
        "node", timeout=60, metadata={"a": "b"}, network=mitos.Network(block=True), secure=True
    )

    template, fork, deadline = listing.requests
    assert {"id": "node", "init_wait_seconds": 5, "network": {"block": True}} == template.json
    assert sandbox.sandbox_id == fork.json["id"]
    assert {"sandbox": sandbox.sandbox_id, "timeout_seconds": 60} == deadline.json
    assert isinstance(sandbox.sandbox, mitos.DirectSandbox)


def test_e2b_a_deadline_that_is_refused_leaves_no_sandbox(listing: ScriptedServer) -> None:
    with pytest.raises(mitos.TimeoutTooLargeError):
        e2b.Sandbox.create(timeout=86_401)

    assert "DELETE" == listing.requests[-1].method


def test_e2b_create_goes_through_its_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    made = mitos.DirectSandbox("a", "python", "", "http://server.test", 1.0)
    asked: list[Any] = []

    def seam(*arguments: Any, **options: Any) -> mitos.DirectSandbox:
        asked.append((arguments, options))
        return made

    monkeypatch.setattr(e2b, "_create_direct", seam)

    assert made is e2b.Sandbox.create("x", "k", "http://server.test").sandbox
    assert [(("x", "k", "http://server.test"), {"network": None})] == asked


def test_e2b_finds_and_lists(listing: ScriptedServer) -> None:
    assert "b" == e2b.Sandbox.connect("b").sandbox_id
    assert [("a", "python", "10.0.0.1:9000"), ("b", "node", "10.0.0.1:9000")] == [
        (each.sandbox_id, each.template_id, each.endpoint) for each in e2b.Sandbox.list()
    ]
    with pytest.raises(mitos.NotFoundError):
        e2b.Sandbox.connect("nope")


@pytest.mark.parametrize("find", [e2b.Sandbox.connect, daytona.Daytona().get])
def test_what_is_no_id_is_refused_before_any_request(listing: ScriptedServer, find: Any) -> None:
    with pytest.raises(mitos.AgentRunError, match="invalid_sandbox_id"):
        find("../x")

    assert [] == listing.requests


def test_e2b_run_waits_for_the_end_also_in_the_background(listing: ScriptedServer) -> None:
    listing.on_call("ExecStream", stream(said("hi\n"), DONE))
    sandbox = e2b.Sandbox.connect("a")

    assert "hi\n" == sandbox.commands.run("x").stdout
    assert "hi\n" == sandbox.commands.run("x", background=True, timeout=5).stdout

    asked = [request.messages[0] for request in listing.calls("ExecStream")]
    assert [60, 5] == [message["timeoutSeconds"] for message in asked]


def test_e2b_leaving_it_ends_the_sandbox(listing: ScriptedServer) -> None:
    listing.on("DELETE", "/v1/sandboxes/a", reply({}))

    with e2b.Sandbox.connect("a"):
        pass

    assert "DELETE" == listing.requests[-1].method


# Daytona


def test_daytona_create_chooses_the_image_and_the_region(listing: ScriptedServer) -> None:
    client = daytona.Daytona(daytona.DaytonaConfig(target="eu", organization="ignored"))
    client.create()
    client.create(daytona.CreateSandboxFromSnapshotParams(language="node", snapshot="snap"))
    client.create(daytona.CreateSandboxFromImageParams("node", "img", "snap", public=True))
    client.create(daytona.CreateSandboxParams(language="node"))

    forks = [request.json for request in listing.sent("/v1/fork")]
    assert ["python", "snap", "img", "node"] == [body["template"] for body in forks]
    assert {"eu"} == {body["region"] for body in forks}


def test_daytona_parameters_are_kept() -> None:
    bare = daytona.CreateSandboxBaseParams()
    full = daytona.CreateSandboxBaseParams(env_vars={"A": "1"}, labels={"b": "c"})
    run = daytona.CodeRunParams(["x"], {"A": "1"}, other=1)

    assert ({}, {}) == (bare.env_vars, bare.labels)
    assert ({"A": "1"}, {"b": "c"}) == (full.env_vars, full.labels)
    assert (["x"], {"A": "1"}) == (run.argv, run.env)


@pytest.mark.parametrize(
    ("api_url", "server_url", "expected"),
    [
        (None, None, None),
        ("http://a.test", "http://b.test", "http://a.test"),
        (None, "http://b.test", "http://b.test"),
        ("", "http://b.test", "http://b.test"),
        ("", None, ""),
        (None, "", ""),
    ],
)
def test_daytona_server_url_is_the_older_name(
    api_url: str | None, server_url: str | None, expected: str | None
) -> None:
    assert expected == daytona.DaytonaConfig(api_url=api_url, server_url=server_url).api_url


def test_daytona_a_blank_address_is_missing() -> None:
    with pytest.raises(mitos.AgentRunError, match="missing_base_url"):
        daytona.Daytona(daytona.DaytonaConfig(api_url="")).create()


def test_daytona_lists_with_one_request(listing: ScriptedServer) -> None:
    assert ["a", "b"] == [each.id for each in daytona.Daytona().list()]
    assert 1 == len(listing.requests)


def test_daytona_exec_sends_one_command(listing: ScriptedServer) -> None:
    listing.on_call("ExecStream", stream(said("out"), {"exit": {"exitCode": 3}}))
    sandbox = daytona.Daytona().get("a")

    found = sandbox.process.exec("echo $A", cwd="/my dir", env={"A": "it's", "B": "2"})
    sandbox.process.exec("x", timeout=7)

    first, second = (request.messages[0] for request in listing.calls("ExecStream"))
    command = """export A='it'"'"'s'; export B=2; cd '/my dir'; echo $A"""
    assert {"command": command, "timeoutSeconds": 30} == first
    assert {"command": "x", "timeoutSeconds": 7} == second
    assert found.artifacts is not None
    assert (3, "out", "out") == (found.exit_code, found.result, found.artifacts.stdout)


@pytest.mark.parametrize(
    ("messages", "code", "result"),
    [
        ([said("a"), said("b")], 0, "ab"),
        ([said("a"), {"result": {"text": "7"}}], 0, "7"),
        ([{"error": {"name": "ValueError", "value": "x"}}], 1, ""),
    ],
)
def test_daytona_code_run_gives_the_value_or_the_output(
    listing: ScriptedServer, messages: list[dict[str, Any]], code: int, result: str
) -> None:
    listing.on_call("RunCodeStream", stream(*messages, {"exitCode": 0}))

    found = daytona.Daytona().get("a").process.code_run("x", daytona.CodeRunParams())

    assert (code, result) == (found.exit_code, found.result)
    assert 60 == listing.calls("RunCodeStream")[0].messages[0]["timeoutSeconds"]


@pytest.mark.parametrize(
    ("url", "token"),
    [("https://p.test/a?token=t%2F1&x=2", "t/1"), ("https://p.test/a", "")],
)
def test_daytona_a_preview_has_its_token_apart(
    listing: ScriptedServer, url: str, token: str
) -> None:
    listing.on("POST", "/v1/preview", reply({"url": url}))

    link = daytona.Daytona().get("a").get_preview_link(3000)

    assert (url, token) == (link.url, link.token)


@pytest.mark.parametrize(
    ("path", "parent"),
    [("/a/b/", "/a"), ("/b", "/"), ("b", "."), ("a/b", "a"), ("/a//b", "/a")],
)
def test_daytona_a_file_is_looked_up_in_its_folder(
    listing: ScriptedServer, path: str, parent: str
) -> None:
    listing.on_call("List", reply({"entries": [{"name": "b", "size": "3"}]}))

    assert 3 == daytona.Daytona().get("a").fs.get_file_info(path).size
    assert {"parent": parent} == listing.calls("List")[0].json


def test_daytona_a_missing_file_is_not_found(listing: ScriptedServer) -> None:
    listing.on_call("List", reply({"entries": []}))

    with pytest.raises(mitos.NotFoundError):
        daytona.Daytona().get("a").fs.get_file_info("/a/b")


def test_daytona_uploads_bytes_or_a_local_file(listing: ScriptedServer, tmp_path: Path) -> None:
    listing.on_call("WriteFile", stream({"bytesWritten": 1}))
    files = daytona.Daytona().get("a").fs
    local = tmp_path / "local"
    local.write_bytes(b"\xff")

    files.upload_file(b"content", "/a")
    files.upload_file(str(local), "/b", timeout=5)
    with pytest.raises(TypeError):
        files.upload_file(7, "/c")  # type: ignore[arg-type]

    sent = [request.messages for request in listing.calls("WriteFile")]
    assert ["/a", "/b"] == [messages[0]["open"]["path"] for messages in sent]
    assert [encode_bytes(b"content"), encode_bytes(b"\xff")] == [m[1]["data"] for m in sent]


def test_daytona_a_life(listing: ScriptedServer) -> None:
    for route in ("/v1/pause", "/v1/resume"):
        listing.on("POST", route, reply({}))
    listing.on("DELETE", "/v1/sandboxes/a", envelope(404, "not_found"))
    client = daytona.Daytona()

    with client.get("a") as sandbox:
        client.stop(sandbox)
        client.start(sandbox, timeout=5)
        sandbox.stop(force=True)
        sandbox.start()
    client.delete(sandbox)

    paths = [request.path for request in listing.requests[1:]]
    ends = ["/v1/sandboxes/a"] * 2
    assert ["/v1/pause", "/v1/resume", "/v1/pause", "/v1/resume", *ends] == paths
