"""One owner's templates."""

from __future__ import annotations

from mitos.engine.base import Resources
from mitos.node.template.templates import TemplateRecord, Templates
from mitos.node.template.warm_up import Progress
from mitos.wire.network import NetworkPosture
from mitos.wire.workload import Workload

__all__ = ["OwnedTemplates"]


class OwnedTemplates:
    """An owner's templates."""

    def __init__(self, templates: Templates, owner: str) -> None:
        self._templates = templates
        self._owner = owner

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
        return await self._templates.create(
            self._owner,
            template_id,
            network=network,
            resources=resources,
            workload=workload,
            idempotency_key=idempotency_key,
            progress=progress,
        )

    def get(self, template_id: str) -> TemplateRecord:
        """One template.

        Raises:
            ApiError: `not_found`.
        """
        return TemplateRecord.of(self._templates.find(self._owner, template_id).row)

    def records(self) -> list[TemplateRecord]:
        """Every template, sorted by id."""
        return self._templates.records(self._owner)

    async def delete(self, template_id: str) -> None:
        """Forgets a template; its sandboxes live on, and its snapshot stays for the next time.

        Raises:
            ApiError: `not_found`.
        """
        await self._templates.delete(self._owner, template_id)
