"""What every engine promises of machines that outlive it: leave, adopt, sweep, close."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from dataclasses import replace

import pytest

from mitos.engine.base import MachineEnd
from tests.contract.conftest import Subject
from tests.contract.guest import Client, connected, token_of

pytestmark = pytest.mark.timeout(60)

_PROMPT_S = 10.0
_MANY = 40
"""Orders that wait to be taken are more than sockets have room for."""

_WATCHED_S = 0.5
"""An engine asks a kernel to tell its end; on a busy host that is heard a moment later."""


async def test_a_left_machine_goes_on_under_another_engine(subject: Subject) -> None:
    first = await subject.boot()
    await first.write("/workspace/a", b"1")

    later = await subject.successor(first)
    second = await later.take_over(first)

    assert await second.read("/workspace/a") == b"1"
    assert second.machine.id == first.machine.id
    assert second.machine.spec == subject.spec
    assert not second.machine.is_paused
    assert second.machine.snapshot_format == later.engine.snapshot_format
    assert 0 < (await second.machine.usage()).memory_bytes
    assert await second.machine.stopped() is None


async def test_a_restored_machine_is_adopted_as_well(subject: Subject) -> None:
    first = await subject.boot()
    await first.write("/workspace/a", b"1")
    child = await subject.fork(first)

    later = await subject.successor(child)
    second = await later.take_over(child)

    assert await second.read("/workspace/a") == b"1"


async def test_whoever_left_a_machine_has_nothing_of_it_any_more(subject: Subject) -> None:
    first = await subject.boot()
    link = first.machine.link

    later = await subject.successor(first)

    assert await asyncio.wait_for(link.read(), _PROMPT_S) == b""
    with pytest.raises(ConnectionError):
        await link.write(b"x")
    await later.engine.sweep()


async def test_a_machine_is_adopted_again_and_again(subject: Subject) -> None:
    client = await subject.boot()

    for generation in range(4):
        await client.write(f"/workspace/{generation}", str(generation).encode())
        subject = await subject.successor(client)
        client = await subject.take_over(client)

    for generation in range(4):
        assert await client.read(f"/workspace/{generation}") == str(generation).encode()


async def test_a_link_that_was_left_in_the_middle_of_everything_is_taken_over(
    subject: Subject,
) -> None:
    first = await subject.boot()
    content = os.urandom(8 << 20)
    await first.write("/workspace/big", content)
    calls = [asyncio.ensure_future(first.read("/workspace/big")) for _ in range(3)]
    calls += [asyncio.ensure_future(_written(first, f"/workspace/{n}", content)) for n in range(3)]
    await asyncio.sleep(0.02)

    later = await subject.successor(first)
    second = await later.take_over(first)
    await asyncio.gather(*calls, return_exceptions=True)

    assert await second.read("/workspace/big") == content


async def test_a_paused_machine_stays_paused_until_its_next_engine_resumes_it(
    subject: Subject,
) -> None:
    first = await subject.boot()
    await first.write("/workspace/a", b"1")
    await subject.engine.pause(first.machine)

    later = await subject.successor(first)
    machine = await later.adopt(first)
    assert machine.is_paused
    assert await machine.stopped() is None
    await later.engine.pause(machine)
    again = await later.successor()
    await later.engine.leave(machine)
    second = Client(await again.adopt(first), token_of(first.machine.id))
    subject.exits.push_async_callback(second.link.close)
    reading = asyncio.ensure_future(second.read("/workspace/a"))
    done, _ = await asyncio.wait({reading}, timeout=0.3)
    assert not done
    await again.engine.resume(second.machine)
    await again.engine.resume(second.machine)

    assert await asyncio.wait_for(reading, _PROMPT_S) == b"1"
    assert not second.machine.is_paused


async def test_a_paused_machine_is_adopted_any_number_of_times(subject: Subject) -> None:
    """Servers come and go while it stands still, and it takes no orders meanwhile."""
    first = await subject.boot()
    await first.write("/workspace/a", b"1")
    await subject.engine.pause(first.machine)

    later = await subject.successor(first)
    for _ in range(_MANY):
        machine = await later.adopt(first)
        assert machine.is_paused
        await later.engine.leave(machine)
        later = await later.successor()
    second = await later.take_over(first, resumed=True)

    assert await second.read("/workspace/a") == b"1"


async def test_a_paused_machine_is_forked_by_its_next_engine(subject: Subject) -> None:
    first = await subject.boot()
    await first.write("/workspace/a", b"1")
    async with first.link.frozen(_PROMPT_S):
        await subject.engine.pause(first.machine)

    later = await subject.successor(first)
    machine = await later.adopt(first)
    snapshot = await later.engine.checkpoint(machine, subject.folder())
    blank = await later.engine.prepare(subject.spec)
    child = await later.connect(await later.engine.restore(blank, snapshot))

    assert machine.is_paused
    assert await child.read("/workspace/a") == b"1"


async def test_an_adopted_machine_takes_every_order(subject: Subject) -> None:
    first = await subject.boot()
    await first.write("/workspace/a", b"1")
    later = await subject.successor(first)
    second = await later.take_over(first)

    await later.engine.pause(second.machine)
    await later.engine.resume(second.machine)
    child = await later.fork(second)
    await later.end(second)

    assert await child.read("/workspace/a") == b"1"
    assert await second.machine.wait_end() is MachineEnd.DESTROYED
    await later.end(child)
    assert _traces(subject) == set()


async def test_the_end_of_pid_1_of_an_adopted_machine_is_noticed(subject: Subject) -> None:
    first = await subject.boot()
    later = await subject.successor(first)
    second = await later.take_over(first)
    await asyncio.sleep(_WATCHED_S)

    await second.machine.link.write(b"\xff" * 64)  # forbidden by the link: the agent exits

    assert await asyncio.wait_for(second.machine.wait_end(), _PROMPT_S) is MachineEnd.EXITED


async def test_a_machine_that_ended_while_nobody_followed_it_has_ended(subject: Subject) -> None:
    first = await subject.boot()
    await asyncio.sleep(_WATCHED_S)
    await first.machine.link.write(b"\xff" * 64)
    await asyncio.wait_for(first.machine.wait_end(), _PROMPT_S)

    later = await subject.successor(first)
    end = await later.engine.adopt(first.machine.id, subject.spec)

    assert isinstance(end, MachineEnd)
    await later.engine.sweep()
    assert _traces(subject) == set()


async def test_a_machine_that_nobody_knows_is_lost(subject: Subject) -> None:
    later = await subject.successor()

    for unknown in ("mt-0123456789ab", "never-made"):
        assert await later.engine.adopt(unknown, subject.spec) is MachineEnd.LOST


async def test_a_sweep_removes_all_but_what_was_adopted(subject: Subject) -> None:
    wanted, paused = await subject.boot(), await subject.boot()
    await subject.engine.pause(paused.machine)
    expected = _traces(subject)
    stray = await subject.boot()
    await subject.engine.prepare(subject.spec)
    asleep = await subject.boot()
    await subject.engine.pause(asleep.machine)

    later = await subject.successor(wanted, paused)
    second = await later.take_over(wanted)
    still = await later.adopt(paused)
    mine = await later.boot()
    await later.end(mine)
    await later.engine.sweep()

    for gone in (stray, asleep):
        end = await asyncio.wait_for(gone.machine.wait_end(), _PROMPT_S)
        assert isinstance(end, MachineEnd)
    assert _traces(subject) == expected
    assert await second.exists("/workspace")
    assert still.is_paused


async def test_a_sweep_leaves_alone_what_its_own_engine_made(subject: Subject) -> None:
    """It may come late: a server may serve before it has swept."""
    later = await subject.successor()
    client = await later.boot()
    blank = await later.engine.prepare(subject.spec)
    snapshot = await client.checkpoint(later.engine, subject.folder())

    await later.engine.sweep()
    await later.engine.sweep()

    child = await later.connect(await later.engine.restore(blank, snapshot))
    assert await client.exists("/workspace")
    assert await child.exists("/workspace")


async def test_a_sweep_leaves_alone_what_was_left_again(subject: Subject) -> None:
    """A server may be told to stop before it has swept."""
    first = await subject.boot()
    await first.write("/workspace/a", b"1")
    hasty = await subject.successor(first)
    await hasty.engine.leave(await hasty.adopt(first))

    await hasty.engine.sweep()

    second = await (await hasty.successor()).take_over(first)
    assert await second.read("/workspace/a") == b"1"


async def test_a_blank_that_nobody_used_is_adopted_and_filled(subject: Subject) -> None:
    blanks = [await subject.engine.prepare(subject.spec) for _ in range(2)]

    later = await subject.successor()
    found = await later.engine.adopt_blanks(subject.spec)
    await later.engine.sweep()
    parent = await later.boot()
    await parent.write("/workspace/a", b"1")
    snapshot = await parent.checkpoint(later.engine, subject.folder())

    assert {blank.id for blank in found} == {blank.id for blank in blanks}
    assert await later.engine.adopt_blanks(subject.spec) == []
    for blank in found:
        assert blank.spec == subject.spec
        child = await later.connect(await later.engine.restore(blank, snapshot))
        assert await child.read("/workspace/a") == b"1"


async def test_neither_a_machine_nor_a_blank_of_another_spec_is_adopted_as_a_blank(
    subject: Subject,
) -> None:
    parent = await subject.boot()
    await subject.fork(parent)
    await subject.engine.prepare(subject.spec)
    other = dataclasses.replace(subject.spec, environment={"A": "1"})

    later = await subject.successor()

    assert await later.engine.adopt_blanks(other) == []
    assert len(await later.engine.adopt_blanks(subject.spec)) == 1
    await later.engine.sweep()


async def test_close_ends_the_blanks_that_were_adopted(subject: Subject) -> None:
    await subject.engine.prepare(subject.spec)
    later = await subject.successor()
    await later.engine.adopt_blanks(subject.spec)

    await later.engine.close()

    assert _traces(subject) == set()


async def test_close_ends_all_but_what_was_left(subject: Subject) -> None:
    stays, goes = await subject.boot(), await subject.boot()
    await stays.write("/workspace/a", b"1")
    await subject.engine.prepare(subject.spec)

    later = await subject.successor(stays)
    await subject.engine.close()
    second = await later.take_over(stays)

    assert await goes.machine.wait_end() is MachineEnd.DESTROYED
    assert await second.read("/workspace/a") == b"1"
    assert await later.engine.adopt(goes.machine.id, subject.spec) is MachineEnd.LOST


async def test_close_ends_what_was_adopted(subject: Subject) -> None:
    first = await subject.boot()
    later = await subject.successor(first)
    machine = await later.adopt(first)

    await later.engine.close()

    assert await machine.wait_end() is MachineEnd.DESTROYED
    assert _traces(subject) == set()


async def test_a_start_touches_nothing(subject: Subject) -> None:
    """Whoever finds that it cannot go on, after all, closes again and has done no harm."""
    first = await subject.boot()
    await first.write("/workspace/a", b"1")
    hasty = await subject.successor(first)
    await hasty.engine.close()

    later = await subject.successor()
    second = await later.take_over(first)

    assert await second.read("/workspace/a") == b"1"


async def test_machines_are_adopted_at_the_same_time(subject: Subject) -> None:
    clients = [await subject.boot() for _ in range(4)]
    for number, client in enumerate(clients):
        await client.write("/workspace/number", str(number).encode())

    later = await subject.successor(*clients)
    adopted = await asyncio.gather(*map(later.take_over, clients))

    for number, client in enumerate(adopted):
        assert await client.read("/workspace/number") == str(number).encode()


def _traces(subject: Subject) -> set[str]:
    return set() if subject.leftovers is None else set(subject.leftovers.sandboxes())


async def _written(client: Client, path: str, content: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        await client.write(path, content)


async def test_a_blank_is_adopted_until_it_is_used(subject: Subject) -> None:
    source = await subject.boot()
    await source.write("/workspace/a", b"1")
    snapshot = await source.checkpoint(subject.engine, subject.folder())
    unused, used = [await subject.engine.prepare(subject.spec) for _ in range(2)]
    copy = await subject.engine.restore(used, snapshot)
    later = await subject.successor()
    another = replace(subject.spec, resources=replace(subject.spec.resources, memory_mib=300))

    assert [] == await later.engine.adopt_blanks(another)
    (blank,) = await later.engine.adopt_blanks(subject.spec)
    assert blank.id == unused.id
    assert [] == await later.engine.adopt_blanks(subject.spec)
    await later.engine.sweep()

    async with connected(await later.engine.restore(blank, snapshot), restored=True) as filled:
        assert await filled.read("/workspace/a") == b"1"
    assert await copy.wait_end() is not None
