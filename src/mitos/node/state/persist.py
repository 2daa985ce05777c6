"""The rows of a node's state as frozen values, and their form in the database.

What is searched for is a column; the rest of a row is its `body`, JSON with a version:

    sandbox.body     {"version": 1, "parent_id", "created_at", "fork_time_ms", "network", "spec",
                      "format", "machine", "copied_bytes" (0 if absent), "remaining_s"}
    checkpoint.body  {"version": 1, "name", "created_at", "size_bytes", "spec", "format"}
    template.body    {"version": 1, "created_at", "creation_time_ms", "network", "resources",
                      "rootfs", "rootfs_key", "steps", "kernels", "preload", "workload"}
    spec             {"rootfs", "guest", "resources", "environment"}
    rootfs           {"kind", "path"}

A body of another version is refused: `migration.py` brings older files up to this one. A row that
is damaged is told and left out, so that it hides no other.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from mitos.engine.base import MachineSpec, Resources
from mitos.host.rootfs import RootFilesystem, RootKind
from mitos.node.end import EndReason
from mitos.node.phase import Phase
from mitos.node.recipe import Step, WarmUp
from mitos.wire.errors import ApiError
from mitos.wire.network import NetworkPosture
from mitos.wire.workload import ReadyCheck, Workload

__all__ = [
    "VERSION",
    "CheckpointRow",
    "Relative",
    "SandboxRow",
    "TemplateRow",
    "checkpoint_columns",
    "decode_checkpoint",
    "decode_sandbox",
    "decode_template",
    "readable",
    "sandbox_columns",
    "template_columns",
]

_log = logging.getLogger(__name__)

Row = TypeVar("Row")

VERSION = 1
"""Of every body."""


@dataclass(frozen=True, slots=True)
class SandboxRow:
    """A sandbox: all that is needed to find it again. Times are unix seconds.

    Attributes:
        uid: names this sandbox; an id can be used again, a uid never.
        owner: whose it is; ids are unique within an owner.
        parent_uid: the sandbox it was forked from, or None.
        parent_id: that one's id at the time, or None.
        fork_time_ms: from the request to a machine that answers.
        spec: what its machine is made of.
        snapshot_format: names what can read its snapshots.
        machine_id: the engine's name of its machine; None while it is hibernated.
        copied_bytes: memory that the machine had when it was made.
        deadline: when it is ended, or None.
        remaining_s: what is left of the deadline while the sandbox stands still; None while it
            runs, or has no deadline.
        budget_id: names the budget of forks from inside that it shares with its family.
    """

    uid: str
    owner: str
    id: str
    template_id: str
    parent_uid: str | None
    parent_id: str | None
    created_at: datetime
    fork_time_ms: float
    network: NetworkPosture
    phase: Phase
    spec: MachineSpec
    snapshot_format: str
    machine_id: str | None
    copied_bytes: int
    deadline: float | None
    remaining_s: float | None
    budget_id: str


@dataclass(frozen=True, slots=True)
class Relative:
    """A sandbox in a family of forks, living or ended. Times are unix seconds.

    Attributes:
        parent: the uid it was forked from; None for the first.
        ended_at: None while it lives.
        reason: why it ended; None while it lives.
    """

    uid: str
    id: str
    parent: str | None
    template: str
    created_at: float
    ended_at: float | None
    reason: EndReason | None


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A snapshot that is kept for a sandbox.

    Attributes:
        uid: the sandbox it belongs to and ends with.
        name: the user's label; may be empty, and need not be unique.
        size_bytes: what it takes on disk.
        spec: what a machine that is restored from it is made of.
        snapshot_format: names what can read it.
    """

    id: str
    uid: str
    name: str
    created_at: datetime
    size_bytes: int
    spec: MachineSpec
    snapshot_format: str


@dataclass(frozen=True, slots=True)
class TemplateRow:
    """A template that is offered.

    Attributes:
        rootfs: the root filesystem of its base image.
        rootfs_key: hash of that content.
        steps: of its recipe.
        warm_up: of its recipe.
    """

    owner: str
    id: str
    created_at: datetime
    creation_time_ms: float
    network: NetworkPosture
    resources: Resources
    rootfs: RootFilesystem
    rootfs_key: str
    steps: tuple[Step, ...]
    warm_up: WarmUp


def readable(
    rows: Iterable[tuple[Any, ...]], decode: Callable[[tuple[Any, ...]], Row]
) -> tuple[list[Row], list[tuple[Any, ...]]]:
    """The rows that can be read, and those that are damaged, which the log names.

    Raises:
        ApiError: a body is of another version.
    """
    found, damaged = [], []
    for columns in rows:
        try:
            found.append(decode(columns))
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            _log.error("the saved row %r is damaged and left out: %r", columns[:3], exc)
            damaged.append(columns)
    return found, damaged


def sandbox_columns(row: SandboxRow) -> tuple[Any, ...]:
    """A sandbox as `uid, owner, id, template, parent, phase, deadline, budget, body`."""
    body = _encode(
        parent_id=row.parent_id,
        created_at=row.created_at.isoformat(),
        fork_time_ms=row.fork_time_ms,
        network=row.network.to_template(),
        spec=_encode_spec(row.spec),
        format=row.snapshot_format,
        machine=row.machine_id,
        copied_bytes=row.copied_bytes,
        remaining_s=row.remaining_s,
    )
    return (
        *(row.uid, row.owner, row.id, row.template_id, row.parent_uid, row.phase.value),
        *(row.deadline, row.budget_id, body),
    )


def decode_sandbox(columns: tuple[Any, ...]) -> SandboxRow:
    """A sandbox from what `sandbox_columns` gives.

    Raises:
        ApiError: the body is not of this version.
    """
    uid, owner, sandbox_id, template, parent, phase, deadline, budget, body = columns
    kept = _decode(body, f"sandbox {sandbox_id}")
    return SandboxRow(
        uid=uid,
        owner=owner,
        id=sandbox_id,
        template_id=template,
        parent_uid=parent,
        parent_id=kept["parent_id"],
        created_at=datetime.fromisoformat(kept["created_at"]),
        fork_time_ms=kept["fork_time_ms"],
        network=NetworkPosture.restore(kept["network"]),
        phase=Phase(phase),
        spec=_decode_spec(kept["spec"]),
        snapshot_format=kept["format"],
        machine_id=kept["machine"],
        copied_bytes=kept.get("copied_bytes", 0),
        deadline=deadline,
        remaining_s=kept["remaining_s"],
        budget_id=budget,
    )


def checkpoint_columns(row: CheckpointRow) -> tuple[Any, ...]:
    """A checkpoint as `id, uid, body`."""
    body = _encode(
        name=row.name,
        created_at=row.created_at.isoformat(),
        size_bytes=row.size_bytes,
        spec=_encode_spec(row.spec),
        format=row.snapshot_format,
    )
    return row.id, row.uid, body


def decode_checkpoint(columns: tuple[Any, ...]) -> CheckpointRow:
    """A checkpoint from what `checkpoint_columns` gives.

    Raises:
        ApiError: the body is not of this version.
    """
    checkpoint_id, uid, body = columns
    kept = _decode(body, f"checkpoint {checkpoint_id}")
    return CheckpointRow(
        id=checkpoint_id,
        uid=uid,
        name=kept["name"],
        created_at=datetime.fromisoformat(kept["created_at"]),
        size_bytes=kept["size_bytes"],
        spec=_decode_spec(kept["spec"]),
        snapshot_format=kept["format"],
    )


def template_columns(row: TemplateRow) -> tuple[Any, ...]:
    """A template as `owner, id, body`."""
    body = _encode(
        created_at=row.created_at.isoformat(),
        creation_time_ms=row.creation_time_ms,
        network=row.network.to_template(),
        resources=asdict(row.resources),
        rootfs=_encode_rootfs(row.rootfs),
        rootfs_key=row.rootfs_key,
        steps=[step.run for step in row.steps],
        kernels=row.warm_up.kernels,
        preload=row.warm_up.preload,
        workload=asdict(row.warm_up.workload) if row.warm_up.workload else None,
    )
    return row.owner, row.id, body


def decode_template(columns: tuple[Any, ...]) -> TemplateRow:
    """A template from what `template_columns` gives.

    Raises:
        ApiError: the body is not of this version.
    """
    owner, template_id, body = columns
    kept = _decode(body, f"template {template_id}")
    return TemplateRow(
        owner=owner,
        id=template_id,
        created_at=datetime.fromisoformat(kept["created_at"]),
        creation_time_ms=kept["creation_time_ms"],
        network=NetworkPosture.restore(kept["network"]),
        resources=Resources(**kept["resources"]),
        rootfs=_decode_rootfs(kept["rootfs"]),
        rootfs_key=kept["rootfs_key"],
        steps=tuple(map(Step, kept["steps"])),
        warm_up=WarmUp(
            kernels=tuple(kept["kernels"]),
            preload=tuple(kept["preload"]),
            workload=_decode_workload(kept["workload"]),
        ),
    )


def _encode_spec(spec: MachineSpec) -> dict[str, Any]:
    return {
        "rootfs": _encode_rootfs(spec.rootfs),
        "guest": str(spec.guest),
        "resources": asdict(spec.resources),
        "environment": dict(spec.environment),
    }


def _decode_spec(kept: dict[str, Any]) -> MachineSpec:
    return MachineSpec(
        rootfs=_decode_rootfs(kept["rootfs"]),
        guest=Path(kept["guest"]),
        resources=Resources(**kept["resources"]),
        environment=kept["environment"],
    )


def _encode_rootfs(rootfs: RootFilesystem) -> dict[str, str]:
    return {"kind": rootfs.kind.value, "path": str(rootfs.path)}


def _decode_rootfs(kept: dict[str, str]) -> RootFilesystem:
    return RootFilesystem(RootKind(kept["kind"]), Path(kept["path"]))


def _decode_workload(kept: dict[str, Any] | None) -> Workload | None:
    if kept is None:
        return None
    environment = tuple((name, value) for name, value in kept["environment"])
    ready = ReadyCheck(**kept["ready"]) if kept["ready"] else None
    return Workload(tuple(kept["command"]), environment, ready, kept["wait_s"])


def _encode(**members: Any) -> str:
    return json.dumps({"version": VERSION, **members})


def _decode(body: str, what: str) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(body)
    if "\\ud" in body:
        # An earlier version took half a surrogate pair into names, which no answer can hold.
        kept = json.loads(json.dumps(kept, ensure_ascii=False).encode("utf-8", "replace"))
    if kept.get("version") != VERSION:
        raise ApiError(
            "internal",
            f"the saved state of {what} has version {kept.get('version')}, not {VERSION}",
            remediation="Use the server version that wrote it, or another --home.",
        )
    return kept
