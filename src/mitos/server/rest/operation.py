"""What operators and their monitoring read: health, metrics, metering, the node's vitals.

Health names nobody, and the gate asks for no key there. The rest has ids, names and numbers, never
a command, a path or a key. What an engine's sandboxes cannot have (memory in common, files on
disk) it reports as 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from mitos.node.node import RunningNode
from mitos.node.refusal import draining
from mitos.node.state.event import Event, EventKind
from mitos.node.vitals import SandboxUsage
from mitos.server.errors import envelope_response
from mitos.server.rest import metering
from mitos.server.settings import ServerSettings
from mitos.wire.errors import ApiError

__all__ = ["Operations"]

FORK_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""The published buckets, and some for forks that copy much memory."""

COUNT_DEADLINE_S = 2.0


class Operations(Collector):
    """The operators' routes.

    Args:
        node: what is reported on.
        settings: says whether anything is isolated at all.
    """

    def __init__(self, node: RunningNode, settings: ServerSettings) -> None:
        self._node = node
        self._settings = settings
        self._usages: list[SandboxUsage] = []
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._fork_duration = Histogram(
            "mitos_fork_duration_seconds",
            "From the request to a sandbox that answers; each sandbox counts.",
            buckets=FORK_BUCKETS_S,
            registry=self._registry,
        )
        node.events.listen(self._note)

    def routes(self) -> list[Route]:
        """The routes; the gate's table says which are open."""

        def route(path: str, handler: Callable[[], Awaitable[Response]]) -> Route:
            async def serve(_: Request) -> Response:
                return await handler()

            return Route(path, serve, methods=["GET"], name=handler.__name__)

        return [
            route("/v1/health", self.health),
            route("/healthz", self.healthz),
            route("/readyz", self.readyz),
            route("/metrics", self.metrics),
            route("/v1/metering", self.metering),
            route("/v1/vitals/node", self.vitals),
        ]

    async def health(self) -> Response:
        """Says that the server serves, and how much there is."""
        return JSONResponse(
            {
                "status": "ok",
                "mock": self._settings.is_mock,
                "templates": self._node.count_templates(),
                "sandboxes": self._node.count_sandboxes(),
            }
        )

    async def healthz(self) -> Response:
        """Says that the process serves."""
        return PlainTextResponse(self._ok())

    async def readyz(self) -> Response:
        """Says whether sandboxes can be started, from the engine's own look at the machine."""
        if self._node.drain.is_on:
            return envelope_response(draining())
        probe = await self._node.engine.probe()
        if probe.usable:
            return PlainTextResponse(self._ok())
        failed = next(check for check in probe.checks if check.required and not check.passed)
        return envelope_response(
            ApiError(
                "internal",
                f"sandboxes cannot be started: {failed.name}",
                cause=failed.detail,
                remediation=failed.remediation or "Run `mitos doctor` on this machine.",
                status=503,
            )
        )

    async def metrics(self) -> Response:
        """Prometheus text."""
        self._usages = await self._node.usages()
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    def collect(self) -> Iterable[Metric]:
        """The gauges, from the last reading; called by the registry."""
        totals = metering.sum_up(self._usages)
        for name, text, value in (
            ("mitos_active_sandboxes", "Sandboxes there are.", self._node.count_sandboxes()),
            ("mitos_memory_unique_bytes", "Memory of one sandbox only.", totals.unique_bytes),
            ("mitos_memory_shared_bytes", "Memory of several sandboxes.", totals.shared_once_bytes),
            ("mitos_cow_memory_savings_bytes", "What sharing saves.", totals.saved_bytes),
            ("mitos_metered_disk_bytes", "Disk of sandboxes.", totals.disk_bytes),
        ):
            yield GaugeMetricFamily(name, text, value)
        each_one = GaugeMetricFamily(
            "mitos_sandbox_memory_unique_bytes",
            "Memory of one sandbox.",
            labels=["sandbox", "template"],
        )
        for usage in self._usages:
            each_one.add_metric([usage.sandbox_id, usage.template_id], usage.unique_bytes)
        yield each_one

    async def metering(self) -> Response:
        """Who uses how much, in bytes."""
        return JSONResponse(metering.report(await self._node.usages()))

    async def vitals(self) -> Response:
        """Memory (KiB) and processes of each sandbox; one that does not answer is skipped."""
        usages = await self._node.usages()
        counts = await asyncio.gather(*(self._count(usage.uid) for usage in usages))
        rows = [
            _vitals(usage, count)
            for usage, count in zip(usages, counts, strict=True)
            if count is not None
        ]
        return JSONResponse({"sandboxes": rows, "skipped": len(usages) - len(rows)})

    async def _count(self, uid: str) -> int | None:
        """The processes of a sandbox; None when it is paused, ended or too slow."""
        try:
            async with asyncio.timeout(COUNT_DEADLINE_S):
                return await self._node.count_processes(uid)
        except (ApiError, TimeoutError):
            return None

    def _note(self, event: Event) -> None:
        """Counts each sandbox that a create or a fork has made into the histogram."""
        if event.kind is EventKind.CREATED and event.sandbox is not None:
            self._fork_duration.observe(event.sandbox.fork_time_ms / 1000)

    def _ok(self) -> str:
        return f"ok ({'mock' if self._settings.is_mock else self._node.engine.name})\n"


def _vitals(usage: SandboxUsage, process_count: int) -> dict[str, object]:
    used, total = usage.memory_bytes >> 10, usage.memory_limit_bytes >> 10
    return {
        "sandbox_id": usage.sandbox_id,
        "claim": "",
        "pool": usage.template_id,
        "workspace": "",
        "namespace": "",
        "vitals": {
            "steal_fraction": usage.steal_fraction,
            "mem_total_kb": total,
            "mem_available_kb": max(0, total - used),
            "mem_used_kb": used,
            "balloon_reclaimed_kb": usage.balloon_bytes >> 10,
            "process_count": process_count,
        },
    }
