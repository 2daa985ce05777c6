"""Hibernated sandboxes on disk: where their snapshots lie and what the ledger keeps of them.

    <home>/hibernated/<uid>/snapshot/      gone once the sandbox runs again or ends

A folder without its row in the ledger is of a hibernation that was cut short, or of a sandbox that
woke: it is removed at the next start. A row whose snapshot cannot be read is ended with a reason.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from mitos.engine.base import MachineSpec, Resources, Snapshot
from mitos.host.rootfs import RootFilesystem, RootKind
from mitos.node.sandbox import Phase, SandboxRecord
from mitos.wire.network import NetworkPosture

__all__ = ["Bed", "decode_spec", "encode_spec"]


def encode_spec(spec: MachineSpec) -> dict[str, Any]:
    """A spec as JSON."""
    return {
        "rootfs": str(spec.rootfs.path),
        "rootfs_kind": spec.rootfs.kind.value,
        "guest": str(spec.guest),
        "resources": asdict(spec.resources),
        "environment": dict(spec.environment),
    }


def decode_spec(body: dict[str, Any]) -> MachineSpec:
    """The spec `encode_spec` wrote."""
    kind = RootKind(body.get("rootfs_kind", RootKind.FOLDER.value))
    return MachineSpec(
        rootfs=RootFilesystem(kind, Path(body["rootfs"])),
        guest=Path(body["guest"]),
        resources=Resources(**body["resources"]),
        environment=body["environment"],
    )


class Bed:
    """The folder of hibernated sandboxes.

    Args:
        directory: made if absent.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def place(self, uid: str) -> Path:
        """Where the snapshot of a sandbox lies."""
        return self._directory / uid / "snapshot"

    def clear(self, uid: str) -> None:
        """Removes a sandbox's snapshot, if there is one."""
        shutil.rmtree(self._directory / uid, ignore_errors=True)

    def sweep(self, kept: Collection[str]) -> None:
        """Removes every folder but those of the uids given; makes the place if it is absent."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in self._directory.iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def encode(
        self, record: SandboxRecord, remaining_s: float | None, spec: MachineSpec, fmt: str
    ) -> str:
        """What the ledger keeps of a sandbox that hibernates."""
        return json.dumps(
            {
                "id": record.id,
                "uid": record.uid,
                "template_id": record.template_id,
                "created_at": record.created_at.isoformat(),
                "fork_time_ms": record.fork_time_ms,
                "network": record.network.to_template(),
                "parent_id": record.parent_id,
                "remaining_s": remaining_s,
                "spec": encode_spec(spec),
                "format": fmt,
            }
        )

    def decode(self, body: str, fmt: str) -> tuple[SandboxRecord, float | None, Snapshot | None]:
        """A hibernated sandbox, what is left of its deadline, its snapshot if readable."""
        kept = json.loads(body)
        record = SandboxRecord(
            id=kept["id"],
            template_id=kept["template_id"],
            created_at=datetime.fromisoformat(kept["created_at"]),
            fork_time_ms=kept["fork_time_ms"],
            network=NetworkPosture.parse(kept["network"]),
            phase=Phase.HIBERNATED,
            deadline_unix=None,
            parent_id=kept["parent_id"],
            uid=kept["uid"],
        )
        snapshot = Snapshot(self.place(record.uid), decode_spec(kept["spec"]))
        usable = (
            kept["format"] == fmt
            and snapshot.directory.is_dir()
            and snapshot.spec.rootfs.exists()
            and snapshot.spec.guest.is_dir()
        )
        return record, kept["remaining_s"], snapshot if usable else None
