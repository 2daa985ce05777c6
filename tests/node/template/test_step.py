"""Build steps: run in order before the snapshot, keyed, and told when they fail."""

from __future__ import annotations

import asyncio

import pytest

from mitos.engine.base import MachineEnd
from mitos.engine.fake import FakeEngine
from mitos.node.template.catalog import CONFIGURATION_NAME
from mitos.wire.errors import ApiError
from tests.node.conftest import Node, output


def configure(node: Node, *steps: str) -> None:
    """Gives the template `python` these build steps."""
    rootfs = node.settings.home.parent / "small-rootfs"
    commands = ", ".join(f"'{step}'" for step in steps)
    (node.settings.home / CONFIGURATION_NAME).write_text(
        f'[templates.python]\nrootfs = "{rootfs}"\nrun = [{commands}]\n'
    )


async def test_steps_run_in_order_in_every_sandboxs_past(node: Node) -> None:
    await node.templates.delete("python")
    configure(node, "echo one > /made", "echo two >> /made")

    await node.templates.create("python")
    await node.create("python", "a")

    assert "one\ntwo\n" == await output(node, "a", "cat /made")


async def test_a_changed_step_makes_another_snapshot(node: Node) -> None:
    snapshots = node.settings.home / "snapshots"
    for steps in (("true",), ("true", "true"), ("true",)):
        await node.templates.delete("python")
        configure(node, *steps)
        await node.templates.create("python")

    assert 3 == len(list(snapshots.iterdir()))  # and the one without steps


async def test_a_step_that_fails_is_named_with_what_it_said(node: Node, engine: FakeEngine) -> None:
    await node.templates.delete("python")
    configure(node, "true", "echo all of it; exit 3", "true")

    with pytest.raises(ApiError) as caught:
        await node.templates.create("python")

    error = caught.value
    assert ("build_failed", {"step": 2, "step_kind": "run"}) == (error.code, error.context)
    assert "exit code 3" in error.cause
    assert "all of it" in error.cause
    assert {} == engine.machines
    assert [] == node.templates.records()


async def test_a_machine_that_ends_in_a_step_is_told_with_its_reason(
    node: Node, engine: FakeEngine
) -> None:
    await node.templates.delete("python")
    configure(node, "true", "sleep 60")
    begun = asyncio.Event()

    def progress(line: str) -> None:
        if "step 2 of 2" in line:
            begun.set()

    making = asyncio.create_task(node.templates.create("python", progress=progress))
    await begun.wait()
    (machine,) = engine.machines.values()

    await machine.stop(MachineEnd.OUT_OF_MEMORY)
    with pytest.raises(ApiError) as caught:
        await making

    error = caught.value
    assert ("build_failed", {"step": 2, "step_kind": "run"}) == (error.code, error.context)
    assert "memory limit of" in error.cause
    assert "mem_size_mib" in error.remediation
    assert {} == engine.machines
