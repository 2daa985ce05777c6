"""Debian's systemd as the init of namespaces of its own, over this machine's files.

Processes, mounts, network, names and control groups are apart; what is written stays in memory and
is gone with the machine. No container program is needed, only root and Debian's package `systemd`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Machine", "booted", "why_no_machine"]

DEADLINE_S = 120
CGROUPS = Path("/sys/fs/cgroup")
BOOT = Path(__file__).with_name("boot")
SYSTEMD = Path("/lib/systemd/systemd")


def why_no_machine() -> str:
    """The reason no machine can boot here, or an empty string."""
    if os.geteuid() != 0:
        return "namespaces with an init of their own need root on this machine"
    if not SYSTEMD.exists():
        return "systemd is not installed: run scripts/install --dev"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "the kernel has no overlay file system"
    return ""


class Machine:
    """A booted machine.

    Args:
        pid: of its init, as this machine sees it.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def argv(self, *words: str) -> list[str]:
        """The command line that runs a command there."""
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        # By a shell that has the directory of the checkout, where python finds the tests.
        inside = ["bash", "-c", f'cd {Path.cwd()} && exec "$@"', "-", *words]
        return ["nsenter", "--target", str(self.pid), "--all", "env", "-i", path, *inside]

    def run(
        self, *words: str, check: bool = True, deadline_s: float = DEADLINE_S
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command there to its end."""
        ended = subprocess.run(
            self.argv(*words), capture_output=True, text=True, timeout=deadline_s, check=False
        )
        assert not check or ended.returncode == 0, f"{words}: {ended.stdout}{ended.stderr}"
        return ended

    def mitos(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs `mitos` there."""
        return self.run(sys.executable, "-m", "mitos.cli.main", *words, check=check)

    def python(self, *words: str) -> list[str]:
        """The command line that runs Python there."""
        return self.argv(sys.executable, *words)

    def journal(self, unit: str) -> str:
        """What a unit has logged, without the requests."""
        said = self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}").stdout
        return "\n".join(line for line in said.splitlines() if "request=" not in line)


@contextlib.contextmanager
def booted(folder: Path) -> Iterator[Machine]:
    """A machine, until the end of the block.

    Args:
        folder: an empty one, for its mounts.
    """
    with _groups(f"mitos-machine-{os.getpid()}") as groups:
        join = 'for group in "${@:3}"; do echo $$ >"$group/cgroup.procs"; done; exec unshare'
        kinds = "--pid --mount --uts --ipc --net --cgroup --fork"
        outside = subprocess.Popen(
            ["bash", "-c", f'{join} {kinds} "$1" "$2"', "-", BOOT, folder, *groups],
            stdin=subprocess.DEVNULL,
        )
        try:
            machine = Machine(_init_of(outside))
            _wait_until_up(machine)
            yield machine
        finally:
            _end(outside)


@contextlib.contextmanager
def _groups(name: str) -> Iterator[list[Path]]:
    """A control group in each hierarchy, removed at the end with all below it."""
    is_v2 = (CGROUPS / "cgroup.controllers").exists()
    roots = [CGROUPS] if is_v2 else [path for path in CGROUPS.iterdir() if not path.is_symlink()]
    groups = [root / name for root in roots if (root / "cgroup.procs").exists()]
    try:
        for group in groups:
            group.mkdir()
            for file in ("cpuset.cpus", "cpuset.mems"):  # empty at first in version 1
                if (group / file).exists() and not is_v2:
                    (group / file).write_text((group.parent / file).read_text())
        yield groups
    finally:
        for group in groups:
            for folder, _, _ in os.walk(group, topdown=False):
                _remove(Path(folder))


def _remove(group: Path) -> None:
    """What ran in it has been killed, and takes a moment to be gone."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            assert time.monotonic() < deadline, f"{group} is still in use"
            time.sleep(0.02)


def _init_of(outside: subprocess.Popen[bytes]) -> int:
    """The child of `unshare`, once it is systemd."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        assert outside.poll() is None, "the machine did not boot"
        children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text().split()
        for child in map(int, children):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                    return child
        time.sleep(0.02)
    raise AssertionError("systemd did not start in time")


def _wait_until_up(machine: Machine) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        said = machine.run("systemctl", "is-system-running", check=False).stdout
        if said.strip() in ("running", "degraded"):
            return
        time.sleep(0.1)
    raise AssertionError("systemd did not come up in time")


def _end(outside: subprocess.Popen[bytes]) -> None:
    """Kills the machine's init, and the kernel all that it has started."""
    children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children")
    with contextlib.suppress(OSError):
        for child in children.read_text().split():
            os.kill(int(child), 9)
    try:
        outside.wait(DEADLINE_S)
    finally:
        outside.kill()
        outside.wait(DEADLINE_S)
