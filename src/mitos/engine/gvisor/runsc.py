"""Command lines of `runsc`. Pure; `host.process` runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mitos.host.rootfs import RootKind

__all__ = ["Runsc", "options_for"]

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


def options_for(root: RootKind) -> tuple[str, ...]:
    """The options that depend on how a sandbox's root filesystem lies on disk.

    An image is mapped and never opened again, so its sandbox may not make system calls on the
    host's files at all, and its system call filter, which every restore builds anew, is smaller.
    """
    return ("--directfs=false",) if root is RootKind.EROFS_IMAGE else ()


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

    def create(self, sandbox_id: str, options: Sequence[str], *, bundle: Path) -> list[str]:
        """Makes a sandbox whose kernel waits: for `start`, or for `restore`.

        Args:
            sandbox_id: its id.
            options: of this sandbox alone, from `options_for`; the same for all its commands.
            bundle: the folder with its configuration.
        """
        return self._command("create", options, f"--bundle={bundle}", sandbox_id)

    def start(self, sandbox_id: str, options: Sequence[str]) -> list[str]:
        """Starts PID 1."""
        return self._command("start", options, sandbox_id)

    def checkpoint(self, sandbox_id: str, options: Sequence[str], *, image: Path) -> list[str]:
        """Writes a snapshot into a folder; the sandbox goes on."""
        arguments = ("--leave-running", "--compression=none", f"--image-path={image}")
        return self._command("checkpoint", options, *arguments, sandbox_id)

    def restore(
        self, sandbox_id: str, options: Sequence[str], *, bundle: Path, image: Path
    ) -> list[str]:
        """Fills a created sandbox from a snapshot."""
        arguments = ("--detach", f"--bundle={bundle}", f"--image-path={image}")
        return self._command("restore", options, *arguments, sandbox_id)

    def pause(self, sandbox_id: str, options: Sequence[str]) -> list[str]:
        """Stops every process."""
        return self._command("pause", options, sandbox_id)

    def resume(self, sandbox_id: str, options: Sequence[str]) -> list[str]:
        """Lets them go on."""
        return self._command("resume", options, sandbox_id)

    def _command(self, name: str, options: Sequence[str], *arguments: str) -> list[str]:
        return [str(self.binary), f"--root={self.root}", *_OPTIONS, *options, name, *arguments]
