from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mitos.host.control_socket import ControlSocket
from tests.host.eventually import descriptors


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, socket.socket]]:
    """A listening socket in a folder whose path is longer than an address may be."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        descriptor = os.open(folder, os.O_PATH)
        listening.bind(f"/proc/self/fd/{descriptor}/socket")
        os.close(descriptor)
        listening.listen()
        listening.settimeout(5)
        yield folder / "socket", listening


async def test_bytes_and_descriptors_arrive(
    server: tuple[Path, socket.socket], tmp_path: Path
) -> None:
    path, listening = server
    connection = await ControlSocket.connect(path)
    peer, _ = listening.accept()
    with (tmp_path / "file").open("w+") as file, peer:
        await connection.send(b"hello", [file.fileno()])
        data, descriptors, _, _ = socket.recv_fds(peer, 100, 4)
        data += b"" if data == b"hello" else peer.recv(100)
        os.write(descriptors[0], b"through the descriptor")
        os.close(descriptors[0])

        assert data == b"hello"
        assert (tmp_path / "file").read_text() == "through the descriptor"
    connection.close()


async def test_a_reply_is_waited_for_and_the_end_is_empty(
    server: tuple[Path, socket.socket],
) -> None:
    path, listening = server
    connection = await ControlSocket.connect(path)
    peer, _ = listening.accept()

    peer.sendall(b"reply")
    assert await asyncio.wait_for(connection.receive(), 5) == b"reply"
    peer.close()
    assert await asyncio.wait_for(connection.receive(), 5) == b""
    connection.close()


async def test_a_big_message_waits_for_a_slow_peer(server: tuple[Path, socket.socket]) -> None:
    path, listening = server
    connection = await ControlSocket.connect(path)
    peer, _ = listening.accept()
    sending = asyncio.ensure_future(connection.send(bytes(8 << 20)))
    await asyncio.sleep(0.02)
    assert not sending.done()

    received = 0
    with peer:
        peer.setblocking(False)
        async with asyncio.timeout(5):
            while received < 8 << 20:
                received += len(await asyncio.get_running_loop().sock_recv(peer, 1 << 20))

        await asyncio.wait_for(sending, 5)
    connection.close()


async def test_nobody_listening_raises_and_leaves_no_descriptor(tmp_path: Path) -> None:
    before = descriptors()

    with pytest.raises(FileNotFoundError):
        await ControlSocket.connect(tmp_path / "socket")

    assert descriptors() - before == set()
