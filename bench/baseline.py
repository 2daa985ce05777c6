"""The baseline: the `runsc` command line doing by hand what a Mitos server does.

Same machine, same root filesystem, same limits, same options; no pool, no agent, no control socket.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from mitos.engine.base import MachineSpec, Resources
from mitos.engine.gvisor.bundle import configure
from mitos.host.rootfs import RootFilesystem, RootKind

__all__ = ["RunscCommandLine"]

COMMAND_TIMEOUT_S = 120


class RunscCommandLine:
    """Sandboxes driven by command lines. A context manager: leaving it removes them all.

    Args:
        runsc: the program.
        rootfs: a root filesystem with `/bin/sh`.
        guest: the folder mounted at `/opt/mitos`, as in a Mitos sandbox.
    """

    def __init__(self, runsc: Path, rootfs: Path, guest: Path) -> None:
        self._runsc = runsc
        self._work = Path(tempfile.mkdtemp(prefix="mitos-bench-", dir="/dev/shm"))
        root = RootFilesystem(RootKind.FOLDER, rootfs)
        spec = MachineSpec(root, guest, Resources())
        self._config = configure(spec, cgroup="mitos-bench", empty=self._work)
        process = self._config["process"]
        assert isinstance(process, dict)
        process["args"] = ["/bin/sleep", "infinity"]
        self._names: set[str] = set()

    def __enter__(self) -> RunscCommandLine:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove(*self._names)
        shutil.rmtree(self._work, ignore_errors=True)

    def run(self) -> str:
        """A cold sandbox; returns its name."""
        name, bundle = self._bundle()
        self._call("run", "--detach", f"--bundle={bundle}", name)
        return name

    def exec(self, name: str) -> None:
        """The smallest command."""
        assert self._call("exec", name, "/bin/sh", "-c", "echo hello").stdout == b"hello\n"

    def pause(self, name: str) -> None:
        """Stops every process."""
        self._call("pause", name)

    def resume(self, name: str) -> None:
        """Undoes `pause`."""
        self._call("resume", name)

    def fork_and_exec(self, name: str, count: int) -> list[str]:
        """One checkpoint, `count` restores at once, a command in each; returns the names."""
        image = Path(tempfile.mkdtemp(prefix="image-", dir=self._work))
        options = ("--leave-running", "--compression=none", f"--image-path={image}")
        self._call("checkpoint", *options, name)
        with ThreadPoolExecutor(count) as pool:
            children = list(pool.map(lambda _: self._restore(image), range(count)))
        shutil.rmtree(image)
        return children

    def remove(self, *names: str) -> None:
        """Ends sandboxes."""
        for name in list(names):
            self._call("delete", "--force", name)
            self._names.discard(name)

    def _restore(self, image: Path) -> str:
        name, bundle = self._bundle()
        self._call("create", f"--bundle={bundle}", name)
        self._call("restore", "--detach", f"--bundle={bundle}", f"--image-path={image}", name)
        self.exec(name)
        return name

    def _bundle(self) -> tuple[str, Path]:
        name = f"bench-{uuid.uuid4().hex[:12]}"
        bundle = self._work / name
        bundle.mkdir()
        linux = self._config["linux"]
        assert isinstance(linux, dict)
        config = {**self._config, "linux": {**linux, "cgroupsPath": f"/mitos-bench/{name}"}}
        (bundle / "config.json").write_text(json.dumps(config))
        self._names.add(name)
        return name, bundle

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        options = ("--platform=systrap", "--overlay2=root:memory", "--network=none")
        argv = [str(self._runsc), f"--root={self._work}/state", *options, *arguments]
        # A detached sandbox keeps its standard descriptors: only `exec` gets a pipe to read from.
        wanted = arguments[0] == "exec"
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if wanted else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=COMMAND_TIMEOUT_S,
            check=True,
        )
