"""The published behaviours of direct mode, one test a line, sync and async, on real sandboxes.

The number in a name is the line's in section 23 of the Python contract. Not here: what needs a
server that misbehaves (15, 21, 29, 40, 46 to 49: test_create, test_exec, test_code, test_fork and
test_failure, against a scripted one), what is decided without any server (2, 5 to 10: test_settings
and test_surface), other modules (57, 70 to 72: test_template, test_guest, test_other_sdks), and
cluster mode and adapters (58 to 69).
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import mitos
import mitos.aio
from mitos.errors import AgentRunError, ExecutionDeadlineError, TimeoutTooLargeError
from mitos.types import Network, Result
from tests.sdk.conftest import KEY, Sdk
from tests.sdk.recorder import Recorder
from tests.server.serving import Server

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]


class Bench:
    """One form of the SDK at the observed server."""

    def __init__(self, sdk: Sdk, server: Server, recorder: Recorder) -> None:
        self.sdk, self.run, self.url, self.recorder = sdk, sdk.run, server.url, recorder
        self.server: Any = sdk.Server(server.url)
        recorder.requests.clear()

    def create(self, **options: Any) -> Any:
        return self.run(self.sdk.module.create(**{"base_url": self.url, "api_key": "", **options}))

    def bodies(self, route: str) -> list[dict[str, Any]]:
        """What was sent to a route."""
        requests = [each for each in self.recorder.requests if each.route == ("POST", route)]
        return [json.loads(each.body) for each in requests]

    def ids(self) -> list[str]:
        """The sandboxes that run."""
        return [row["id"] for row in self.run(self.server.list_sandboxes())]


@pytest.fixture
def at(sdk: Sdk, observed: Server, recorder: Recorder) -> Iterator[Bench]:
    yield Bench(sdk, observed, recorder)
    observed.end_sandboxes()


@pytest.fixture
def sb(at: Bench) -> Any:
    return at.create()


# Creating


def test_03_create_asks_for_the_template_and_then_for_a_sandbox(at: Bench) -> None:
    sandbox = at.create(api_key=KEY)

    assert [each.path for each in at.recorder.requests] == ["/v1/templates", "/v1/fork"]
    assert isinstance(sandbox, at.sdk.Sandbox)
    assert sandbox.template == "python"


def test_04_every_request_carries_the_key_or_none_does(at: Bench) -> None:
    for key, expected in ((KEY, f"Bearer {KEY}"), ("", None)):
        at.recorder.requests.clear()
        sandbox = at.create(api_key=key)
        at.run(sandbox.exec("true"))
        at.run(sandbox.terminate())
        sent = {each.headers.get("authorization") for each in at.recorder.requests}
        assert sent == {expected}


def test_11_trailing_slashes_do_no_harm(at: Bench) -> None:
    at.create(base_url=f"{at.url}//")

    assert not [each.path for each in at.recorder.requests if "//" in each.path]


@pytest.mark.parametrize("bad", ["bad id!", "../x", "-x", "", "x" * 65, "a\n"])
def test_12_a_bad_id_is_refused_without_a_request(at: Bench, bad: str) -> None:
    with pytest.raises(AgentRunError) as caught:
        at.create(id=bad)

    assert "invalid_sandbox_id" == caught.value.code
    assert at.recorder.requests == []


def test_13_a_long_id_is_taken(at: Bench) -> None:
    name = "0" + "aZ_-" * 15 + "end"

    assert at.create(id=name).id == name


def test_14_an_id_is_made_when_none_is_given(at: Bench) -> None:
    assert re.fullmatch(r"sandbox-[0-9a-f]{8}", at.create().id)


def test_16_forks_carry_idempotency_keys(at: Bench) -> None:
    sandbox = at.create(idempotency_key="mine")
    at.run(sandbox.fork(1))
    at.run(sandbox.fork(1))

    keys = [
        each.headers["idempotency-key"]
        for each in at.recorder.requests
        if each.route[1] in ("/v1/fork", "/v1/sandboxes/*/fork")
    ]
    assert keys[0] == "mine"
    assert all(keys)
    assert len(set(keys)) == 3


# Commands


def test_17_exec(at: Bench, sb: Any) -> None:
    result = at.run(sb.exec("echo hello"))

    assert (result.stdout, result.exit_code) == ("hello\n", 0)
    assert result.exec_time_ms > 0


def test_18_a_command_that_fails_does_not_raise(at: Bench, sb: Any) -> None:
    result = at.run(sb.exec("echo oops >&2; exit 3"))

    assert (result.stderr, result.exit_code) == ("oops\n", 3)


def test_19_a_command_at_its_deadline_raises(at: Bench, sb: Any) -> None:
    with pytest.raises(ExecutionDeadlineError) as caught:
        at.run(sb.exec("sleep 60", timeout=1))

    assert ("exec_timeout", 1) == (caught.value.code, caught.value.context["timeout_s"])


def test_20_timeouts_have_a_ceiling(at: Bench, sb: Any) -> None:
    at.recorder.requests.clear()
    for call in (sb.exec, sb.run_code):
        with pytest.raises(TimeoutTooLargeError):
            at.run(call("1", timeout=86_401))
    with pytest.raises(TimeoutTooLargeError):
        at.run(sb.set_timeout(86_401))

    assert at.recorder.requests == []
    assert at.run(sb.exec("true", timeout=86_400)).exit_code == 0


def test_21_a_command_that_never_ran_raises(at: Bench, observed: Server, sb: Any) -> None:
    at.run(sb.exec("rm /bin/sh"))
    with pytest.raises(AgentRunError) as caught:
        at.run(sb.exec("true"))

    assert "exec_failed" == caught.value.code


def test_22_a_list_is_quoted(at: Bench, sb: Any) -> None:
    assert at.run(sb.exec(["echo", "$HOME", "a b"])).stdout == "$HOME a b\n"
    assert at.run(sb.exec(["python3", "-c", "print(1)"])).stdout == "1\n"


def test_23_calls_name_the_sandbox(at: Bench, sb: Any) -> None:
    at.recorder.requests.clear()
    at.run(sb.exec("true"))

    (request,) = at.recorder.requests
    assert request.path == "/sandbox.v1.Sandbox/ExecStream"
    assert request.headers["x-sandbox-id"] == sb.id


# Cells


def test_24_the_last_value_is_the_text(at: Bench, sb: Any) -> None:
    assert at.run(sb.run_code("import math; math.sqrt(144)")).text == "12.0"


def test_25_state_stays(at: Bench, sb: Any) -> None:
    at.run(sb.run_code("x = 41"))

    assert at.run(sb.run_code("x + 1")).text == "42"


def test_26_an_exception_does_not_raise(at: Bench, sb: Any) -> None:
    execution = at.run(sb.run_code("1/0"))

    assert execution.error.name == "ZeroDivisionError"
    assert isinstance(execution.error.traceback, list)


def test_27_output_is_no_value(at: Bench, sb: Any) -> None:
    execution = at.run(sb.run_code("print('x')"))

    assert execution.text is None
    assert "".join(execution.logs["stdout"]) == "x\n"


def test_28_callbacks_get_texts_and_results(at: Bench, sb: Any) -> None:
    code = (
        "import base64, sys\n"
        "class Plot:\n"
        "    def _repr_png_(self): return b'\\x89PNG\\r\\n\\x1a\\n'\n"
        "print('out'); print('err', file=sys.stderr)\n"
        "Plot()"
    )
    heard: dict[str, list[Any]] = {"out": [], "err": [], "result": []}
    execution = at.run(
        sb.run_code(
            code,
            on_stdout=heard["out"].append,
            on_stderr=heard["err"].append,
            on_result=heard["result"].append,
        )
    )

    assert ("".join(heard["out"]), "".join(heard["err"])) == ("out\n", "err\n")
    assert heard["result"] == execution.results
    assert isinstance(execution.results[0], Result)
    assert base64.b64decode(execution.results[0].png).startswith(b"\x89PNG")
    assert execution.results[0].svg is None


# Files


def test_30_files_come_back_as_they_were_written(at: Bench, sb: Any) -> None:
    at.run(sb.files.write("/tmp/text", "caf\u00e9 \u2713"))
    at.run(sb.files.write("/tmp/bytes", bytes(range(256)) * 100))

    assert at.run(sb.files.read("/tmp/text")) == "caf\u00e9 \u2713"
    assert at.run(sb.files.read_bytes("/tmp/bytes")) == bytes(range(256)) * 100


def test_31_modes_and_parents(at: Bench, sb: Any) -> None:
    at.run(sb.files.write("/tmp/new/deep/secret", "x", mode=0o600))
    at.run(sb.files.write("/tmp/plain", "x"))

    found = at.run(sb.exec("stat -c %a /tmp/new/deep/secret /tmp/plain")).stdout
    assert found == "600\n644\n"


def test_32_a_listing_has_names_kinds_and_sizes(at: Bench, sb: Any) -> None:
    at.run(sb.exec("mkdir /workspace/d; printf abc > /workspace/f"))

    rows = [(row.name, row.is_dir) for row in at.run(sb.files.list("/workspace"))]
    assert rows == [("d", True), ("f", False)]
    assert at.run(sb.files.list("/workspace"))[1].size == 3


def test_33_exists(at: Bench, sb: Any) -> None:
    at.run(sb.files.write("/tmp/f", ""))

    found = [at.run(sb.files.exists(path)) for path in ("/tmp/f", "/tmp", "/tmp/no")]
    assert found == [True, True, False]


def test_34_folders_come_and_go(at: Bench, sb: Any) -> None:
    at.run(sb.files.mkdir("/tmp/a/b/c"))
    at.run(sb.files.write("/tmp/a/b/f", "x"))
    at.run(sb.files.remove("/tmp/a"))
    at.run(sb.files.remove("/tmp/a"))

    assert not at.run(sb.files.exists("/tmp/a"))


def test_35_a_missing_file_is_explained(at: Bench, sb: Any) -> None:
    with pytest.raises(AgentRunError) as caught:
        at.run(sb.files.read("/does/not/exist"))

    assert "not_found" == caught.value.code
    assert caught.value.remediation


# Forks


def test_36_forks_share_the_past_and_not_the_future(at: Bench, sb: Any) -> None:
    at.run(sb.files.write("/workspace/before", "x"))
    first, second = at.run(sb.fork(2))
    at.run(first.files.write("/workspace/after", "x"))

    assert [at.run(each.files.exists("/workspace/before")) for each in (first, second)] == [
        True
    ] * 2
    found = [at.run(each.files.exists("/workspace/after")) for each in (first, second, sb)]
    assert found == [True, False, False]
    assert at.run(sb.exec("echo on")).stdout == "on\n"


def test_37_a_fork_is_a_list(at: Bench, sb: Any) -> None:
    (child,) = at.run(sb.fork())

    assert at.run(sb.fork(0)) == []
    ids = [each.id for each in at.run(sb.fork(3))]
    assert len({sb.id, child.id, *ids}) == 5


def test_38_children_can_be_named(at: Bench, sb: Any) -> None:
    assert [each.id for each in at.run(sb.fork(2, id="kid"))] == ["kid-0", "kid-1"]
    assert [each.id for each in at.run(sb.fork(1, id="kid"))] == ["kid"]


def test_39_children_have_the_variables(at: Bench, sb: Any) -> None:
    at.run(sb.run_code("x = 41"))

    assert [at.run(each.run_code("x + 1")).text for each in at.run(sb.fork(2))] == ["42", "42"]


# Life


def test_41_a_deadline_is_told(at: Bench, sb: Any) -> None:
    deadline = at.run(sb.set_timeout(600))

    assert isinstance(deadline, int)
    assert abs(deadline - time.time() - 600) < 10


def test_42_a_pause_keeps_everything(at: Bench, sb: Any) -> None:
    at.run(sb.files.write("/tmp/f", "x"))
    at.run(sb.run_code("x = 1"))

    assert at.run(sb.pause()) is None
    assert at.run(sb.resume()) is None
    assert at.run(sb.files.read("/tmp/f")) == "x"
    assert at.run(sb.run_code("x")).text == "1"


def test_43_a_port_has_a_signed_url(at: Bench, sb: Any) -> None:
    assert at.run(sb.get_host(3000)).startswith(f"https://{sb.id}.")
    assert "token=" in at.run(sb.get_host())
    assert [body["port"] for body in at.bodies("/v1/preview")] == [3000, 80]
    at.recorder.requests.clear()
    for port in (0, 70_000, "80"):
        with pytest.raises(ValueError, match="port"):
            at.run(sb.get_host(port))
    assert at.recorder.requests == []


def test_44_terminate_ends_the_sandbox(at: Bench, sb: Any) -> None:
    assert at.run(sb.terminate()) is None
    assert at.ids() == []

    if at.sdk.is_async:

        async def use() -> None:
            async with await mitos.aio.create("python", base_url=at.url, api_key="") as inner:
                await inner.exec("true")

        at.run(use())
    else:
        with mitos.create("python", base_url=at.url, api_key="") as inner:
            inner.exec("true")
    assert at.ids() == []


def test_45_terminate_twice_is_fine(at: Bench, sb: Any) -> None:
    at.run(at.run(at.server.connect(sb.id)).terminate())

    assert at.run(sb.terminate()) is None
    assert at.run(sb.terminate()) is None


def test_50_the_key_is_never_shown(at: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        sandbox = at.create(api_key=KEY)
        at.run(sandbox.exec("true"))

    said = "".join(record.getMessage() for record in caplog.records)
    assert KEY not in repr(sandbox) + sandbox.pty_url() + said


# Terminals


def test_51_a_terminal(at: Bench, sb: Any) -> None:
    heard = bytearray()
    arrived = threading.Event()

    def hear(data: bytes) -> None:
        heard.extend(data)
        arrived.set()

    def wait_for(text: bytes) -> None:
        deadline = time.monotonic() + 20
        while text not in heard:
            assert time.monotonic() < deadline, bytes(heard)
            at.run(terminal.resize(100, 30)) if at.sdk.is_async else arrived.wait(0.1)

    terminal = at.run(sb.pty(hear, cols=90, rows=25))
    at.run(terminal.send_input(b"echo typed-$((40 + 2)); stty size\n"))
    wait_for(b"typed-42")
    at.run(terminal.resize(100, 30))
    at.run(terminal.send_input(b"sleep 0.3; stty size; exit\n"))
    assert at.run(terminal.wait()) == 0
    assert b"30 100" in heard
    other = at.run(sb.pty(hear))
    at.run(other.kill())
    assert at.run(other.wait()) == -1


# Names


def test_53_the_async_form_awaits(observed: Server) -> None:
    async def use() -> None:
        sandbox = await mitos.aio.create("python", base_url=observed.url, api_key="")
        assert isinstance(sandbox, mitos.aio.AsyncDirectSandbox)
        assert (await sandbox.exec("echo hello")).stdout == "hello\n"
        await sandbox.files.write("/tmp/a", "x")
        assert await sandbox.files.read("/tmp/a") == "x"
        assert (await sandbox.run_code("1 + 1")).text == "2"
        for child in await sandbox.fork(2):
            await child.terminate()
        await sandbox.terminate()

    asyncio.run(use())


def test_54_the_class_creates_too(observed: Server) -> None:
    with mitos.Sandbox.create("python", base_url=observed.url, api_key="") as sandbox:
        assert isinstance(sandbox, mitos.DirectSandbox)


def test_55_a_server_can_be_used_by_hand(at: Bench) -> None:
    assert at.run(at.server.create_template("python"))["ready"] is True
    sandbox = at.run(at.server.fork("python"))

    assert at.run(sandbox.exec("echo hi")).stdout == "hi\n"
    at.run(sandbox.terminate())


def test_56_the_posture_is_sent_when_it_is_given(at: Bench) -> None:
    at.create(network=Network(block=True))
    at.create()

    first, second = at.bodies("/v1/templates")
    assert first["network"] == {"block": True}
    assert "network" not in second
    assert Network().to_dict() == {}
