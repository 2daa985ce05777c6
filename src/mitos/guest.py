"""Self-service from inside a sandbox: who am I, and more of me.

Code in a sandbox talks to a Unix socket whose path is in `MITOS_SOCKET`: one JSON line each way,
one connection per call. Protocol: `spec/additions.md`.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "SOCKET_ENV",
    "Budget",
    "GuestClient",
    "GuestError",
    "GuestUnavailableError",
    "Identity",
    "Info",
    "connect",
    "fork",
    "identity",
    "info",
    "socket_path",
]

SOCKET_ENV = "MITOS_SOCKET"

INFO_TIMEOUT_S = 10.0
FORK_TIMEOUT_S = 130.0
REPLY_LIMIT_BYTES = 1 << 20


class GuestError(Exception):
    """The sandbox's server refused, or did not answer."""


class GuestUnavailableError(GuestError):
    """There is no self-service here: not inside a sandbox, or its socket cannot be opened."""


@dataclass
class Identity:
    """Who this sandbox is."""

    sandbox_id: str = ""
    claim: str = ""
    pool: str = ""
    workspace: str = ""


@dataclass
class Budget:
    """What this sandbox may do for itself."""

    max_forks: int = 0
    max_checkpoints: int = 0
    forks_used: int = 0


@dataclass
class Info:
    """Who this sandbox is and what it may do."""

    identity: Identity = field(default_factory=Identity)
    budget: Budget = field(default_factory=Budget)


class GuestClient:
    """Calls the socket of a sandbox.

    Args:
        socket_path: of the Unix socket.

    Example:
        >>> client = GuestClient("/run/mitos.sock")  # inside a sandbox
    """

    def __init__(self, socket_path: str) -> None:
        self._path = socket_path

    def info(self) -> Info:
        """Who this sandbox is and what it may do.

        Raises:
            GuestError: refused, or no answer; `GuestUnavailableError` when nobody listens.

        Example:
            >>> left = client.info().budget.max_forks
        """
        answer = self._call({"type": "info"}, INFO_TIMEOUT_S)
        found = _member(answer, "info")
        who, may = _member(found, "identity"), _member(found, "budget")
        return Info(
            Identity(*(_text(who, name) for name in ("sandboxId", "claim", "pool", "workspace"))),
            Budget(*(_count(may, name) for name in ("maxForks", "maxCheckpoints", "forksUsed"))),
        )

    def identity(self) -> Identity:
        """Who this sandbox is; errors as `info`.

        Example:
            >>> name = client.identity().sandbox_id
        """
        return self.info().identity

    def fork(self, n: int = 1, label: str = "") -> list[str]:
        """Makes `n` copies of this sandbox while it runs, this process in it included.

        All of them go on from this call, as after `os.fork`: the sandbox that asked gets the
        children's ids, each child an empty list, and a new seed for `random`.

        Args:
            n: how many children, 1 to 64, within the sandbox's budget.
            label: what the children's ids begin with.

        Returns:
            The ids of the children; empty in a child.

        Raises:
            GuestError: refused, such as by the budget; `GuestUnavailableError` as `info`.

        Example:
            >>> children = GuestClient("/run/mitos.sock").fork(2, label="try")
            >>> role = "parent" if children else "child"
        """
        request = {"type": "fork", "fork": {"n": n, "label": label}}
        children = _member(self._call(request, FORK_TIMEOUT_S), "fork").get("children")
        if isinstance(children, list) and children:
            return [str(child) for child in children]
        _reseed()
        return []

    def _call(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            try:
                connection.connect(self._path)
            except OSError as exc:
                raise GuestUnavailableError(f"cannot open {self._path}: {exc}") from exc
            try:
                connection.sendall(json.dumps(request).encode() + b"\n")
                line = _read_line(connection)
            except OSError as exc:
                raise GuestError(f"no answer from {self._path}: {exc}") from exc
        return _answer(line)


def _reseed() -> None:
    """In a child: what its siblings draw must not be what this process draws."""
    random = sys.modules.get("random")
    if random is not None and os.environ.get("MITOS_RESEED_AFTER_FORK") != "0":
        random.seed()


def _read_line(connection: socket.socket) -> bytes:
    received = bytearray()
    while b"\n" not in received and len(received) <= REPLY_LIMIT_BYTES:
        data = connection.recv(65536)
        if not data:
            break
        received += data
    return bytes(received).partition(b"\n")[0]


def _answer(line: bytes) -> dict[str, Any]:
    if not line:
        raise GuestError("the connection was closed without an answer")
    try:
        answer = json.loads(line)
    except ValueError as exc:
        raise GuestError("the answer is not JSON") from exc
    if not isinstance(answer, dict):
        raise GuestError("the answer is not a JSON object")
    if answer.get("ok") is not True:
        raise GuestError(str(answer.get("error") or "the request was refused"))
    return answer


def _member(value: dict[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _text(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    return found if isinstance(found, str) else ""


def _count(value: dict[str, Any], name: str) -> int:
    found = value.get(name)
    return found if isinstance(found, int) else 0


def socket_path() -> str | None:
    """The socket of this sandbox, or None outside of one.

    Example:
        >>> socket_path() is None  # outside of a sandbox
        True
    """
    return os.environ.get(SOCKET_ENV) or None


def connect(path: str | None = None) -> GuestClient:
    """A client of this sandbox's socket, or of another's path.

    Raises:
        GuestUnavailableError: `MITOS_SOCKET` is not set.

    Example:
        >>> client = connect("/run/mitos.sock")
    """
    found = path or socket_path()
    if found is None:
        raise GuestUnavailableError(f"{SOCKET_ENV} is not set: this does not run inside a sandbox")
    return GuestClient(found)


def info() -> Info:
    """Who this sandbox is and what it may do; errors as `GuestClient.info` and `connect`.

    Example:
        >>> used = info().budget.forks_used
    """
    return connect().info()


def identity() -> Identity:
    """Who this sandbox is; errors as `info`.

    Example:
        >>> name = identity().sandbox_id
    """
    return connect().identity()


def fork(n: int = 1, label: str = "") -> list[str]:
    """Makes `n` copies of this sandbox while it runs; as `GuestClient.fork`.

    Example:
        >>> if not fork(3):
        ...     print("one of three children")
    """
    return connect().fork(n, label)
