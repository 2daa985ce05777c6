"""A node over the fake engine: everything but the machines is real."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import pytest

from mitos.agent.command import ExecRequest
from mitos.engine.fake import FakeEngine
from mitos.node.node import Node as StoppedNode
from mitos.node.node import RunningNode
from mitos.node.principal import LOCAL
from mitos.node.settings import NodeSettings
from mitos.node.template.catalog import CONFIGURATION_NAME
from mitos.node.tenant import Tenant
from tests.node.clock import ManualClock


class Node(Tenant):
    """A running node as its only owner sees it."""

    def __init__(self, running: RunningNode) -> None:
        super().__init__(running._parts, LOCAL)
        self.running = running

    async def close(self) -> None:
        await self.running.close()


class StartNode(Protocol):
    """Starts a node; it is closed after the test."""

    async def __call__(self, **settings: object) -> Node: ...


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def start_node(
    tmp_path: Path, engine: FakeEngine, clock: ManualClock
) -> AsyncIterator[StartNode]:
    rootfs = tmp_path / "small-rootfs"
    (rootfs / "etc").mkdir(parents=True)
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    lines = (f'[templates.{name}]\nrootfs = "{rootfs}"\n' for name in ("python", "base"))
    (home / CONFIGURATION_NAME).write_text("".join(lines))
    async with AsyncExitStack() as stack:

        async def start(**settings: object) -> Node:
            wanted = {"warm_per_template": 0, "blanks_per_spec": 0, **settings}
            node_settings = NodeSettings(home=home, scratch=tmp_path / "scratch", **wanted)  # type: ignore[arg-type]
            running = await StoppedNode(node_settings, engine, clock).start()
            stack.push_async_callback(running.close)
            return Node(running)

        yield start


@pytest.fixture
async def node(start_node: StartNode) -> Node:
    """A node with the template `python`."""
    started = await start_node()
    await started.templates.create("python")
    return started


async def output(node: Node, sandbox_id: str, command: str) -> str:
    """What a command prints."""
    with node.stream(sandbox_id) as guest:
        request = ExecRequest(["/bin/sh", "-c", command], timeout_s=10)
        async with guest.exec(request) as running:
            return b"".join([piece.data async for piece in running]).decode()
