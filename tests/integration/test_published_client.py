"""The published client, unmodified, against our server.

The wheel is installed into an environment of its own and run as a black box: it is what user code
has today.
"""

from __future__ import annotations

import json
import subprocess
import textwrap
from pathlib import Path

import pytest

from tests.integration.conftest import PUBLISHED_VERSION, Server

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


def run(python: Path, server: Server, program: str) -> dict[str, object]:
    """Runs a program with the published client; it prints one JSON object."""
    result = subprocess.run(
        [python, "-I", "-c", textwrap.dedent(program)],
        env={"MITOS_BASE_URL": server.url, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout))


def test_create_exec_files_run_code_fork_terminate(published_python: Path, server: Server) -> None:
    found = run(
        published_python,
        server,
        """
        import importlib.metadata, json, mitos
        sb = mitos.create("python")
        out = {"version": importlib.metadata.version("mitos-run"), "template": sb.template}
        result = sb.exec("echo hello; echo oops >&2; exit 3")
        out["exec"] = [result.stdout, result.stderr, result.exit_code, result.exec_time_ms > 0]
        sb.files.write("/workspace/deep/a.txt", "caf\\u00e9")
        out["text"] = sb.files.read("/workspace/deep/a.txt")
        blob = bytes(range(256)) * 4096
        sb.files.write("/workspace/blob", blob)
        out["blob"] = sb.files.read_bytes("/workspace/blob") == blob
        out["exists"] = [sb.files.exists(p) for p in ("/workspace", "/workspace/blob", "/nope")]
        out["list"] = [(f.name, f.is_dir) for f in sb.files.list("/workspace")]
        sb.run_code("x = 41")
        out["code"] = sb.run_code("import math; math.sqrt(144)").text
        out["error"] = sb.run_code("1/0").error.name
        a, b = sb.fork(2)
        a.exec("echo a > /workspace/a.txt")
        out["forks"] = [c.run_code("x + 1").text for c in (a, b)]
        out["private"] = [c.files.exists("/workspace/a.txt") for c in (a, b, sb)]
        sb.pause(); sb.resume()
        out["resumed"] = sb.exec("echo back").stdout
        sb.terminate()
        out["alive"] = a.exec("echo on").stdout
        a.terminate(); b.terminate()
        print(json.dumps(out))
        """,
    )

    assert found == {
        "version": PUBLISHED_VERSION,
        "template": "python",
        "exec": ["hello\n", "oops\n", 3, True],
        "text": "café",
        "blob": True,
        "exists": [True, True, False],
        "list": [["blob", False], ["deep", True]],
        "code": "12.0",
        "error": "ZeroDivisionError",
        "forks": ["42", "42"],
        "private": [True, False, False],
        "resumed": "back\n",
        "alive": "on\n",
    }


def test_errors_have_their_types(published_python: Path, server: Server) -> None:
    found = run(
        published_python,
        server,
        """
        import json, mitos
        out = {}
        with mitos.create("python") as sb:
            try:
                sb.files.read("/does/not/exist")
            except mitos.NotFoundError as e:
                out["missing"] = [e.code, e.status, bool(e.remediation)]
            try:
                sb.exec("sleep 30", timeout=1)
            except mitos.ExecutionDeadlineError as e:
                out["deadline"] = e.code
            out["left"] = sb.exec("pgrep -x sleep | wc -l").stdout.strip()
            out["signal"] = sb.exec("kill -9 $$").exit_code
            out["timeout"] = sb.run_code("while True: pass", timeout=1).error.name
            out["ruby"] = sb.run_code("1", language="ruby").error.name
            deadline = sb.set_timeout(600)
            import time
            out["set_timeout"] = abs(deadline - time.time() - 600) < 5
        try:
            mitos.create("no-such-image")
        except mitos.NotFoundError as e:
            out["image"] = e.code
        print(json.dumps(out))
        """,
    )

    assert found == {
        "missing": ["not_found", 404, True],
        "deadline": "exec_timeout",
        "left": "0",
        "signal": -1,
        "timeout": "TimeoutError",
        "ruby": "KernelUnavailable",
        "set_timeout": True,
        "image": "not_found",
    }


def test_the_async_client(published_python: Path, server: Server) -> None:
    found = run(
        published_python,
        server,
        """
        import asyncio, json, mitos.aio

        async def main():
            sb = await mitos.aio.create("python")
            out = {"exec": (await sb.exec("echo hi")).stdout}
            await sb.files.write("/workspace/f", "text")
            out["read"] = await sb.files.read("/workspace/f")
            out["code"] = (await sb.run_code("6 * 7")).text
            (child,) = await sb.fork(1)
            out["child"] = await child.files.read("/workspace/f")
            await child.terminate()
            await sb.terminate()
            print(json.dumps(out))

        asyncio.run(main())
        """,
    )

    assert found == {"exec": "hi\n", "read": "text", "code": "42", "child": "text"}


def test_the_terminal(published_python: Path, server: Server) -> None:
    found = run(
        published_python,
        server,
        """
        import json, time, mitos
        with mitos.create("python") as sb:
            seen = bytearray()
            handle = sb.pty(seen.extend, cols=100, rows=30)
            handle.send_input(b"stty size\\n")
            deadline = time.time() + 10
            while b"30 100" not in seen and time.time() < deadline:
                time.sleep(0.05)
            first = b"30 100" in seen
            handle.resize(40, 10)
            time.sleep(0.3)
            handle.send_input(b"stty size; exit 5\\n")
            code = handle.wait(10)
            print(json.dumps({"size": first, "resized": b"10 40" in seen, "exit": code}))
        """,
    )

    assert found == {"size": True, "resized": True, "exit": 5}


def test_a_preview_url_leads_to_the_port(published_python: Path, server: Server) -> None:
    found = run(
        published_python,
        server,
        """
        import json, mitos, urllib.parse, urllib.request
        sb = mitos.create("python")
        sb.files.write("/workspace/index.html", "from inside")
        sb.exec("nohup python3 -m http.server 8000 --bind 127.0.0.1 >/dev/null 2>&1 &")
        sb.exec("until curl -s 127.0.0.1:8000 >/dev/null; do sleep 0.05; done")
        url = urllib.parse.urlsplit(sb.get_host(8000))
        here = f"http://127.0.0.1:{url.port}{url.path}?{url.query}"
        request = urllib.request.Request(here, headers={"Host": url.netloc})
        body = urllib.request.urlopen(request, timeout=30).read().decode()
        refused = []
        for port in (0, 70000):
            try:
                sb.get_host(port)
            except ValueError:
                refused.append(port)
        sb.terminate()
        print(json.dumps({"host": url.hostname, "body": body, "refused": refused}))
        """,
    )

    assert str(found["host"]).endswith(".localhost")
    assert (found["body"], found["refused"]) == ("from inside", [0, 70000])
