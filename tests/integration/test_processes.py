"""Programs that start too many processes are told, as on Linux, and the sandbox goes on."""

from __future__ import annotations

import pytest

from tests.integration.conftest import Server

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

LIMIT = 512
"""As many as the MiB of memory of a sandbox that asks for nothing else."""

SLEEPERS = """
import errno, os, subprocess
sleepers = []
try:
    for _ in range(3000):
        sleepers.append(subprocess.Popen(["sleep", "1000"]))
except OSError as exc:
    print(errno.errorcode[exc.errno], len(sleepers), flush=True)
for each in sleepers:
    each.kill()
for each in sleepers:
    each.wait()
print(subprocess.run(["echo", "again"], capture_output=True, text=True).stdout)
"""


def test_a_program_gets_eagain_at_the_limit_and_the_sandbox_goes_on(server: Server) -> None:
    with server.create() as sandbox:
        ended = sandbox.exec(["python3", "-c", SLEEPERS], timeout=120)

        name, count, again = ended.stdout.split()
        assert name == "EAGAIN"
        assert LIMIT - 50 < int(count) < LIMIT
        assert again == "again"
        assert sandbox.exec("ulimit -u 5000").exit_code != 0
        (child,) = sandbox.fork(1)
        with child:
            assert child.exec("ulimit -u").stdout == f"{LIMIT}\n"
        assert sandbox.exec("echo lives").stdout == "lives\n"
