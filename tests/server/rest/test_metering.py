"""The sums of the metering report, for engines whose sandboxes share memory or have disk."""

from __future__ import annotations

from mitos.node.vitals import SandboxUsage
from mitos.server.rest import metering
from mitos.server.rest.metering import TemplateUsage

ALONE = SandboxUsage("uid-a", "a", "python", memory_bytes=100, memory_limit_bytes=500)
SHARING = (
    SandboxUsage("uid-b", "b", "node", memory_bytes=100, memory_limit_bytes=500, shared_bytes=60),
    SandboxUsage("uid-c", "c", "node", memory_bytes=90, memory_limit_bytes=500, shared_bytes=80),
    SandboxUsage("uid-d", "d", "base", 70, 500, shared_bytes=10, disk_bytes=7),
)


def test_memory_in_common_is_counted_once_for_each_template() -> None:
    totals = metering.sum_up([ALONE, *SHARING])

    assert totals.templates == (
        TemplateUsage("base", 1, 10),
        TemplateUsage("node", 2, 80),
        TemplateUsage("python", 1, 0),
    )
    assert totals.unique_bytes == 100 + 40 + 10 + 60
    assert totals.shared_bytes == 60 + 80 + 10
    assert totals.shared_once_bytes == 80 + 10
    assert totals.saved_bytes == 60
    assert totals.disk_bytes == 7


def test_the_report_adds_up() -> None:
    report = metering.report([ALONE, *SHARING])

    assert report["UsedCoWAware"] == 210 + 90
    assert report["UsedNaive"] == 210 + 150 == sum(u.memory_bytes for u in (ALONE, *SHARING))
    assert report["CoWSavings"] == 60
    assert (report["DiskTotalUnique"], report["DiskCoWSavings"]) == (7, 0)


def test_without_sharing_nothing_is_saved() -> None:
    report = metering.report([ALONE])

    assert report["Sandboxes"] == [
        {
            "ID": "a",
            "Template": "python",
            "MemoryUnique": 100,
            "MemoryShared": 0,
            "DiskUnique": 0,
            "DiskShared": 0,
            "EgressBytes": 0,
            "GPUCount": 0,
            "GPUSeconds": 0,
        }
    ]
    assert report["TotalUnique"] == report["UsedCoWAware"] == report["UsedNaive"] == 100
    assert report["CoWSavings"] == 0


def test_without_sandboxes_all_is_zero() -> None:
    report = metering.report([])

    assert report["Sandboxes"] == report["Templates"] == []
    assert {0} == {value for value in report.values() if isinstance(value, int)}
