"""Programs in a sandbox that ask for their own sandbox: who it is, and copies of it."""

from __future__ import annotations

import json
import shutil
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import mitos
from tests.integration.conftest import Server

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

OURS = "/workspace/sdk/ours"
PUBLISHED = "/workspace/sdk/published"
GONE_DEADLINE_S = 30


@pytest.fixture(scope="session")
def packages(published_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our SDK and the published one, each with what it needs, ready to be copied inside."""
    (installed,) = (published_python.parent.parent / "lib").glob("python3*/site-packages")
    place = tmp_path_factory.mktemp("packages")
    unused = shutil.ignore_patterns("pip*", "setuptools*", "__pycache__", "websockets*")
    shutil.copytree(installed, place / "published", ignore=unused)
    shutil.copytree(installed, place / "ours", ignore=unused)
    shutil.rmtree(place / "ours" / "mitos")
    server_only = shutil.ignore_patterns(
        *("__pycache__", "_guest", "server", "node", "engine", "host", "images", "cli", "egress")
    )
    shutil.copytree(Path(mitos.__file__).parent, place / "ours" / "mitos", ignore=server_only)
    return place


@pytest.fixture
def inside(sandbox: mitos.DirectSandbox, packages: Path) -> mitos.DirectSandbox:
    """A sandbox with both SDKs in it."""
    sandbox.files.upload_dir(packages, "/workspace/sdk")
    return sandbox


@pytest.fixture(autouse=True)
def children_are_ended(server: Server) -> Iterator[None]:
    yield
    server.end_sandboxes()


def run(sandbox: mitos.DirectSandbox, program: str, path: str = OURS) -> Any:
    """Runs a program inside; what it prints is JSON."""
    sandbox.files.write("/workspace/program.py", textwrap.dedent(program))
    result = sandbox.exec(f"PYTHONPATH={path} python3 /workspace/program.py", timeout=120)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def connect(server: Server, sandbox_id: str) -> mitos.DirectSandbox:
    return mitos.SandboxServer(server.url).connect(sandbox_id)


def read_when_there(
    sandbox: mitos.DirectSandbox, path: str, parse: Callable[[str], Any] = json.loads
) -> Any:
    """What a program that goes on by itself writes in one step."""
    deadline = time.monotonic() + GONE_DEADLINE_S
    while not sandbox.files.exists(path):
        assert time.monotonic() < deadline, f"no {path} in {sandbox.id}"
        time.sleep(0.05)
    return parse(sandbox.files.read(path))


ASK = """
import json, sys
from mitos import guest
info = guest.info()
print(json.dumps([vars(info.identity), vars(info.budget)]))
"""

CALL = """
import json, socket, sys
answers = []
for line in json.loads(sys.argv[1]):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("/run/mitos.sock")
        connection.sendall(line.encode())
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as lines:
            answers.append(json.loads(lines.readline()))
print(json.dumps(answers))
"""


def call(sandbox: mitos.DirectSandbox, *lines: str) -> list[Any]:
    """What the socket answers to raw lines."""
    result = sandbox.exec(["python3", "-c", CALL, json.dumps(lines)], timeout=60)
    assert result.exit_code == 0, result.stderr
    answers = json.loads(result.stdout)
    assert isinstance(answers, list)
    return answers


@pytest.mark.parametrize("path", [OURS, PUBLISHED])
def test_a_program_learns_who_its_sandbox_is(inside: mitos.DirectSandbox, path: str) -> None:
    identity, budget = run(inside, ASK, path)

    assert identity == {
        "sandbox_id": inside.id,
        "claim": "",
        "pool": "python",
        "workspace": "",
    }
    assert budget == {"max_forks": 16, "max_checkpoints": 0, "forks_used": 0}


def test_the_environment_says_where_to_ask(sandbox: mitos.DirectSandbox) -> None:
    output = sandbox.exec("echo $MITOS_SOCKET $MITOS_SANDBOX_ID").stdout
    in_kernel = sandbox.run_code("import os; os.environ['MITOS_SANDBOX_ID']").text

    assert output == f"/run/mitos.sock {sandbox.id}\n"
    assert in_kernel == repr(sandbox.id)
    (child,) = sandbox.fork()
    assert child.exec("echo $MITOS_SANDBOX_ID").stdout == f"{child.id}\n"


def test_a_program_forks_its_own_sandbox(server: Server, inside: mitos.DirectSandbox) -> None:
    children = run(
        inside,
        """
        import json, os
        from mitos import guest
        thought = "kept"
        children = guest.fork(2, label="try")
        who = guest.identity().sandbox_id
        with open("/workspace/partial", "w") as file:
            json.dump([who, thought, children], file)
        os.rename("/workspace/partial", "/workspace/who")
        print(json.dumps(children))
        """,
    )

    assert len(set(children)) == 2
    assert all(child.startswith("try-") for child in children)
    assert read_when_there(inside, "/workspace/who") == [inside.id, "kept", children]
    for child_id in children:
        child = connect(server, child_id)
        assert read_when_there(child, "/workspace/who") == [child_id, "kept", []]
    kin = {each.id: each for each in inside.tree()}
    assert {kin[child_id].parent_uid for child_id in children} == {kin[inside.id].uid}


def test_a_cell_forks_and_each_child_draws_its_own_numbers(
    server: Server, inside: mitos.DirectSandbox
) -> None:
    result = inside.run_code(
        f"""
import sys; sys.path.insert(0, {OURS!r})
import random
from mitos import guest
random.seed(7)
children = guest.fork(2)
draw = random.random()
print(*children)
"""
    )
    assert result.error is None
    draws = [inside.run_code("draw").text]
    for child_id in result.logs["stdout"][0].split():
        child = connect(server, child_id)
        assert child.run_code("children").text == "[]"
        draws.append(child.run_code("draw").text)

    assert len(set(draws)) == 3


def test_children_share_the_budget_of_who_made_them(
    server: Server, inside: mitos.DirectSandbox
) -> None:
    fork_all = """
    import json
    from mitos import guest
    children = guest.fork(15)
    print(json.dumps(children))
    """
    children = run(inside, fork_all)
    made_inside = connect(server, children[0])
    (made_outside,) = made_inside.fork()

    assert run(made_inside, ASK)[1]["forks_used"] == 15
    assert run(made_outside, ASK)[1]["forks_used"] == 0
    refused = call(made_inside, '{"type": "fork", "fork": {"n": 2}}')
    assert refused[0]["ok"] is False
    assert "1 of 16 forks from inside are left" in refused[0]["error"]
    assert run(inside, ASK)[1]["forks_used"] == 15


def test_children_do_not_outlive_the_deadline_of_who_made_them(
    server: Server, sandbox: mitos.DirectSandbox
) -> None:
    deadline = sandbox.set_timeout(600)
    (answer,) = call(sandbox, '{"type": "fork", "fork": {"n": 1, "label": "kid"}}')
    (child_id,) = answer["fork"]["children"]
    row = httpx.get(f"{server.url}/v1/sandboxes/{child_id}").json()

    assert row["deadline_unix"] == deadline


HOSTILE = [
    "",
    "\n",
    "not json\n",
    "[1]\n",
    "[" * 50_000 + "\n",
    '{"type": "shutdown"}\n',
    '{"type": ["info"]}\n',
    '{"type": "fork", "fork": {"n": 0}}\n',
    '{"type": "fork", "fork": {"n": true}}\n',
    '{"type": "fork", "fork": {"n": 1e9}}\n',
    '{"type": "fork", "fork": {"n": 65}}\n',
    '{"type": "fork", "fork": {"n": 1, "label": "../x"}}\n',
    '{"type": "fork", "fork": {"n": 1, "label": 7}}\n',
    '{"type": "fork", "fork": {"n": 1, "label": "' + "x" * 56 + '"}}\n',
]


def test_bad_requests_are_refused_and_cost_nothing(
    server: Server, sandbox: mitos.DirectSandbox
) -> None:
    answers = call(sandbox, *HOSTILE)

    assert [answer["ok"] for answer in answers] == [False] * len(HOSTILE)
    assert all(answer["error"] for answer in answers)
    assert [row["id"] for row in mitos.SandboxServer(server.url).list_sandboxes()] == [sandbox.id]
    assert call(sandbox, '{"type": "info"}\n')[0]["info"]["budget"]["forksUsed"] == 0


FLOOD = """
import socket
for _ in range(20):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("/run/mitos.sock")
        try:
            for _ in range(64):
                connection.sendall(b"x" * 65536)
        except OSError:
            pass
idle = [socket.socket(socket.AF_UNIX) for _ in range(40)]
for connection in idle:
    connection.connect("/run/mitos.sock")
"""


def test_floods_and_idlers_do_not_shut_out_the_next_caller(sandbox: mitos.DirectSandbox) -> None:
    assert sandbox.exec(["python3", "-c", FLOOD], timeout=60).exit_code == 0

    assert call(sandbox, '{"type": "info"}\n')[0]["ok"] is True


QUEUED = """
import os, socket, time
crowd = []
for _ in range(20):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect("/run/mitos.sock")
    crowd.append(connection)
caller = socket.socket(socket.AF_UNIX)
caller.connect("/run/mitos.sock")
caller.sendall(b'{"type": "info"}\\n')
open("/workspace/queued", "w").close()
while not os.path.exists("/workspace/go"):
    time.sleep(0.02)
for connection in crowd:
    connection.close()
answer = caller.makefile("rb").readline()
with open("/workspace/partial", "wb") as file:
    file.write(answer)
os.rename("/workspace/partial", "/workspace/answer")
"""


def test_who_waits_at_a_fork_is_served_by_the_child(
    server: Server, sandbox: mitos.DirectSandbox
) -> None:
    sandbox.exec_background(["python3", "-c", QUEUED])
    read_when_there(sandbox, "/workspace/queued", str)
    (child,) = sandbox.fork()
    for each in (sandbox, child):
        each.files.write("/workspace/go", "")

    for each in (sandbox, child):
        answer = read_when_there(each, "/workspace/answer")
        assert answer["info"]["identity"]["sandboxId"] == each.id


def test_the_published_client_spawns_subagents(server: Server, inside: mitos.DirectSandbox) -> None:
    found = run(
        inside,
        """
        import json
        from mitos import subagent
        result = subagent.spawn_subagent(2, label="sub")
        name = "/workspace/result-" + ("parent" if result.first else "child")
        with open("/workspace/partial", "w") as file:
            json.dump([bool(result), subagent.current_sandbox().sandbox_id], file)
        import os; os.rename("/workspace/partial", name)
        print(json.dumps([child.sandbox_id for child in result.children]))
        """,
        PUBLISHED,
    )

    assert len(found) == 2
    for child_id in found:
        child = connect(server, child_id)
        assert read_when_there(child, "/workspace/result-child") == [True, child_id]


def test_the_socket_answers_through_a_whole_life(sandbox: mitos.DirectSandbox) -> None:
    def who(asked: mitos.DirectSandbox) -> str:
        (answer,) = call(asked, '{"type": "info"}\n')
        return str(answer["info"]["identity"]["sandboxId"])

    parent_id = sandbox.id
    kept = sandbox.checkpoint()
    sandbox.hibernate()
    assert who(sandbox) == parent_id
    sandbox.restore(kept)
    assert who(sandbox) == parent_id
    sandbox.pause()
    sandbox.resume()
    assert who(sandbox) == parent_id
    (child,) = sandbox.fork()
    child.promote()
    assert who(sandbox) == parent_id
