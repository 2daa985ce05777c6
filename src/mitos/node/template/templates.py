"""The templates a node offers: made once, kept in the state, offered again by the next server."""

from __future__ import annotations

import functools
import logging
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from mitos.engine.base import Resources, Snapshot
from mitos.node.intake import Intake, Kind
from mitos.node.machine.pool import Pool
from mitos.node.recipe import Recipe
from mitos.node.refusal import unknown_template
from mitos.node.state.idempotency import IdempotencyKeys
from mitos.node.state.persist import TemplateRow
from mitos.node.state.template import TemplateTable
from mitos.node.template.catalog import RecipeCatalog, RecipeNotFoundError
from mitos.node.template.snapshot import SnapshotStore
from mitos.node.template.warm_up import Progress
from mitos.wire.errors import ApiError
from mitos.wire.network import NetworkPosture
from mitos.wire.workload import Workload

__all__ = ["Template", "TemplateRecord", "Templates"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TemplateRecord:
    """What the outside may know about a template."""

    id: str
    created_at: datetime
    creation_time_ms: float
    network: NetworkPosture
    resources: Resources
    workload: Workload | None

    @classmethod
    def of(cls, row: TemplateRow) -> TemplateRecord:
        """What a row says to the outside."""
        return cls(
            id=row.id,
            created_at=row.created_at,
            creation_time_ms=row.creation_time_ms,
            network=row.network,
            resources=row.resources,
            workload=row.warm_up.workload,
        )


@dataclass(frozen=True, slots=True)
class Template:
    """A template that sandboxes can be started from."""

    row: TemplateRow
    snapshot: Snapshot

    def is_made_of(self, resources: Resources, workload: Workload | None) -> bool:
        """True when its snapshot is what these would make."""
        return (self.row.resources, self.row.warm_up.workload) == (resources, workload)


class Templates:
    """Templates by owner and id.

    Args:
        catalog: their recipes.
        snapshots: makes what sandboxes start from.
        table: remembers what is offered.
        keys: of requests that may be repeated.
        pool: keeps warm machines of each.
        intake: whether anything is built.
        default_resources: limits of a template that names none.
    """

    def __init__(
        self,
        catalog: RecipeCatalog,
        snapshots: SnapshotStore,
        table: TemplateTable,
        keys: IdempotencyKeys,
        pool: Pool,
        intake: Intake,
        default_resources: Resources,
    ) -> None:
        self._catalog = catalog
        self._snapshots = snapshots
        self._table = table
        self._keys = keys
        self._pool = pool
        self._intake = intake
        self._default_resources = default_resources
        self._templates: dict[tuple[str, str], Template] = {}

    async def load(self) -> None:
        """Offers again what an earlier server offered, where its snapshot can still be used.

        What a build of that server left half made is removed.

        Raises:
            ApiError: the state cannot be read.
        """
        self._snapshots.prepare()
        for row in self._table.all():
            snapshot = await self._snapshots.find(row)
            if snapshot is not None:
                self._templates[row.owner, row.id] = Template(row, snapshot)
                self._pool.keep_warm(snapshot)
            self._table.tell(row, is_offered=snapshot is not None)

    async def create(
        self,
        owner: str,
        template_id: str,
        *,
        network: NetworkPosture | None = None,
        resources: Resources | None = None,
        workload: Workload | None = None,
        idempotency_key: str | None = None,
        progress: Progress | None = None,
    ) -> TemplateRecord:
        """Makes a template ready to start sandboxes from; the last one who asks says how it is.

        Raises:
            ApiError: `not_found` for an unknown image, `build_failed`, the engine's failure, or the
                node is drained and would have to build it.
        """
        async with self._keys.use(owner, idempotency_key, "template") as use:
            if use and use.created and (made := self._templates.get((owner, use.created[0]))):
                return TemplateRecord.of(made.row)
            wanted = resources or self._default_resources
            template = self._templates.get((owner, template_id))
            if template is None or not template.is_made_of(wanted, workload):
                with self._intake.taking(Kind.TEMPLATE, [template_id]):
                    template = await self._build(owner, template_id, wanted, workload, progress)
            row = replace(template.row, network=network or NetworkPosture())
            offered = replace(template, row=row)
            old = self._templates.get((owner, template_id))
            if old != offered or use:
                self._table.save(row, use)
            if old != offered:
                await self._offer(offered, old)
            return TemplateRecord.of(row)

    def find(self, owner: str, template_id: str) -> Template:
        """One template.

        Raises:
            ApiError: `not_found`.
        """
        template = self._templates.get((owner, template_id))
        if template is None:
            raise unknown_template(template_id)
        return template

    def records(self, owner: str) -> list[TemplateRecord]:
        """Every template of an owner, sorted by id."""
        names = sorted(name for name in self._templates if name[0] == owner)
        return [TemplateRecord.of(self._templates[name].row) for name in names]

    def count(self) -> int:
        """How many there are, of all owners."""
        return len(self._templates)

    async def delete(self, owner: str, template_id: str) -> None:
        """Forgets a template; its sandboxes live on, and its snapshot stays for the next time.

        Raises:
            ApiError: `not_found`, or the state cannot be written.
        """
        template = self.find(owner, template_id)
        self._table.delete(template.row)
        del self._templates[owner, template_id]
        await self._pool.release_warm(template.snapshot)

    async def _build(
        self,
        owner: str,
        template_id: str,
        resources: Resources,
        workload: Workload | None,
        progress: Progress | None,
    ) -> Template:
        started = time.perf_counter()
        created_at = datetime.now(timezone.utc)
        recipe = self._recipe(template_id)
        recipe = replace(recipe, warm_up=replace(recipe.warm_up, workload=workload))
        progress = progress or functools.partial(_log.info, "template %s")
        made = await self._snapshots.ensure(recipe, resources, progress)
        row = TemplateRow(
            owner=owner,
            id=template_id,
            created_at=created_at,
            creation_time_ms=(time.perf_counter() - started) * 1000,
            network=NetworkPosture(),
            resources=resources,
            rootfs=made.image.rootfs,
            rootfs_key=made.image.key,
            steps=recipe.steps,
            warm_up=recipe.warm_up,
        )
        return Template(row, made.snapshot)

    def _recipe(self, name: str) -> Recipe:
        try:
            return self._catalog.find(name)
        except RecipeNotFoundError as exc:
            raise ApiError(
                "not_found",
                f"no image named {name!r}",
                cause=str(exc),
                remediation=f"Use one of: {', '.join(self._catalog.names())}.",
                context={"template": name},
            ) from exc

    async def _offer(self, template: Template, old: Template | None) -> None:
        """Offers the template in the place of an older one of the same id."""
        self._templates[template.row.owner, template.row.id] = template
        if old is not None and old.snapshot == template.snapshot:
            return
        self._pool.keep_warm(template.snapshot)
        if old is not None:
            await self._pool.release_warm(old.snapshot)
