"""Makes the profile that the engine is compiled with, `engine/default.pgo`.

    bench/profile.py [--rounds 60]

Builds the engine so that it can be profiled, has it do what the lifecycle bench does (blanks,
checkpoints, restores, commands, files), and merges what its sandboxes' kernels saw. Needs Go.
The compiler then knows which calls are worth inlining: https://go.dev/doc/pgo.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from mitos.agent import identity
from mitos.agent.client import AgentClient
from mitos.agent.command import ExecRequest
from mitos.agent.link import Link
from mitos.engine.base import Machine, MachineSpec, Resources
from mitos.engine.gvisor import GvisorEngine, GvisorSettings, control
from mitos.host.rootfs import RootFilesystem, RootKind
from mitos.images import guest
from mitos.images.store import BuiltImage, ImageStore
from mitos.wire.errors import ApiError

ROOT = Path(__file__).parents[1]
PROFILE = ROOT / "engine" / "default.pgo"
WATCHED_S = 0.5
COMMANDS = 8
_WALK = """
import os
for folder, _, names in os.walk("/usr/lib"):
    for name in names[:50]:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            os.close(os.open(path, os.O_RDONLY))
"""
_KERNEL = "import time; heap = bytearray(range(256)) * 32768; time.sleep(3600)"


class Profiler:
    """Profiles of sandboxes' kernels, one file each."""

    def __init__(self, folder: Path) -> None:
        self.files: list[Path] = []
        self._folder = folder

    async def watch(self, target: control.Target) -> None:
        """Samples a kernel's CPU for a while."""
        path = self._folder / f"{len(self.files)}.pprof"
        self.files.append(path)
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            argument = {"Duration": int(WATCHED_S * 1e9)}
            await control.call(target, "Profile.CPU", argument, [descriptor])
        finally:
            os.close(descriptor)


async def adopt(
    machine: Machine, undo: AsyncExitStack, *, restored: bool
) -> tuple[Link, AgentClient]:
    link = Link(machine.link)
    undo.push_async_callback(link.close)
    agent = AgentClient(link, ended)
    if restored:
        fresh = identity.make_identity(machine.id, os.urandom)
        await agent.identify(fresh, forked=True, deadline_s=30)
    else:
        await link.hello()
    return link, agent


async def ended() -> ApiError:
    return ApiError("internal", "the machine ended")


async def run(agent: AgentClient, *argv: str) -> None:
    async with agent.exec(ExecRequest(argv, timeout_s=60)) as command:
        async for _ in command:
            pass


async def work(program: Path, home: Path, scratch: Path, rounds: int) -> list[Path]:
    """Lives and forks; returns the profiles."""
    profiler = Profiler(scratch)
    files = await asyncio.to_thread(guest.materialize, home / "guest")
    newest = max(
        (path for path in (home / "rootfs").iterdir() if (path / "usr/bin/python3").exists()),
        key=lambda path: path.stat().st_mtime,
    )
    built = BuiltImage(RootFilesystem(RootKind.FOLDER, newest), newest.name)
    root = await ImageStore(home).seal(built, files, lambda _: None)
    spec = MachineSpec(root, files, Resources())
    async with AsyncExitStack() as undo:
        engine = GvisorEngine(GvisorSettings(runsc=program, state=scratch / "run"))
        await engine.start()
        undo.push_async_callback(engine.close)
        machine = await engine.boot(spec)
        link, agent = await adopt(machine, undo, restored=False)
        kernel = ExecRequest(["/usr/bin/python3", "-c", _KERNEL])
        await undo.enter_async_context(agent.exec(kernel))
        await asyncio.sleep(1)
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            blank = await engine.prepare(spec)
            blank.sandbox.continue_kernel()
            watching = asyncio.gather(
                profiler.watch(machine.sandbox.target), profiler.watch(blank.sandbox.target)
            )
            await asyncio.sleep(0.1)
            async with link.frozen(30):
                snapshot = await engine.checkpoint(machine, scratch / f"snapshot-{number}")
            child = await engine.restore(blank, snapshot)
            async with AsyncExitStack() as inner:
                inner.push_async_callback(engine.destroy, child)
                child_link, child_agent = await adopt(child, inner, restored=True)
                for _ in range(COMMANDS):
                    await run(child_agent, "/bin/sh", "-c", "true")
                    await run(agent, "/bin/true")
                await run(agent, "/usr/bin/python3", "-c", _WALK)
                async with child_link.frozen(30):
                    await engine.checkpoint(child, scratch / f"again-{number}")
                await watching
    return [path for path in profiler.files if path.stat().st_size > 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument(
        "--home", type=Path, default=Path(os.environ.get("MITOS_HOME", "/var/lib/mitos"))
    )
    options = parser.parse_args()
    build = ROOT / "build" / "profile"
    script = [ROOT / "scripts" / "build-engine", "--tags", "profile", "--output", build]
    subprocess.run(script, check=True)
    with tempfile.TemporaryDirectory(prefix="mitos-profile-", dir="/dev/shm") as folder:
        program = Path(folder) / "runsc"
        program.write_text(f'#!/bin/sh\nexec {build / "mitos-engine"} --profile=true "$@"\n')
        program.chmod(0o755)
        profiles = asyncio.run(work(program, options.home, Path(folder), options.rounds))
        merge = ["go", "tool", "pprof", "-proto", f"-output={PROFILE}"]
        subprocess.run([*merge, build / "mitos-engine", *profiles], check=True)
    print(f"wrote {PROFILE} from {len(profiles)} profiles")


if __name__ == "__main__":
    main()
