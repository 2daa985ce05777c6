"""The metering report: who uses how much, with memory in common counted once. Pure.

What sandboxes of one template have in common is counted as much as the one that shares most of it.
Member names are the published contract's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from mitos.node.vitals import SandboxUsage

__all__ = ["TemplateUsage", "Totals", "report", "sum_up"]


@dataclass(frozen=True, slots=True)
class TemplateUsage:
    """The sandboxes of one template.

    Attributes:
        count: how many there are.
        shared_once_bytes: memory they have in common, counted once.
    """

    template_id: str
    count: int
    shared_once_bytes: int


@dataclass(frozen=True, slots=True)
class Totals:
    """All sandboxes.

    Attributes:
        templates: by template, in the order of their ids.
        unique_bytes: memory that one sandbox alone uses.
        shared_bytes: memory in common, counted once for each sandbox.
        shared_once_bytes: memory in common, counted once for each template.
        disk_bytes: disk of one sandbox alone.
    """

    templates: tuple[TemplateUsage, ...]
    unique_bytes: int
    shared_bytes: int
    shared_once_bytes: int
    disk_bytes: int

    @property
    def saved_bytes(self) -> int:
        """Memory that would be needed in addition if nothing were in common."""
        return self.shared_bytes - self.shared_once_bytes


def sum_up(usages: Sequence[SandboxUsage]) -> Totals:
    """Adds up what sandboxes use."""
    template_of = attrgetter("template_id")
    templates = []
    for template_id, members in groupby(sorted(usages, key=template_of), key=template_of):
        shared = [usage.shared_bytes for usage in members]
        templates.append(TemplateUsage(template_id, len(shared), max(shared)))
    return Totals(
        templates=tuple(templates),
        unique_bytes=sum(usage.unique_bytes for usage in usages),
        shared_bytes=sum(usage.shared_bytes for usage in usages),
        shared_once_bytes=sum(template.shared_once_bytes for template in templates),
        disk_bytes=sum(usage.disk_bytes for usage in usages),
    )


def report(usages: Sequence[SandboxUsage]) -> dict[str, object]:
    """The body of `/v1/metering`. No disk is in common, so nothing is saved there."""
    totals = sum_up(usages)
    return {
        "Sandboxes": [_sandbox(usage) for usage in usages],
        "Templates": [_template(template) for template in totals.templates],
        "TotalUnique": totals.unique_bytes,
        "UsedCoWAware": totals.unique_bytes + totals.shared_once_bytes,
        "UsedNaive": totals.unique_bytes + totals.shared_bytes,
        "CoWSavings": totals.saved_bytes,
        "DiskTotalUnique": totals.disk_bytes,
        "DiskUsedCoWAware": totals.disk_bytes,
        "DiskUsedNaive": totals.disk_bytes,
        "DiskCoWSavings": 0,
        "TotalGPUSeconds": 0,
    }


def _sandbox(usage: SandboxUsage) -> dict[str, object]:
    return {
        "ID": usage.sandbox_id,
        "Template": usage.template_id,
        "MemoryUnique": usage.unique_bytes,
        "MemoryShared": usage.shared_bytes,
        "DiskUnique": usage.disk_bytes,
        "DiskShared": 0,
        "EgressBytes": 0,
        "GPUCount": 0,
        "GPUSeconds": 0,
    }


def _template(template: TemplateUsage) -> dict[str, object]:
    return {
        "Template": template.template_id,
        "ForkCount": template.count,
        "SharedOnce": template.shared_once_bytes,
        "DiskSharedOnce": 0,
    }
