"""The socket that the server listens on: one of its own, or the one a service manager holds for it.

A socket of the manager outlives the server: who connects during a restart waits in its queue.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

import click

from mitos.host.service_manager import Given
from mitos.server.http import server as http
from mitos.wire.errors import ApiError

__all__ = ["DEFAULT", "Place", "choose", "is_loopback", "open_socket", "parse", "refuse_open"]

DEFAULT = "127.0.0.1:8080"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server listens.

    Attributes:
        host: an address or a name.
        port: 0 takes a free one.
        given: the service manager's socket there, if it has one.
    """

    host: str
    port: int
    given: socket.socket | None = None


def parse(text: str) -> Place:
    """The place that `--addr` names.

    Raises:
        click.BadParameter: it names none.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65_535:
        raise click.BadParameter("must be HOST:PORT, such as 127.0.0.1:8080", param_hint="--addr")
    return Place(host.strip("[]") or "0.0.0.0", int(port))  # noqa: S104  ":8080": every address


def choose(addr: str | None, given: tuple[Given, ...]) -> Place:
    """Where to listen: at the service manager's socket, at `addr`, or at the default.

    Raises:
        click.BadParameter: `addr` is none, or not where the manager's socket is.
        click.UsageError: the manager gives what a server cannot listen on.
    """
    if not given:
        return parse(addr or DEFAULT)
    if len(given) > 1:
        names = ", ".join(each.name for each in given)
        raise click.UsageError(
            f"the service manager gives {len(given)} sockets ({names}), and a server has one."
            " Leave one ListenStream= in the socket unit."
        )
    found = _place(given[0])
    if addr is not None and not _agrees(parse(addr), found):
        raise click.BadParameter(
            f"{addr} is not where the service manager listens, {found.host}:{found.port}. Leave"
            " --addr out, or change ListenStream= in the socket unit.",
            param_hint="--addr",
        )
    return found


def is_loopback(host: str) -> bool:
    """True when only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def refuse_open(host: str, *, has_key: bool, allow: bool) -> None:
    """Refuses to serve everybody who can reach an address.

    Raises:
        click.UsageError: other machines can, without a key, and nobody said that this is meant.
    """
    if not has_key and not allow and not is_loopback(host):
        raise click.UsageError(
            f"{host} can be reached by other machines, and no key is set: anybody could run"
            " commands here. Give --api-key-file, or say --allow-unauthenticated."
        )


def open_socket(place: Place) -> socket.socket:
    """A bound socket at the place; the caller closes it.

    Raises:
        ApiError: the address is taken, or not ours.
    """
    if place.given is not None:
        http.prepare(place.given)
        return place.given
    try:
        return http.bind(place.host, place.port)
    except OSError as exc:
        raise ApiError(
            "internal",
            f"cannot listen on {place.host}:{place.port}",
            cause=str(exc),
            remediation="Stop what listens there, or choose another address with --addr.",
        ) from exc


def _place(given: Given) -> Place:
    listening = given.socket
    is_fit = (
        listening.family in (socket.AF_INET, socket.AF_INET6)
        and listening.type == socket.SOCK_STREAM
        and listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    )
    if not is_fit:
        raise click.UsageError(
            f"the socket {given.name} of the service manager is not one that listens for TCP."
            " Give it ListenStream=HOST:PORT, and no Accept=yes."
        )
    host, port = listening.getsockname()[:2]
    return Place(host, port, listening)


def _agrees(asked: Place, found: Place) -> bool:
    if asked.port not in (0, found.port):
        return False
    try:
        return ipaddress.ip_address(asked.host) == ipaddress.ip_address(found.host)
    except ValueError:
        return asked.host == "localhost" and is_loopback(found.host)
