"""Code as users write it; `test_user_code.py` runs the type checker over it. It is never run."""

from typing import assert_type

import httpx

import mitos
import mitos.aio
from mitos.errors import TransportFailedError, error_for_code


def direct() -> None:
    with mitos.create("python", api_key="k", base_url="http://127.0.0.1:8080") as sandbox:
        assert_type(sandbox, mitos.DirectSandbox)
        result = sandbox.exec(["echo", "hello"], timeout=5, env={"A": "1"}, on_stdout=print)
        assert_type(result.stdout, str)
        assert_type(result.exit_code, int)
        assert_type(sandbox.files.read("x"), str)
        assert_type(sandbox.files.read_bytes("x"), bytes)
        assert_type(sandbox.files.exists("x"), bool)
        assert_type(sandbox.files.list()[0].size, int)
        sandbox.files.write("x", b"data", mode=0o600)
        execution = sandbox.run_code("1 + 1", on_result=lambda shown: print(shown.png))
        assert_type(execution.text, str | None)
        assert_type(execution.results, list[mitos.Result])
        children: list[mitos.DirectSandbox] = sandbox.fork(2)
        assert_type(children[0], mitos.DirectSandbox)
        assert_type(sandbox.set_timeout(60), int)
        assert_type(sandbox.get_host(3000), str)
        terminal = sandbox.pty(lambda data: print(data.decode()))
        assert_type(terminal.wait(timeout=1.0), int)
    assert_type(mitos.Sandbox.create("python"), mitos.DirectSandbox)
    assert_type(mitos.DirectSandbox.create("python"), mitos.DirectSandbox)


def server() -> None:
    server = mitos.SandboxServer("http://127.0.0.1:8080")
    server.create_template("python", network=mitos.Network(block=True))
    assert_type(server.fork("python"), mitos.DirectSandbox)


async def asynchronous() -> None:
    async with await mitos.aio.create("python") as sandbox:
        assert_type(sandbox, mitos.aio.AsyncDirectSandbox)
        assert_type((await sandbox.exec("true")).stdout, str)
        children: list[mitos.aio.AsyncDirectSandbox] = await sandbox.fork(2)
        assert_type(children[0], mitos.aio.AsyncDirectSandbox)
        terminal = await sandbox.create_pty(print)
        assert_type(await terminal.wait(), int)


def failures() -> None:
    try:
        mitos.create()
    except mitos.NotFoundError as error:
        assert_type(error.code, str)
        assert_type(error.status, int | None)
    except (TransportFailedError, httpx.ConnectError):
        pass
    assert_type(error_for_code("not_found", "gone"), mitos.AgentRunError)


def wrong() -> None:
    sandbox = mitos.create()
    sandbox.exec(5)  # type: ignore[arg-type]
    sandbox.files.write("x", 5)  # type: ignore[arg-type]
    mitos.creat()  # type: ignore[attr-defined]
