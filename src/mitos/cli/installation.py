"""Puts a server's units into systemd, asks how they are, and takes them out again.

`unit` has the texts, `host.systemd` the commands; `service` reads the command line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx

from mitos.cli import unit
from mitos.cli.unit import SERVICE, SOCKET, Service
from mitos.host import private, systemd
from mitos.host.systemd import SystemdError
from mitos.wire.errors import ApiError

__all__ = ["Report", "count_sandboxes", "find", "install", "remove", "report", "start"]

_ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class Report:
    """How a service is.

    Attributes:
        service: systemd's word, such as `active (running)`.
        socket: likewise.
        starts_with_machine: whether systemd starts it by itself.
        pid: of the server; 0: it does not run.
        restarts: how often systemd has started it again by itself.
        told: what the server said of itself last.
        url: where this machine reaches it.
        health: what `/v1/health` answered, or why nothing did.
        sandboxes: how many live; None: the server did not answer.
    """

    service: str
    socket: str
    starts_with_machine: bool
    pid: int
    restarts: int
    told: str
    url: str
    health: str
    sandboxes: int | None


def find() -> Service | None:
    """The service that is installed here; None when there is none.

    Raises:
        ApiError: its units are somebody else's, or were changed.
    """
    _refuse_others()
    path = systemd.UNITS / SERVICE
    try:
        return unit.read(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as exc:
        raise ApiError(
            "invalid_input",
            f"{path} cannot be read",
            cause=str(exc),
            remediation="Install it again. Changes belong into a drop-in: systemctl edit mitos",
        ) from exc


async def install(service: Service, *, now: bool, say: Callable[[str], None]) -> None:
    """Writes the units, has them started with the machine, and at once if `now`. Idempotent.

    Sandboxes of the service that is there already go on.

    Raises:
        ApiError: units of this name are somebody else's, or systemd could not start them.
    """
    _refuse_others()
    texts = {SERVICE: unit.service_text(service), SOCKET: unit.socket_text(service)}
    with _explained("the service could not be installed"):
        private.make_folder(service.home)
        changed = {
            name for name, text in texts.items() if systemd.write(systemd.UNITS / name, text)
        }
        for name in sorted(changed):
            say(f"wrote {systemd.UNITS / name}")
        await systemd.systemctl("daemon-reload")
        await systemd.systemctl("enable", "--quiet", SERVICE, SOCKET)
    if not now:
        return
    with _explained("the service could not be started"):
        if SOCKET in changed:  # systemd opens no socket below a server that runs
            await systemd.systemctl("stop", SOCKET, SERVICE)
        elif changed:
            await systemd.systemctl("restart", SERVICE)
    await start()
    say(f"serving at {service.url}")


async def start() -> None:
    """Starts the service; returns when it serves. Idempotent.

    Raises:
        ApiError: it could not be started.
    """
    with _explained("the service could not be started"):
        await systemd.systemctl("start", SOCKET, SERVICE)


async def report(service: Service) -> Report:
    """Says how the service is.

    Raises:
        ApiError: systemd does not answer.
    """
    names = ("ActiveState", "SubState", "UnitFileState", "MainPID", "NRestarts", "StatusText")
    with _explained("systemd cannot be asked"):
        server = await systemd.show(SERVICE, *names)
        socket = await systemd.show(SOCKET, *names)
    sandboxes, health = await _ask(service)
    return Report(
        service=f"{server['ActiveState']} ({server['SubState']})",
        socket=f"{socket['ActiveState']} ({socket['SubState']})",
        starts_with_machine=server["UnitFileState"] == socket["UnitFileState"] == "enabled",
        pid=int(server["MainPID"]),
        restarts=int(server["NRestarts"]),
        told=server["StatusText"],
        url=service.url,
        health=health,
        sandboxes=sandboxes,
    )


async def count_sandboxes(service: Service) -> int:
    """How many sandboxes live, by the server's own word.

    Raises:
        ApiError: it does not answer.
    """
    count, health = await _ask(service)
    if count is None:
        raise ApiError("internal", f"the server at {service.url} does not answer", cause=health)
    return count


async def remove() -> None:
    """Stops the service and removes its units; what else is in its home stays. Idempotent.

    Raises:
        ApiError: systemd did not stop it, or the units cannot be removed.
    """
    with _explained("the service could not be removed"):
        files = [systemd.UNITS / name for name in (SOCKET, SERVICE)]
        there = [path.name for path in files if path.exists()]
        if there:
            # The socket first: a client that connects would start the server again.
            await systemd.systemctl("stop", *there)
            await systemd.systemctl("disable", "--quiet", *there)
        for path in files:
            path.unlink(missing_ok=True)
        await systemd.systemctl("daemon-reload")
        for name in there:
            # What is not known any more has no failure to forget.
            with contextlib.suppress(SystemdError):
                await systemd.systemctl("reset-failed", name)


async def _ask(service: Service) -> tuple[int | None, str]:
    """How many sandboxes there are, and what the server answered or why it did not."""
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=_ANSWER_S) as client:
            answer = await client.get(f"{service.url}/v1/health")
        answer.raise_for_status()
        body = answer.json()
        return int(body["sandboxes"]), str(body["status"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as exc:
        return None, f"no answer: {exc or type(exc).__name__}"


def _refuse_others() -> None:
    for name in (SERVICE, SOCKET):
        path = systemd.UNITS / name
        if path.exists() and not unit.is_ours(path.read_text(errors="replace")):
            raise ApiError(
                "invalid_input",
                f"{path} is not ours",
                cause="`mitos service install` did not write it",
                remediation="Move it away, or go on with it by hand.",
            )


@contextlib.contextmanager
def _explained(message: str) -> Iterator[None]:
    try:
        yield
    except (SystemdError, OSError) as exc:
        raise ApiError(
            "internal",
            message,
            cause=str(exc),
            remediation=f"Look at what it said: journalctl -e -u {SERVICE} -u {SOCKET}",
        ) from exc
