"""Two principals of one node: neither sees, names, replays or squats what is the other's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mitos.engine.fake import FakeEngine
from mitos.node.principal import Principal
from mitos.node.tenant import Tenant
from mitos.wire.errors import ApiError
from mitos.wire.network import NetworkPosture
from tests.node.conftest import Node, StartNode

THEIRS = Principal("theirs")


@pytest.fixture
async def theirs(node: Node) -> Tenant:
    """Another owner of the node, with a template and a family of sandboxes."""
    tenant = node.running.tenant(THEIRS)
    await tenant.templates.create("base")
    await tenant.create("base", "secret", idempotency_key="key")
    await tenant.fork("secret", ["secret-child"])
    await tenant.checkpoint("secret", "kept")
    return tenant


NAMING: dict[str, Callable[[Tenant], Awaitable[object] | object]] = {
    "get": lambda tenant: tenant.get_sandbox("secret"),
    "terminate": lambda tenant: tenant.terminate("secret"),
    "terminate its tree": lambda tenant: tenant.terminate("secret", subtree=True),
    "set its timeout": lambda tenant: tenant.set_timeout("secret", 60),
    "pause": lambda tenant: tenant.pause("secret"),
    "resume": lambda tenant: tenant.resume("secret"),
    "hibernate": lambda tenant: tenant.hibernate("secret"),
    "fork": lambda tenant: tenant.fork("secret", ["mine"]),
    "fork some": lambda tenant: tenant.fork_some("secret", ["mine"]),
    "checkpoint": lambda tenant: tenant.checkpoint("secret"),
    "list its checkpoints": lambda tenant: tenant.list_checkpoints("secret"),
    "restore": lambda tenant: tenant.restore("secret", "cp-0"),
    "family": lambda tenant: tenant.family("secret"),
    "promote": lambda tenant: tenant.promote("secret-child"),
    "diff": lambda tenant: tenant.diff("secret", "secret-child"),
    "agent": lambda tenant: tenant.agent("secret"),
    "stream": lambda tenant: tenant.stream("secret").__enter__(),
    "vitals": lambda tenant: tenant.vitals("secret", 1),
    "template": lambda tenant: tenant.templates.get("base"),
    "create from its template": lambda tenant: tenant.create("base", "mine"),
    "delete its template": lambda tenant: tenant.templates.delete("base"),
}


@pytest.mark.parametrize("name", NAMING)
async def test_naming_what_is_theirs_finds_nothing(node: Node, theirs: Tenant, name: str) -> None:
    async def name_it() -> None:
        result = NAMING[name](node)
        if asyncio.iscoroutine(result):
            await result

    with pytest.raises(ApiError) as caught:
        await name_it()

    assert ("not_found", 404) == (caught.value.code, caught.value.status)
    assert ["secret", "secret-child"] == [record.id for record in theirs.list_sandboxes()]
    assert ["base"] == [record.id for record in theirs.templates.records()]
    assert 1 == len(theirs.list_checkpoints("secret"))


async def test_listings_show_only_ones_own(node: Node, theirs: Tenant) -> None:
    await node.create("python", "mine")

    assert ["mine"] == [record.id for record in node.list_sandboxes()]
    assert ["python"] == [record.id for record in node.templates.records()]
    assert ["secret", "secret-child"] == [record.id for record in theirs.list_sandboxes()]


async def test_an_id_of_theirs_is_free(node: Node, theirs: Tenant) -> None:
    mine = await node.create("python", "secret")

    assert mine.uid != theirs.get_sandbox("secret").uid
    await node.terminate("secret")
    assert "secret" in [record.id for record in theirs.list_sandboxes()]
    await theirs.terminate("secret")
    with pytest.raises(ApiError) as caught:
        theirs.agent("secret")
    assert "has ended" in caught.value.message


async def test_a_key_of_theirs_does_not_replay(node: Node, theirs: Tenant) -> None:
    mine = await node.create("python", "mine", idempotency_key="key")

    assert "mine" == mine.id
    again = await theirs.create("base", "other", idempotency_key="key")
    assert "secret" == again.id


async def test_a_key_that_they_hold_is_not_waited_for(node: Node, engine: FakeEngine) -> None:
    theirs = node.running.tenant(THEIRS)
    await theirs.templates.create("python")
    hold = engine.hold_next("restore")
    creating = asyncio.create_task(theirs.create("python", "x", idempotency_key="key"))
    await hold.reached.wait()

    mine = await asyncio.wait_for(node.create("python", "y", idempotency_key="key"), 5)

    assert "y" == mine.id
    hold.let_go.set()
    await creating


async def test_a_template_of_the_same_name_is_another_one(node: Node, theirs: Tenant) -> None:
    await theirs.templates.create("python", network=NetworkPosture(egress="allow"))

    mine = await node.create("python", "mine")

    assert "deny" == mine.network.egress
    assert "deny" == node.templates.get("python").network.egress
    await theirs.templates.delete("python")
    await node.create("python", "another")


async def test_quotas_are_the_owners_own(start_node: StartNode) -> None:
    node = await start_node(max_sandboxes=2, max_checkpoint_bytes=5000)
    theirs = node.running.tenant(THEIRS)
    for tenant in (node, theirs):
        await tenant.templates.create("python")
        await tenant.create("python", "a")
        await tenant.create("python", "b")
        with pytest.raises(ApiError) as caught:
            await tenant.create("python", "c")
        assert "quota_exceeded" == caught.value.code
        await tenant.checkpoint("a")
        with pytest.raises(ApiError) as caught:
            await tenant.checkpoint("a")
        assert "quota_exceeded" == caught.value.code


async def test_a_fork_from_inside_is_the_owners(node: Node, theirs: Tenant) -> None:
    source = node._parts.registry.find(THEIRS.owner, "secret")

    await node._parts.creation.fork_from_inside(source, ["made-inside"])

    assert "made-inside" in [record.id for record in theirs.list_sandboxes()]
    assert [] == node.list_sandboxes()


async def test_both_live_on_at_the_next_server(
    node: Node, theirs: Tenant, start_node: StartNode
) -> None:
    await node.create("python", "secret")
    await node.hibernate("secret")
    await theirs.hibernate("secret")
    uids = node.get_sandbox("secret").uid, theirs.get_sandbox("secret").uid
    await node.close()

    later = await start_node()

    found = [later.running.tenant(p).get_sandbox("secret").uid for p in (node.principal, THEIRS)]
    assert list(uids) == found
