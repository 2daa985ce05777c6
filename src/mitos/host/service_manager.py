"""What a service manager, such as systemd, and a service of it tell each other.

The manager speaks by variables and inherited descriptors: the sockets it listens on for us
(sd_listen_fds(3)) and how often it wants a sign of life (sd_watchdog_enabled(3)). We answer by
datagrams: that we are ready, are stopping, are alive, how many sandboxes there are (sd_notify(3)).

No library: python-systemd needs libsystemd's headers and a compiler where it is installed, and the
small ones know only the datagrams.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

__all__ = ["ALIVE", "READY", "STOPPING", "Given", "ServiceManager", "is_journal"]

_log = logging.getLogger(__name__)

READY = "READY=1"
STOPPING = "STOPPING=1"
ALIVE = "WATCHDOG=1"

_FIRST_DESCRIPTOR = 3
_SEND_S = 1.0
"""How long a manager that does not read its datagrams may hold us up."""


def is_journal(descriptor: int, environment: Mapping[str, str]) -> bool:
    """True when what is written to the descriptor goes to the journal, without a way round."""
    device, colon, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    if not colon:
        return False
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


@dataclass(frozen=True, slots=True)
class Given:
    """A socket that the manager holds, and goes on to hold when we are gone.

    Attributes:
        name: the manager's name for it; its unit's where nobody chose one.
        socket: ours to close, which closes it for nobody else.
    """

    name: str
    socket: socket.socket


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """The manager of this process; says nothing where there is none.

    Attributes:
        is_present: whether there is one, by what systemd.exec(5) says to all that it starts.
        address: of its datagrams; empty where it wants none.
        watchdog_s: it ends us when there is no sign of life for so long; None: it does not watch.
        given: the sockets that it holds for us.
    """

    is_present: bool = False
    address: str = ""
    watchdog_s: float | None = None
    given: tuple[Given, ...] = ()

    @classmethod
    def take(cls, environment: MutableMapping[str, str], *, pid: int) -> ServiceManager:
        """Reads what the manager has said to this process, once.

        The variables are removed, and the descriptors kept from what we start: both are for us
        alone.

        Args:
            environment: the process's own.
            pid: the process's id. What names another one is left to it.

        Raises:
            OSError: a descriptor that is named is not open, or no socket.
            ValueError: a variable holds no number.
        """
        is_present = "NOTIFY_SOCKET" in environment or "INVOCATION_ID" in environment
        return cls(
            is_present=is_present,
            address=environment.pop("NOTIFY_SOCKET", ""),
            watchdog_s=_watchdog_s(environment, pid),
            given=tuple(_sockets(environment, pid)),
        )

    def notify(self, *states: str) -> None:
        """Tells the manager something, such as `READY=1`.

        Never fails: a service goes on without its manager. What could not be said is logged.
        """
        if not self.address:
            return
        # "@" stands for the null byte of the abstract namespace, see unix(7).
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as client:
                client.settimeout(_SEND_S)
                client.sendto("\n".join(states).encode(), address)
        except OSError as exc:
            _log.warning("the service manager at %s was not told %s: %s", self.address, states, exc)


def _sockets(environment: MutableMapping[str, str], pid: int) -> list[Given]:
    if environment.get("LISTEN_PID") != str(pid):
        return []
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    count = int(environment.pop("LISTEN_FDS", "0"))
    del environment["LISTEN_PID"]
    found = []
    for index in range(count):
        descriptor = _FIRST_DESCRIPTOR + index
        os.set_inheritable(descriptor, False)
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise OSError(f"descriptor {descriptor} of the service manager is no socket")
        name = names[index] if index < len(names) else ""
        found.append(Given(name, socket.socket(fileno=descriptor)))
    return found


def _watchdog_s(environment: MutableMapping[str, str], pid: int) -> float | None:
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    environment.pop("WATCHDOG_PID", None)
    microseconds = int(environment.pop("WATCHDOG_USEC", "0"))
    return microseconds / 1e6 if microseconds > 0 else None
