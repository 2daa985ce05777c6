"""Command lines of `runsc`. Pure; `host.process` runs them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Runsc"]

# Options that every sandbox has, each for a reason:
#   platform     systrap needs no virtualisation; kvm may be there and still hang
#   overlay2     changes to the root file system live in sandbox memory, so a snapshot has them
#   network      loopback only; ports are reached through the agent
#   cpu-num…     the guest sees the CPUs it may use, not the host's (runsc never shows less than 2)
_OPTIONS = (
    "--platform=systrap",
    "--overlay2=root:memory",
    "--network=none",
    "--cpu-num-from-quota=true",
)


@dataclass(frozen=True, slots=True)
class Runsc:
    """Builds command lines.

    Attributes:
        binary: the program.
        root: folder where it keeps a state file and a socket per sandbox.
    """

    binary: Path
    root: Path

    def version(self) -> list[str]:
        """Prints the version."""
        return [str(self.binary), "--version"]

    def create(self, sandbox_id: str, bundle: Path) -> list[str]:
        """Makes a sandbox whose kernel waits: for `start`, or for `restore`."""
        return self._command("create", f"--bundle={bundle}", sandbox_id)

    def start(self, sandbox_id: str) -> list[str]:
        """Starts PID 1."""
        return self._command("start", sandbox_id)

    def checkpoint(self, sandbox_id: str, image: Path) -> list[str]:
        """Writes a snapshot into a folder; the sandbox goes on."""
        options = ("--leave-running", "--compression=none", f"--image-path={image}")
        return self._command("checkpoint", *options, sandbox_id)

    def restore(self, sandbox_id: str, *, bundle: Path, image: Path) -> list[str]:
        """Fills a created sandbox from a snapshot."""
        options = ("--detach", f"--bundle={bundle}", f"--image-path={image}")
        return self._command("restore", *options, sandbox_id)

    def pause(self, sandbox_id: str) -> list[str]:
        """Stops every process."""
        return self._command("pause", sandbox_id)

    def resume(self, sandbox_id: str) -> list[str]:
        """Lets them go on."""
        return self._command("resume", sandbox_id)

    def _command(self, name: str, *arguments: str) -> list[str]:
        return [str(self.binary), f"--root={self.root}", *_OPTIONS, name, *arguments]
