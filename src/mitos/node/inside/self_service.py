"""What a sandbox may ask for itself, over the socket its agent listens on: who am I, and fork me.

One JSON line each way, one connection per call; the wire contract, section 9. All that comes from
inside is hostile: lines are bounded, every step has a deadline, and forks draw on a budget that a
sandbox shares with all it made by itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from mitos.agent.accept import serve_connections
from mitos.agent.link import Link
from mitos.agent.tunnel import Tunnel
from mitos.node.inside.budget import Budget
from mitos.wire.errors import ApiError
from mitos.wire.ids import MAX_CHILDREN, MAX_LABEL, is_valid_id, new_ids

__all__ = ["Caller", "SelfService", "serve_self_service"]

WAITING = 1
MAX_CONNECTIONS = 8
MAX_REQUEST_BYTES = 64 * 1024
STEP_DEADLINE_S = 10.0
"""How long a program may take to send its line, and to take the answer."""

_T = TypeVar("_T")


class Caller(Protocol):
    """A sandbox as it is told of itself."""

    @property
    def id(self) -> str:
        """Its id now."""
        ...

    @property
    def template_id(self) -> str:
        """The template it came from."""
        ...

    @property
    def budget(self) -> Budget:
        """What it may do for itself."""
        ...


async def serve_self_service(link: Link, service: SelfService) -> None:
    """Answers the sandbox's calls until it is canceled or the link is lost."""
    await serve_connections(
        link,
        None,
        service.serve,
        name=f"self-service-{service.caller.id}",
        waiting=WAITING,
        at_once=MAX_CONNECTIONS,
    )


@dataclass(frozen=True, slots=True)
class SelfService:
    """The calls of one sandbox.

    Attributes:
        caller: whose calls they are.
        fork: makes children of it under the ids, within its budget.
    """

    caller: Caller
    fork: Callable[[Sequence[str]], Awaitable[None]]

    async def serve(self, tunnel: Tunnel) -> None:
        """Answers one call.

        Raises:
            ApiError: the program is too slow, or gone.
        """
        line = await _in_time(_read_line(tunnel))
        try:
            answer = {"ok": True, **await self._answer(_request(line), tunnel)}
        except ApiError as exc:
            answer = {"ok": False, "error": f"{exc.message}. {exc.remediation}"}
        await _in_time(_reply(tunnel, answer))

    async def _answer(self, request: dict[str, Any], tunnel: Tunnel) -> dict[str, Any]:
        match request.get("type"):
            case "info":
                return {"info": self._info()}
            case "fork":
                child_ids = _child_ids(request.get("fork"))
                # The caller is copied with its connection: this is what its copies are told.
                await tunnel.set_fork_reply(_line({"ok": True, "fork": {"children": []}}))
                await self.fork(child_ids)
                return {"fork": {"children": child_ids}}
            case _:
                raise ApiError(
                    "invalid_input", "the type is neither info nor fork", remediation="Use those."
                )

    def _info(self) -> dict[str, Any]:
        caller = self.caller
        return {
            "identity": {
                "sandboxId": caller.id,
                "claim": "",
                "pool": caller.template_id,
                "workspace": "",
            },
            "budget": {
                "maxForks": caller.budget.max_forks,
                "maxCheckpoints": 0,
                "forksUsed": caller.budget.forks_used,
            },
        }


async def _in_time(step: Awaitable[_T]) -> _T:
    try:
        async with asyncio.timeout(STEP_DEADLINE_S):
            return await step
    except TimeoutError:
        raise ApiError("exec_timeout", "a self-service call made no progress") from None


async def _read_line(tunnel: Tunnel) -> bytes:
    received = bytearray()
    while b"\n" not in received and len(received) <= MAX_REQUEST_BYTES:
        data = await tunnel.read()
        if not data:
            break
        received += data
    return bytes(received).partition(b"\n")[0]


async def _reply(tunnel: Tunnel, answer: dict[str, Any]) -> None:
    await tunnel.write(_line(answer))
    await tunnel.write_eof()
    await tunnel.wait_closed()


def _line(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def _request(line: bytes) -> dict[str, Any]:
    remediation = 'Send one line such as {"type": "info"}.'
    if len(line) > MAX_REQUEST_BYTES:
        raise ApiError("invalid_input", "the request is over 64 KiB", remediation=remediation)
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise ApiError("invalid_json", "the request is not JSON", remediation=remediation) from None
    if not isinstance(request, dict):
        raise ApiError("invalid_json", "the request is no object", remediation=remediation)
    return request


def _child_ids(asked: object) -> list[str]:
    """Ids for the children that a fork asks for.

    Raises:
        ApiError: a count out of range, or a label that cannot be part of an id.
    """
    fork = asked if isinstance(asked, dict) else {}
    count, label = fork.get("n", 1), fork.get("label") or "sandbox"
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_CHILDREN:
        raise ApiError(
            "invalid_input",
            f"n is not a number from 1 to {MAX_CHILDREN}",
            remediation="Ask for fewer.",
        )
    if not isinstance(label, str) or not is_valid_id(label) or len(label) > MAX_LABEL:
        raise ApiError(
            "invalid_input",
            "the label cannot begin the children's ids",
            remediation=f"Use up to {MAX_LABEL} letters, digits, '-' and '_', not first.",
        )
    return new_ids(count, label)
