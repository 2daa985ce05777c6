from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mitos.host.pipe import PipeStream, make_pipe
from tests.host.eventually import descriptors


@dataclass
class Peer:
    """The other side: holds both ends of both pipes, as a sandbox does."""

    source: Path
    sink: Path
    out: int
    into: int

    def end(self) -> None:
        for descriptor in (self.out, self.into):
            os.close(descriptor)
        self.out = self.into = -1


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    source, sink = tmp_path / "out", tmp_path / "in"
    made = Peer(source, sink, make_pipe(source), make_pipe(sink))
    os.set_blocking(made.into, False)
    yield made
    if made.out >= 0:
        made.end()


async def test_bytes_go_both_ways(peer: Peer) -> None:
    stream = PipeStream.open(source=peer.source, sink=peer.sink)

    os.write(peer.out, b"from the peer")
    assert await stream.read() == b"from the peer"
    await stream.write(b"to the peer")
    assert os.read(peer.into, 100) == b"to the peer"

    await stream.close()


async def test_a_slow_reader_holds_the_writer_back(peer: Peer) -> None:
    stream = PipeStream.open(source=peer.source, sink=peer.sink)
    sent = os.urandom(5 << 20)
    writing = asyncio.ensure_future(stream.write(sent))
    await asyncio.sleep(0.05)
    assert not writing.done()

    received = bytearray()
    async with asyncio.timeout(10):
        while len(received) < len(sent):
            try:
                received += os.read(peer.into, 1 << 20)
            except BlockingIOError:
                await asyncio.sleep(0.001)

    await writing
    assert received == sent
    await stream.close()


async def test_writers_do_not_mix(peer: Peer) -> None:
    stream = PipeStream.open(source=peer.source, sink=peer.sink)
    block = 2 << 20
    writing = asyncio.gather(*(stream.write(bytes([n]) * block) for n in (1, 2, 3)))

    received = bytearray()
    async with asyncio.timeout(10):
        while len(received) < 3 * block:
            try:
                received += os.read(peer.into, 1 << 20)
            except BlockingIOError:
                await asyncio.sleep(0.001)

    await writing
    assert received == b"".join(bytes([n]) * block for n in (1, 2, 3))
    await stream.close()


async def test_a_read_returns_at_most_256_kib(peer: Peer) -> None:
    stream = PipeStream.open(source=peer.source, sink=peer.sink)
    os.write(peer.out, bytes(1 << 20))

    sizes = [len(await stream.read()) for _ in range(4)]

    assert sizes == [1 << 18] * 4
    await stream.close()


async def test_the_end_of_the_peer_ends_reads_and_fails_writes(peer: Peer) -> None:
    stream = PipeStream.open(source=peer.source, sink=peer.sink)
    reading = asyncio.ensure_future(stream.read())
    await asyncio.sleep(0.01)

    peer.end()

    async with asyncio.timeout(5):
        assert await reading == b""
    with pytest.raises(ConnectionError):
        await stream.write(b"x")
    await stream.close()


async def test_closing_ends_a_pending_read_and_write(peer: Peer) -> None:
    stream = PipeStream.open(source=peer.source, sink=peer.sink)
    reading = asyncio.ensure_future(stream.read())
    writing = asyncio.ensure_future(stream.write(bytes(4 << 20)))
    await asyncio.sleep(0.02)

    await stream.close()
    await stream.close()

    async with asyncio.timeout(5):
        assert await reading == b""
        with pytest.raises(ConnectionError):
            await writing
    assert await stream.read() == b""


async def test_a_peer_that_floods_does_not_starve_other_tasks(peer: Peer) -> None:
    stream = PipeStream.open(source=peer.source, sink=peer.sink)
    os.set_blocking(peer.out, False)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.ensure_future(count())
    for _ in range(50):
        os.write(peer.out, bytes(1000))
        await stream.read()

    assert turns > 40
    counting.cancel()
    await stream.close()


async def test_a_pipe_that_nobody_holds_cannot_be_opened(peer: Peer) -> None:
    peer.end()
    before = descriptors()

    with pytest.raises(OSError, match="No such device or address"):
        PipeStream.open(source=peer.source, sink=peer.sink)

    assert descriptors() - before == set()


async def test_drained_waits_for_what_an_earlier_process_wrote(peer: Peer) -> None:
    earlier = PipeStream.open(source=peer.source, sink=peer.sink)
    await earlier.write(b"left")
    await earlier.close()
    stream = PipeStream.open(source=peer.source, sink=peer.sink)
    waiting = asyncio.ensure_future(stream.drained())
    await asyncio.sleep(0.02)
    assert not waiting.done()

    assert b"left" == os.read(peer.into, 100)

    await waiting
    await stream.close()
    with pytest.raises(ConnectionResetError):
        await stream.drained()
