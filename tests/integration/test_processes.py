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

RAISE = """
import resource
print(*resource.getrlimit(resource.RLIMIT_NPROC))
try:
    resource.setrlimit(resource.RLIMIT_NPROC, (5000, 5000))
except (OSError, ValueError):
    print("refused")
"""


def test_a_program_gets_eagain_at_the_limit_and_the_sandbox_goes_on(server: Server) -> None:
    with server.create() as sandbox:
        ended = sandbox.exec(["python3", "-c", SLEEPERS], timeout=120)

        name, count, again = ended.stdout.split()
        assert name == "EAGAIN"
        assert LIMIT - 50 < int(count) < LIMIT
        assert again == "again"
        (child,) = sandbox.fork(1)
        with child:
            asked = child.exec(["python3", "-c", RAISE])
        assert asked.stdout.split() == [str(LIMIT), str(LIMIT), "refused"]
        assert sandbox.exec("echo lives").stdout == "lives\n"


def test_programs_lack_the_power_that_would_lift_the_limit(server: Server) -> None:
    """It comes with the one that sets the hostname, which the agent keeps for itself."""
    with server.create() as sandbox:
        rows = sandbox.exec("grep -E '^Cap(Inh|Prm|Eff|Bnd)' /proc/self/status").stdout.split()

    powers = [int(word, 16) for word in rows[1::2]]
    assert len(powers) == 4
    assert [power & 1 << 21 for power in powers] == [0] * 4
