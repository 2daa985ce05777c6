"""The templates a node offers: made once, kept in the ledger, offered again by the next server."""

from __future__ import annotations

import functools
import logging
import time
from dataclasses import replace
from datetime import datetime, timezone

from mitos.engine.base import Resources
from mitos.node.idempotency import Keyring
from mitos.node.ledger import Ledger
from mitos.node.pool import Pool
from mitos.node.refusal import unknown_template
from mitos.node.template import Progress, SnapshotStore, Template, TemplateRecord
from mitos.wire.network import NetworkPosture
from mitos.wire.workload import Workload

__all__ = ["Templates"]

_log = logging.getLogger(__name__)


class Templates:
    """Templates by id.

    Args:
        snapshots: makes what sandboxes start from.
        ledger: remembers what is offered.
        keys: of requests that may be repeated.
        pool: keeps warm sandboxes of each.
        default_resources: limits of a template that names none.
    """

    def __init__(
        self,
        snapshots: SnapshotStore,
        ledger: Ledger,
        keys: Keyring,
        pool: Pool,
        default_resources: Resources,
    ) -> None:
        self._snapshots = snapshots
        self._ledger = ledger
        self._keys = keys
        self._pool = pool
        self._default_resources = default_resources
        self._templates: dict[str, Template] = {}

    async def load(self) -> None:
        """Offers again what an earlier server offered, where its snapshot can still be used.

        What a build of that server left half made is removed.
        """
        self._snapshots.prepare()
        for body in self._ledger.templates():
            template = await self._snapshots.load(body)
            if template is not None:
                self._templates[template.record.id] = template
                self._pool.add_template(template)

    async def create(
        self,
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
            ApiError: `not_found` for an unknown image, `build_failed`, or the engine's failure.
        """
        async with self._keys.use(idempotency_key, "template") as use:
            if use and use.created and use.created[0] in self._templates:
                return self._templates[use.created[0]].record
            wanted = resources or self._default_resources
            template = self._templates.get(template_id)
            if template is None or not template.record.is_made_of(wanted, workload):
                template = await self._build(template_id, wanted, workload, progress)
            record = replace(template.record, network=network or NetworkPosture())
            offered = replace(template, record=record)
            if self._templates.get(template_id) != offered:
                await self._add(offered)
            if use:
                use.record([template_id])
            return record

    def find(self, template_id: str) -> Template:
        """One template.

        Raises:
            ApiError: `not_found`.
        """
        template = self._templates.get(template_id)
        if template is None:
            raise unknown_template(template_id)
        return template

    def records(self) -> list[TemplateRecord]:
        """Every template, sorted by id."""
        return [self._templates[name].record for name in sorted(self._templates)]

    async def delete(self, template_id: str) -> None:
        """Forgets a template; its sandboxes live on, and its snapshot stays for the next time.

        Raises:
            ApiError: `not_found`.
        """
        self.find(template_id)
        del self._templates[template_id]
        self._ledger.delete_template(template_id)
        await self._pool.remove_template(template_id)

    async def _build(
        self,
        template_id: str,
        resources: Resources,
        workload: Workload | None,
        progress: Progress | None,
    ) -> Template:
        started = time.perf_counter()
        progress = progress or functools.partial(_log.info, "template %s")
        wanted = TemplateRecord(
            id=template_id,
            created_at=datetime.now(timezone.utc),
            creation_time_ms=0.0,
            network=NetworkPosture(),
            resources=resources,
            workload=workload,
        )
        made = await self._snapshots.ensure(wanted, progress)
        took_ms = (time.perf_counter() - started) * 1000
        return replace(made, record=replace(wanted, creation_time_ms=took_ms))

    async def _add(self, template: Template) -> None:
        """Offers the template; warm sandboxes of an older snapshot of the same id are dropped."""
        record = template.record
        old = self._templates.get(record.id)
        if old is not None and old.snapshot != template.snapshot:
            await self._pool.remove_template(record.id)
        self._templates[record.id] = template
        self._ledger.save_template(record.id, template.to_json())
        self._pool.add_template(template)
