"""What operators read: true numbers of real sandboxes, without a key, without anything private."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.server import calling
from tests.server.serving import Server
from tests.server.waiting import until

BIG_MIB = 64


def samples(server: Server) -> dict[str, float]:
    """Every sample of the metrics, named with its labels."""
    text = server.get("/metrics").text
    return {
        sample.name + "".join(f",{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_follow_what_runs(server: Server) -> None:
    before = samples(server)
    sandbox = server.create()
    after = samples(server)

    assert after["mitos_active_sandboxes"] == before["mitos_active_sandboxes"] + 1
    count = "mitos_fork_duration_seconds_count"
    assert after[count] == before[count] + 1
    assert after[f"mitos_sandbox_memory_unique_bytes,{sandbox},python"] > 1 << 20


def test_metering_sees_memory_grow(server: Server, sandbox: str) -> None:
    def used() -> int:
        rows = server.get("/v1/metering").json()["Sandboxes"]
        return int(next(row["MemoryUnique"] for row in rows if row["ID"] == sandbox))

    before = used()
    calling.run(server, sandbox, f"head -c {BIG_MIB}M /dev/urandom > /tmp/big")

    until(lambda: used() > before + (BIG_MIB << 20) * 0.9)


def test_metering_sums_up(server: Server) -> None:
    for _ in range(2):
        server.create()

    report = server.get("/v1/metering").json()

    sizes = [row["MemoryUnique"] for row in report["Sandboxes"]]
    assert report["TotalUnique"] == report["UsedNaive"] == sum(sizes) > 0
    assert [{"Template": "python", "ForkCount": 2, "SharedOnce": 0, "DiskSharedOnce": 0}] == (
        report["Templates"]
    )


def test_vitals_count_processes_and_skip_who_cannot_answer(server: Server, sandbox: str) -> None:
    def row() -> dict[str, int]:
        (only,) = server.get("/v1/vitals/node").json()["sandboxes"]
        assert sandbox == only["sandbox_id"]
        found: dict[str, int] = only["vitals"]
        return found

    before = row()
    calling.run(server, sandbox, "sleep 1000 >/dev/null 2>&1 & sleep 1000 >/dev/null 2>&1 &")
    after = row()
    server.post("/v1/pause", json={"sandbox": sandbox})
    paused = server.get("/v1/vitals/node").json()
    server.post("/v1/resume", json={"sandbox": sandbox})
    server.post(f"/v1/sandboxes/{sandbox}/hibernate", json={})
    asleep = server.get("/v1/vitals/node").json()
    phase = server.get(f"/v1/sandboxes/{sandbox}").json()["phase"]

    assert after["process_count"] >= before["process_count"] + 2
    assert after["mem_used_kb"] + after["mem_available_kb"] == after["mem_total_kb"] == 512 << 10
    assert {"sandboxes": [], "skipped": 1} == paused
    assert (0, "Hibernated") == (len(asleep["sandboxes"]), phase)
