"""Orders to a running sandbox, and the way to give them over its control socket.

The socket is private to a runsc release, so `release` lists those for which this protocol was
tested; `command` gives the same orders over the command line. One connection per order:

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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mitos.engine.base import EngineError, EngineFault
from mitos.engine.gvisor import image
from mitos.engine.gvisor.release import Traits
from mitos.host import disk
from mitos.host.cgroup import Memory
from mitos.host.control_socket import ControlSocket

__all__ = ["Control", "SocketControl", "Target", "call", "exit_signal", "order_failed"]

_REPLY_LIMIT_BYTES = 1 << 20
_REASON_LIMIT = 300
_SIGNAL_OF_STATUS = 0x7F
# Held for a snapshot beyond what the sandbox is seen to use: it runs on until it is stopped.
_PAGES_RESERVE_BYTES = 1 << 20
# The kernel's objects take half a MiB of an idle sandbox's snapshot, and less in it than in memory.
_STATE_RESERVE_BYTES = 1 << 20
_STATE_SHARE = 4
_OWN_CALL = "containerManager.CreateTraceSession"
# A trace session without points, whose only sink is the engine's call `engine/reclaim`.
_GIVE_BACK = {
    "Config": {"name": "Default", "sinks": [{"name": "mitos-reclaim"}]},
    "Force": True,
}
# `engine/timewait`, which does its work when the first process is cloned.
_FORGET = {
    "Config": {
        "name": "Default",
        "points": [{"name": "sentry/clone"}],
        "sinks": [{"name": "mitos-timewait"}],
    },
    "Force": True,
}


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
        options: what the runtime's commands are given for this sandbox alone.
    """

    id: str
    bundle: Path
    socket: Path
    timeout_s: float
    options: tuple[str, ...] = ()


class Control(Protocol):
    """Gives orders to sandboxes. Every method raises `EngineError` when the order fails.

    Attributes:
        charges_snapshots: a snapshot on tmpfs counts as memory of the sandbox that it is of.
    """

    charges_snapshots: bool

    async def connect_loopback(self, target: Target) -> None:
        """Gives a created sandbox its interface `lo`, before it is started or restored."""
        ...

    async def start(self, target: Target) -> None:
        """Starts PID 1 of a created sandbox."""
        ...

    async def restore(self, target: Target, directory: Path) -> None:
        """Fills a created sandbox from the snapshot files in a folder."""
        ...

    async def checkpoint(self, target: Target, directory: Path, held: Memory) -> None:
        """Writes snapshot files into an empty folder; the sandbox goes on as it was.

        Args:
            target: the sandbox.
            directory: the folder.
            held: what it uses now.
        """
        ...

    async def give_memory_back(self, target: Target) -> None:
        """Has the sandbox's kernel return what it does not need; does nothing if it cannot."""
        ...

    async def wait_done(self, target: Target) -> None:
        """Waits until a running sandbox has done what an earlier process ordered it to save."""
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


def exit_signal(reply: bytes) -> int | None:
    """Reads what `watch_exit` was told: the signal that ended PID 1, 0 when it exited.

    None: the kernel said nothing of the kind.
    """
    try:
        told = json.loads(reply)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or told.get("success") is not True:
        return None
    status = told.get("result")
    return status & _SIGNAL_OF_STATUS if isinstance(status, int) else None


class SocketControl:
    """Gives orders over the control socket, a few hundred microseconds each beside the work.

    Args:
        traits: what the release can do.
    """

    charges_snapshots = False

    def __init__(self, traits: Traits) -> None:
        self._traits = traits

    async def connect_loopback(self, target: Target) -> None:
        """Gives a created sandbox its interface `lo`, before it is started or restored.

        The network is the one thing that is not in a snapshot: a restored sandbox goes on with its
        blank's own.
        """
        await call(target, "Network.CreateLinksAndRoutes", _LOOPBACK_ONLY)

    async def start(self, target: Target) -> None:
        """Starts PID 1 of a created sandbox.

        Of our build's, the kernel forgets closed connections at once, also in what is restored from
        its snapshots: they cost a checkpoint much, and could be removed in the middle of it.
        """
        if self._traits.has_own_calls:
            await call(target, _OWN_CALL, _FORGET)
        await call(target, "containerManager.StartRoot", target.id)

    async def restore(self, target: Target, directory: Path) -> None:
        """Fills a created sandbox from the snapshot files in a folder."""
        argument = {"HavePagesFile": True, "HaveDeviceFile": False}
        try:
            with image.open_files(directory) as descriptors:
                await call(target, "containerManager.Restore", argument, descriptors)
        except OSError as exc:
            raise order_failed("restore", target, str(exc)) from exc

    async def checkpoint(self, target: Target, directory: Path, held: Memory) -> None:
        """Writes snapshot files into an empty folder; the sandbox goes on as it was.

        The space is taken beforehand. A full disk is then noticed before the sandbox is stopped,
        and on tmpfs the memory counts as ours: counted as the sandbox's, it could get it killed at
        its limit.
        """
        argument = {
            "metadata": {"compression": "none"},
            "have_pages_file": True,
            "Resume": True,
        }
        try:
            with image.create_files(directory) as descriptors:
                await asyncio.to_thread(_reserve, descriptors, held)
                await call(target, "containerManager.Checkpoint", argument, descriptors)
                for descriptor in descriptors:
                    disk.release(descriptor)
        except OSError as exc:
            raise order_failed("checkpoint", target, str(exc)) from exc

    async def give_memory_back(self, target: Target) -> None:
        """Has the sandbox's kernel return what it does not need; does nothing if it cannot."""
        if self._traits.has_own_calls:
            await call(target, _OWN_CALL, _GIVE_BACK)

    async def wait_done(self, target: Target) -> None:
        """Waits until a running sandbox has done what an earlier process ordered it to save.

        The kernel delivers no signal while it is being saved, and signal 0 does nothing.
        """
        await call(target, "containerManager.Signal", {"CID": target.id})

    async def pause(self, target: Target) -> None:
        """Stops every process."""
        await call(target, "containerManager.Pause", None)

    async def resume(self, target: Target) -> None:
        """Undoes one `pause`."""
        await call(target, "containerManager.Resume", None)

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


async def call(
    target: Target, method: str, argument: object, descriptors: Sequence[int] = ()
) -> object:
    """One call over a sandbox's control socket, on a connection of its own.

    Args:
        target: the sandbox.
        method: object and method, as gVisor names them.
        argument: as JSON.
        descriptors: travel with the call; they stay the caller's.

    Returns:
        The result.

    Raises:
        EngineError: it failed, the sandbox is gone, or the deadline passed (`TIMED_OUT`).
    """
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


def _reserve(descriptors: Sequence[int], held: Memory) -> None:
    state, _, pages = descriptors
    disk.reserve(pages, held.shared_bytes + _PAGES_RESERVE_BYTES)
    disk.reserve(state, held.private_bytes // _STATE_SHARE + _STATE_RESERVE_BYTES)
