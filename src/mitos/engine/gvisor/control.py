"""Orders to a running sandbox, and the way to give them over its control socket.

The socket is private to a runsc release, so `version` lists the releases for which this protocol
was tested; `command` gives the same orders over the command line. One connection per order:

    -> {"method": "containerManager.Pause", "arg": …}   descriptors travel with the first byte
    <- {"success": bool, "err": str, "result": …}

A reply may come from a sandbox that its guest has taken over: it is bounded and checked.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import ipaddress
import json
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mitos.engine.base import EngineError, EngineFault
from mitos.engine.gvisor import image
from mitos.host import disk
from mitos.host.control_socket import ControlSocket

__all__ = ["Control", "SocketControl", "Target", "is_exit", "order_failed"]

_REPLY_LIMIT_BYTES = 1 << 20
_REASON_LIMIT = 300
_SIGNAL_OF_STATUS = 0x7F
# Room for the kernel's objects: half a MiB for an idle sandbox, more with many files and processes.
_STATE_RESERVE_BYTES = 4 << 20
_PAGES_RESERVE_BYTES = 4 << 20


def _loopback() -> dict[str, object]:
    """The interface `lo` and its routes, as Go writes addresses and masks in JSON."""
    addresses, routes = [], []
    for text in ("127.0.0.1/8", "::1/128"):
        interface = ipaddress.ip_interface(text)
        block = interface.network
        mask = base64.b64encode(block.netmask.packed).decode()
        addresses.append({"Address": str(interface.ip), "PrefixLen": block.prefixlen})
        routes.append({"Destination": {"IP": str(block.network_address), "Mask": mask}})
    return {"Name": "lo", "Addresses": addresses, "Routes": routes}


_LOOPBACK_ONLY = {"LoopbackLinks": [_loopback()]}


@dataclass(frozen=True, slots=True)
class Target:
    """The sandbox an order goes to.

    Attributes:
        id: its id.
        bundle: the folder with its configuration.
        socket: its control socket.
        timeout_s: deadline of an order, with the time its memory takes to move included.
    """

    id: str
    bundle: Path
    socket: Path
    timeout_s: float


class Control(Protocol):
    """Gives orders to sandboxes. Every method raises `EngineError` when the order fails."""

    async def start(self, target: Target) -> None:
        """Starts PID 1 of a created sandbox."""
        ...

    async def restore(self, target: Target, directory: Path) -> None:
        """Fills a created sandbox from the snapshot files in a folder."""
        ...

    async def checkpoint(self, target: Target, directory: Path) -> None:
        """Writes snapshot files into an empty folder; the sandbox goes on as it was."""
        ...

    async def pause(self, target: Target) -> None:
        """Stops every process. Not idempotent: pauses count."""
        ...

    async def resume(self, target: Target) -> None:
        """Undoes one `pause`. Without one before it, it ends the sandbox."""
        ...

    async def watch_exit(self, target: Target) -> ControlSocket | None:
        """Asks to be told when PID 1 ends: the connection then gets a reply. None if it cannot."""
        ...


def order_failed(order: str, target: Target, reason: str) -> EngineError:
    """Makes the error of an order that failed, with the fault that its reason shows."""
    first_line = reason.strip().partition("\n")[0][:_REASON_LIMIT]
    message = f"{order} of sandbox {target.id} failed: {first_line or 'no reason given'}"
    full = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
    if any(text.lower() in reason.lower() for text in full):
        return EngineError(
            message,
            fault=EngineFault.NO_SPACE,
            remediation="Free space where snapshots are kept, or end sandboxes.",
        )
    return EngineError(message)


def is_exit(reply: bytes) -> bool:
    """Reads what `watch_exit` was told: True when PID 1 ended by itself.

    Nothing inside can kill PID 1. Where it ended by SIGKILL, the sandbox gave up, for example
    because it lost its gofer.
    """
    try:
        told = json.loads(reply)
    except (ValueError, RecursionError):
        return False
    if not isinstance(told, dict) or told.get("success") is not True:
        return False
    status = told.get("result")
    return isinstance(status, int) and status & _SIGNAL_OF_STATUS != signal.SIGKILL


class SocketControl:
    """Gives orders over the control socket, a few hundred microseconds each beside the work."""

    async def start(self, target: Target) -> None:
        """Starts PID 1 of a created sandbox."""
        await _order(target, "Network.CreateLinksAndRoutes", _LOOPBACK_ONLY)
        await _order(target, "containerManager.StartRoot", target.id)

    async def restore(self, target: Target, directory: Path) -> None:
        """Fills a created sandbox from the snapshot files in a folder."""
        argument = {"HavePagesFile": True, "HaveDeviceFile": False}
        # The network is the one thing that is not in a snapshot: the blank's own goes on.
        await _order(target, "Network.CreateLinksAndRoutes", _LOOPBACK_ONLY)
        try:
            with image.open_files(directory) as descriptors:
                await _order(target, "containerManager.Restore", argument, descriptors)
        except OSError as exc:
            raise order_failed("restore", target, str(exc)) from exc

    async def checkpoint(self, target: Target, directory: Path) -> None:
        """Writes snapshot files into an empty folder; the sandbox goes on as it was.

        The space is taken beforehand. A full disk is then noticed before the sandbox is stopped,
        and on tmpfs the memory counts as ours: counted as the sandbox's, it could get it killed at
        its limit.
        """
        argument = {
            "metadata": {"compression": "none"},
            "MemoryFileSaveOpts": {},
            "have_pages_file": True,
            "Resume": True,
        }
        usage = await _order(target, "Usage.Collect", {"Full": True})
        try:
            with image.create_files(directory) as descriptors:
                await asyncio.to_thread(_reserve, descriptors, _memory_of(usage))
                await _order(target, "containerManager.Checkpoint", argument, descriptors)
                for descriptor in descriptors:
                    disk.release(descriptor)
        except OSError as exc:
            raise order_failed("checkpoint", target, str(exc)) from exc

    async def pause(self, target: Target) -> None:
        """Stops every process."""
        await _order(target, "containerManager.Pause", None)

    async def resume(self, target: Target) -> None:
        """Undoes one `pause`."""
        await _order(target, "containerManager.Resume", None)

    async def watch_exit(self, target: Target) -> ControlSocket | None:
        """Asks to be told when PID 1 ends: the connection then gets a reply."""
        try:
            async with asyncio.timeout(target.timeout_s):
                connection = await ControlSocket.connect(target.socket)
                try:
                    await connection.send(_encode("containerManager.Wait", target.id))
                except BaseException:
                    connection.close()
                    raise
        except OSError as exc:
            # A sandbox that ended already has nothing to tell; its watch says so.
            raise order_failed("watch", target, str(exc)) from exc
        return connection


async def _order(
    target: Target, method: str, argument: object, descriptors: Sequence[int] = ()
) -> object:
    name = method.rpartition(".")[2].lower()
    try:
        async with asyncio.timeout(target.timeout_s):
            connection = await ControlSocket.connect(target.socket)
            with contextlib.closing(connection):
                await connection.send(_encode(method, argument), descriptors)
                reply = await _receive(connection)
    except TimeoutError:
        raise EngineError(
            f"{name} of sandbox {target.id} did not finish within {target.timeout_s:g} s",
            fault=EngineFault.TIMED_OUT,
        ) from None
    except (OSError, ValueError) as exc:
        raise order_failed(name, target, str(exc)) from exc
    if reply.get("success") is not True:
        raise order_failed(name, target, str(reply.get("err", "")))
    return reply.get("result")


def _encode(method: str, argument: object) -> bytes:
    return json.dumps({"method": method, "arg": argument}).encode()


async def _receive(connection: ControlSocket) -> dict[str, Any]:
    received = bytearray()
    while len(received) <= _REPLY_LIMIT_BYTES:
        data = await connection.receive()
        if not data:
            raise ConnectionResetError("the sandbox ended")
        received += data
        # An object is complete when it parses; braces inside strings make any cheaper test wrong.
        if received.rstrip().endswith(b"}"):
            reply = _parse(received)
            if isinstance(reply, dict):
                return reply
    raise ValueError("the reply is too long")


def _parse(received: bytearray) -> object:
    try:
        return json.loads(received)
    except json.JSONDecodeError:
        return None
    except RecursionError:
        raise ValueError("the reply is nested too deeply") from None


def _memory_of(usage: object) -> int:
    total = usage.get("Total") if isinstance(usage, dict) else None
    return total if isinstance(total, int) and total > 0 else 0


def _reserve(descriptors: Sequence[int], memory_bytes: int) -> None:
    state, _, pages = descriptors
    disk.reserve(pages, memory_bytes + _PAGES_RESERVE_BYTES)
    disk.reserve(state, _STATE_RESERVE_BYTES)
