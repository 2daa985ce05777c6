"""Templates: from an image to a warm snapshot that every sandbox starts from.

    image ──ImageStore──> root filesystem ──boot──> machine ──warm up──> snapshot     (once)
    snapshot ──restore──> sandbox                                                    (every create)

Snapshots live in `<home>/snapshots/<key>/`; the key covers all they depend on (root filesystem,
agent and kernels, limits, engine and its version), so a changed part makes a new snapshot and an
unchanged one is used again, also by the next server. A snapshot is written beside its place and
moved there when it is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mitos.agent.client import AgentClient
from mitos.agent.link import Link
from mitos.agent.stream import LinkLostError
from mitos.engine.base import Engine, EngineError, MachineSpec, Resources, Snapshot
from mitos.host.rootfs import RootFilesystem, RootKind
from mitos.images import guest as guest_files
from mitos.images.catalog import ImageNotFoundError
from mitos.images.image import Image
from mitos.images.store import BuiltImage, ImageBuildError, ImageStore
from mitos.node.launch import Launched, destroy, translate
from mitos.node.settings import NodeSettings
from mitos.node.workload import start_workload
from mitos.wire.errors import ApiError
from mitos.wire.link import KernelEventKind
from mitos.wire.network import NetworkPosture
from mitos.wire.workload import ReadyCheck, Workload

__all__ = ["Progress", "SnapshotStore", "Template", "TemplateRecord"]

Progress = Callable[[str], None]
"""Told each step of long work, as a short line."""

WARM_UP_DEADLINE_S = 60.0
MAX_CAUSE_BYTES = 2000
WARM_LANGUAGES = ("python",)
"""Kernels that are started before the snapshot, where the image has them: the first cell is then
warm.
"""


@dataclass(frozen=True, slots=True)
class TemplateRecord:
    """What the outside may know about a template."""

    id: str
    created_at: datetime
    creation_time_ms: float
    network: NetworkPosture
    resources: Resources
    workload: Workload | None

    def is_made_of(self, resources: Resources, workload: Workload | None) -> bool:
        """True when its snapshot is what these would make."""
        return (self.resources, self.workload) == (resources, workload)


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What is done in a booted machine before it is snapshotted.

    Attributes:
        preload: Python modules that the code kernel imports.
        workload: a program that is started, or None.
    """

    preload: tuple[str, ...]
    workload: Workload | None


@dataclass(frozen=True, slots=True)
class Template:
    """A template that sandboxes can be started from."""

    record: TemplateRecord
    snapshot: Snapshot
    rootfs_key: str
    preload: tuple[str, ...]

    def to_json(self) -> str:
        """What the ledger keeps of it, to offer it again after a restart."""
        record = self.record
        return json.dumps(
            {
                "id": record.id,
                "created_at": record.created_at.isoformat(),
                "creation_time_ms": record.creation_time_ms,
                "network": asdict(record.network),
                "resources": asdict(record.resources),
                "workload": asdict(record.workload) if record.workload else None,
                "rootfs": str(self.snapshot.spec.rootfs.path),
                "rootfs_kind": self.snapshot.spec.rootfs.kind.value,
                "rootfs_key": self.rootfs_key,
                "preload": self.preload,
            }
        )


class SnapshotStore:
    """Makes template snapshots and finds the ones already made.

    Args:
        settings: home and deadlines.
        engine: boots and snapshots.
        images: root filesystems by image name.
    """

    def __init__(self, settings: NodeSettings, engine: Engine, images: ImageStore) -> None:
        self._settings = settings
        self._engine = engine
        self._images = images
        self._directory = settings.home / "snapshots"
        self._locks: dict[str, asyncio.Lock] = {}
        self._guest: Path | None = None

    def prepare(self) -> None:
        """Makes the folder and removes what a crashed build left in it."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for leftover in self._directory.glob("building-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    async def ensure(self, record: TemplateRecord, progress: Progress) -> Template:
        """The template with its snapshot, which is made now if it does not exist.

        Raises:
            ApiError: `not_found` for an unknown image, `build_failed` when a step fails.
        """
        image = self._image(record.id)
        built = await self._built(image, progress)
        warm_up = WarmUp(image.preload, record.workload)
        snapshot = await self._place(built.rootfs, built.key, record.resources, warm_up)
        async with self._locks.setdefault(snapshot.directory.name, asyncio.Lock()):
            if not snapshot.directory.is_dir():
                await self._build(image.name, snapshot, warm_up, progress)
        return Template(record, snapshot, built.key, image.preload)

    async def load(self, body: str) -> Template | None:
        """A template of an earlier server, if this engine and agent can use its snapshot."""
        kept = json.loads(body)
        resources = Resources(**kept["resources"])
        kind = RootKind(kept.get("rootfs_kind", RootKind.FOLDER.value))
        rootfs = RootFilesystem(kind, Path(kept["rootfs"]))
        warm_up = WarmUp(tuple(kept.get("preload", ())), _workload(kept.get("workload")))
        snapshot = await self._place(rootfs, kept["rootfs_key"], resources, warm_up)
        if not snapshot.directory.is_dir() or not rootfs.exists():
            return None
        record = TemplateRecord(
            id=kept["id"],
            created_at=datetime.fromisoformat(kept["created_at"]),
            creation_time_ms=kept["creation_time_ms"],
            network=NetworkPosture.parse(kept["network"]),
            resources=resources,
            workload=warm_up.workload,
        )
        return Template(record, snapshot, kept["rootfs_key"], warm_up.preload)

    async def _place(
        self, rootfs: RootFilesystem, rootfs_key: str, resources: Resources, warm_up: WarmUp
    ) -> Snapshot:
        if self._guest is None:
            home = self._settings.home / "guest"
            self._guest = await asyncio.to_thread(guest_files.materialize, home)
        guest: Path = self._guest
        spec = MachineSpec(rootfs=rootfs, guest=guest, resources=resources)
        key = _snapshot_key(rootfs_key, spec, warm_up, self._engine.snapshot_format)
        return Snapshot(self._directory / key, spec)

    def _image(self, name: str) -> Image:
        try:
            return self._images.catalog.find(name)
        except ImageNotFoundError as exc:
            raise ApiError(
                "not_found",
                f"no image named {name!r}",
                cause=str(exc),
                remediation=f"Use one of: {', '.join(self._images.catalog.names())}.",
                context={"template": name},
            ) from exc

    async def _built(self, image: Image, progress: Progress) -> BuiltImage:
        try:
            return await self._images.ensure(image, progress)
        except ImageBuildError as exc:
            raise _build_failed(image.name, "rootfs", str(exc)) from exc

    async def _build(
        self, name: str, wanted: Snapshot, warm_up: WarmUp, progress: Progress
    ) -> None:
        work = Path(tempfile.mkdtemp(prefix="building-", dir=self._directory))
        try:
            progress(f"{name}: booting")
            directory = work / "snapshot"
            made = await self._snapshot_warm(name, wanted.spec, warm_up, directory, progress)
            made.directory.rename(wanted.directory)
            progress(f"{name}: ready")
        except EngineError as exc:
            raise translate(exc, f"template {name!r} could not be booted and snapshotted") from exc
        except (LinkLostError, TimeoutError) as exc:
            reason = str(exc) or "the machine did not answer in time"
            raise _build_failed(name, "boot", reason) from exc
        finally:
            await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)

    async def _snapshot_warm(
        self,
        name: str,
        spec: MachineSpec,
        warm_up: WarmUp,
        directory: Path,
        progress: Progress,
    ) -> Snapshot:
        machine = await self._engine.boot(spec)
        link = Link(machine.link)
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(destroy, self._engine, Launched(machine, link))
            async with asyncio.timeout(self._settings.boot_deadline_s):
                await link.hello()
            progress(f"{name}: warming up")
            guest = AgentClient(link, _ended_while_warming)
            await _start_kernels(guest, name, warm_up.preload)
            if warm_up.workload is not None:
                progress(f"{name}: starting {warm_up.workload.command[0]}")
                await start_workload(guest, warm_up.workload)
            progress(f"{name}: writing the snapshot")
            async with link.still(self._settings.freeze_deadline_s):
                return await self._engine.checkpoint(machine, directory)
        raise AssertionError("unreachable")


async def _start_kernels(guest: AgentClient, name: str, preload: tuple[str, ...]) -> None:
    """Starts the kernels; an image without one is fine, unless it preloads modules.

    Raises:
        ApiError: `build_failed`: a module cannot be imported.
    """
    for language in WARM_LANGUAGES:
        cell = _preload_cell(preload) if language == "python" else ""
        async with guest.run_code(cell, language=language, timeout_s=WARM_UP_DEADLINE_S) as events:
            async for event in events:
                if preload and event.kind is KernelEventKind.ERROR:
                    cause = event.payload[:MAX_CAUSE_BYTES].decode("utf-8", "replace")
                    raise _build_failed(name, "preload", cause)


def _preload_cell(modules: tuple[str, ...]) -> str:
    """Imports the modules without a name in the user's namespace, and without a result."""
    names = ", ".join(map(repr, modules))
    return f"[__import__('importlib').import_module(name) for name in [{names}]].clear()"


async def _ended_while_warming() -> ApiError:
    return ApiError("build_failed", "the machine ended while it was warmed up")


def _build_failed(name: str, step_kind: str, cause: str) -> ApiError:
    return ApiError(
        "build_failed",
        f"template {name!r} could not be built",
        cause=cause,
        context={"step": 0, "step_kind": step_kind},
    )


def _workload(kept: dict[str, Any] | None) -> Workload | None:
    """What `to_json` wrote of a workload."""
    if kept is None:
        return None
    environment = tuple((name, value) for name, value in kept["environment"])
    ready = ReadyCheck(**kept["ready"]) if kept["ready"] else None
    return Workload(tuple(kept["command"]), environment, ready, kept["wait_s"])


def _snapshot_key(rootfs_key: str, spec: MachineSpec, warm_up: WarmUp, snapshot_format: str) -> str:
    parts = {
        "rootfs": rootfs_key,
        "guest": spec.guest.name,
        "resources": asdict(spec.resources),
        "environment": dict(spec.environment),
        "warm_up": asdict(warm_up),
        "format": snapshot_format,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
