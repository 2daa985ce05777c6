"""Where a server listens: what was asked for, and what a service manager holds for it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mitos.cli import listener
from mitos.cli.listener import Place
from mitos.host.service_manager import Given
from mitos.wire.errors import ApiError


@pytest.fixture
def given() -> Iterator[Given]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield Given("mitos.socket", listening)


def test_without_a_manager_the_address_is_what_was_asked_for() -> None:
    assert Place("127.0.0.1", 8080) == listener.choose(None, ())
    assert Place("0.0.0.0", 1) == listener.choose(":1", ())
    assert Place("::1", 2) == listener.choose("[::1]:2", ())


@pytest.mark.parametrize("addr", [None, "127.0.0.1:PORT", "localhost:PORT", "127.0.0.1:0"])
def test_the_socket_of_the_manager_is_taken(given: Given, addr: str | None) -> None:
    port = given.socket.getsockname()[1]

    place = listener.choose(addr and addr.replace("PORT", str(port)), (given,))

    assert Place("127.0.0.1", port, given.socket) == place
    with listener.open_socket(place) as opened:
        assert opened is given.socket
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.parametrize("addr", ["127.0.0.1:1", "127.0.0.2:PORT", "box:PORT", "[::1]:PORT"])
def test_another_address_than_the_manager_s_is_refused(given: Given, addr: str) -> None:
    port = str(given.socket.getsockname()[1])

    with pytest.raises(click.BadParameter, match="ListenStream="):
        listener.choose(addr.replace("PORT", port), (given,))


def test_a_server_has_one_socket(given: Given) -> None:
    with pytest.raises(click.UsageError, match="2 sockets"):
        listener.choose(None, (given, given))


def test_a_socket_must_listen_for_tcp(tmp_path: Path) -> None:
    silent = socket.socket()
    datagrams = socket.socket(type=socket.SOCK_DGRAM)
    local = socket.socket(socket.AF_UNIX)
    local.bind(str(tmp_path / "local"))
    local.listen()

    for each in (silent, datagrams, local):
        with each, pytest.raises(click.UsageError, match="TCP"):
            listener.choose(None, (Given("odd", each),))


def test_an_address_in_use_is_explained(given: Given) -> None:
    host, port = given.socket.getsockname()

    with pytest.raises(ApiError, match="cannot listen") as refused:
        listener.open_socket(Place(host, port))

    assert "--addr" in refused.value.remediation
