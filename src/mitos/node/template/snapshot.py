"""Template snapshots: made once, found again.

They live in `<home>/snapshots/<key>/`; the key covers all they depend on (`node/recipe.py`), so a
changed part makes a new snapshot and an unchanged one is used again, also by the next server. A
snapshot is written beside its place and moved there when it is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mitos.agent.client import AgentClient
from mitos.agent.link import Link
from mitos.agent.stream import LinkLostError
from mitos.engine.base import Engine, EngineError, Machine, MachineSpec, Resources, Snapshot
from mitos.host import private
from mitos.host.rootfs import RootKind
from mitos.images import erofs, guest
from mitos.images.image import Image
from mitos.images.store import BuiltImage, ImageBuildError, ImageStore
from mitos.node.end import EndReason, reason_of, text_of
from mitos.node.machine.running import RunningMachine, destroy
from mitos.node.recipe import Recipe, WarmUp, layer_key, snapshot_key
from mitos.node.refusal import host_fault, storage_errors, translate
from mitos.node.settings import NodeSettings
from mitos.node.state.persist import TemplateRow
from mitos.node.template.warm_up import Progress, build_failed, run_steps, warm_up
from mitos.wire.errors import ApiError

__all__ = ["SnapshotStore", "TemplateSnapshot"]

END_REASON_DEADLINE_S = 1.0
"""How long a machine whose link broke may take to say why."""


@dataclass(frozen=True, slots=True)
class TemplateSnapshot:
    """A snapshot, and the image it was taken over."""

    snapshot: Snapshot
    image: BuiltImage


class SnapshotStore:
    """Makes template snapshots and finds the ones already made.

    Args:
        settings: home and deadlines.
        engine: boots and snapshots.
        images: makes root filesystems.
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
        private.make_folder(self._directory)
        for leftover in self._directory.glob("building-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    async def ensure(
        self, recipe: Recipe, resources: Resources, progress: Progress
    ) -> TemplateSnapshot:
        """The snapshot of a recipe, which is made now if it does not exist.

        Raises:
            ApiError: `build_failed` when a step fails, or the engine's failure.
        """
        built = await self._built(recipe.base, progress)
        layer = layer_key(built.key, recipe.steps)
        snapshot = await self._place(built, layer, resources, recipe.warm_up)
        async with self._locks.setdefault(snapshot.directory.name, asyncio.Lock()):
            if not _is_whole(snapshot):
                await self._build(recipe, built, snapshot, progress)
        return TemplateSnapshot(snapshot, built)

    async def find(self, row: TemplateRow) -> Snapshot | None:
        """The snapshot of an earlier server's template, if this engine and agent can use it."""
        layer = layer_key(row.rootfs_key, row.steps)
        built = BuiltImage(row.rootfs, row.rootfs_key)
        snapshot = await self._place(built, layer, row.resources, row.warm_up)
        return snapshot if _is_whole(snapshot) and row.rootfs.exists() else None

    async def _place(
        self, built: BuiltImage, layer: str, resources: Resources, wanted: WarmUp
    ) -> Snapshot:
        """Where the snapshot is, or would be, and of which spec."""
        if self._guest is None:
            home = self._settings.home / "guest"
            with storage_errors("the agent's files could not be written"):
                self._guest = await asyncio.to_thread(guest.materialize, home)
        rootfs = built.rootfs
        if self._engine.facts.root_kinds[0] is RootKind.EROFS_IMAGE and erofs.is_available():
            rootfs = self._images.sealed(built, self._guest)
        spec = MachineSpec(rootfs=rootfs, guest=self._guest, resources=resources)
        key = snapshot_key(layer, spec, wanted, self._engine.snapshot_format)
        return Snapshot(self._directory / key, spec)

    async def _built(self, image: Image, progress: Progress) -> BuiltImage:
        try:
            return await self._images.ensure(image, progress)
        except ImageBuildError as exc:
            raise _image_failed(image.name, exc) from exc

    async def _build(
        self, recipe: Recipe, built: BuiltImage, wanted: Snapshot, progress: Progress
    ) -> None:
        name = recipe.base.name
        await self._seal(built, wanted.spec, lambda step: progress(f"{name}: {step}"), name)
        await asyncio.to_thread(shutil.rmtree, wanted.directory, ignore_errors=True)
        what = f"template {name!r} could not be booted and snapshotted"
        with storage_errors(what):
            work = Path(tempfile.mkdtemp(prefix="building-", dir=self._directory))
        try:
            made = await self._make(recipe, wanted.spec, work / "snapshot", progress)
            with storage_errors(what):
                made.directory.rename(wanted.directory)
            progress(f"{name}: ready")
        except EngineError as exc:
            raise translate(exc, what) from exc
        except (LinkLostError, TimeoutError) as exc:
            reason = str(exc) or "the machine did not answer in time"
            raise build_failed(name, "boot", reason) from exc
        finally:
            await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)

    async def _seal(
        self, built: BuiltImage, spec: MachineSpec, progress: Progress, name: str
    ) -> None:
        if spec.rootfs.kind is RootKind.FOLDER:
            return
        try:
            await self._images.seal(built, spec.guest, progress)
        except ImageBuildError as exc:
            raise _image_failed(name, exc) from exc

    async def _make(
        self, recipe: Recipe, spec: MachineSpec, directory: Path, progress: Progress
    ) -> Snapshot:
        name = recipe.base.name
        progress(f"{name}: booting")
        machine = await self._engine.boot(spec)
        link = Link(machine.link, machine)
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(destroy, self._engine, RunningMachine(machine, link))
            async with asyncio.timeout(self._settings.boot_deadline_s):
                await link.hello()
            agent = AgentClient(link, functools.partial(_explain_loss, machine))
            await run_steps(agent, recipe, progress)
            await warm_up(agent, name, recipe.warm_up, progress)
            progress(f"{name}: writing the snapshot")
            async with link.frozen(self._settings.freeze_deadline_s):
                return await self._engine.checkpoint(machine, directory)
        raise AssertionError("unreachable")


def _image_failed(name: str, error: ImageBuildError) -> ApiError:
    """The image's own fault, unless the disk is full or cannot be written."""
    refusal = host_fault(error, f"the image {name!r} could not be built")
    return refusal or build_failed(name, "rootfs", str(error))


def _is_whole(snapshot: Snapshot) -> bool:
    return snapshot.directory.is_dir() and snapshot.spec.rootfs.exists()


async def _explain_loss(machine: Machine) -> ApiError:
    """Why the link to a machine broke while it was made ready."""
    reason = EndReason.UNRESPONSIVE
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_REASON_DEADLINE_S):
            reason = reason_of(await machine.wait_end())
    text = text_of(reason, memory_mib=machine.spec.resources.memory_mib)
    return ApiError(
        "build_failed",
        "the template's machine has ended",
        cause=text.cause,
        remediation=text.remediation,
    )
