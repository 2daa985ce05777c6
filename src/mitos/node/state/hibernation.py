"""The snapshots that hibernated sandboxes wake from.

    <home>/hibernated/<uid>/snapshot/      gone once the sandbox runs again or ends

A folder whose sandbox is not hibernated is of a hibernation that was cut short, or of a sandbox
that woke: it is removed at the next start.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from mitos.engine.base import Snapshot
from mitos.host import private
from mitos.node.state.persist import SandboxRow

__all__ = ["Hibernations"]


class Hibernations:
    """The folder of those snapshots.

    Args:
        directory: made if absent.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def place(self, uid: str) -> Path:
        """Where the snapshot of a sandbox lies."""
        return self._directory / uid / "snapshot"

    def snapshot(self, row: SandboxRow) -> Snapshot:
        """What a hibernated sandbox wakes from."""
        return Snapshot(self.place(row.uid), row.spec)

    def is_readable(self, row: SandboxRow, snapshot_format: str) -> bool:
        """True when this server can wake the sandbox.

        Args:
            row: a hibernated sandbox.
            snapshot_format: what this server's engine can read.
        """
        return (
            row.snapshot_format == snapshot_format
            and self.place(row.uid).is_dir()
            and row.spec.rootfs.exists()
            and row.spec.guest.is_dir()
        )

    def clear(self, uid: str) -> None:
        """Removes a sandbox's snapshot, if there is one."""
        shutil.rmtree(self._directory / uid, ignore_errors=True)

    def sweep(self, hibernated: Collection[str]) -> None:
        """Removes every folder but those of the uids given; makes the place if it is absent."""
        private.make_folder(self._directory)
        for folder in self._directory.iterdir():
            if folder.name not in hibernated:
                shutil.rmtree(folder, ignore_errors=True)
