"""What the SDK sends: ids, timeouts and bodies, checked before anything goes out. Pure."""

from __future__ import annotations

import math
import shlex
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from mitos._sdk.framing import encode_bytes
from mitos._sdk.value.network import Network
from mitos.errors import AgentRunError, TimeoutTooLargeError
from mitos.wire.ids import ID_PATTERN, is_valid_id

__all__ = [
    "MAX_EXEC_TIMEOUT_SECONDS",
    "check_port",
    "check_timeout",
    "checked_command_id",
    "checked_id",
    "child_ids",
    "exec_message",
    "fork_body",
    "new_command_id",
    "new_id",
    "new_key",
    "pty_url",
    "template_body",
    "write_messages",
]

MAX_EXEC_TIMEOUT_SECONDS = 86_400
WRITE_PIECE_BYTES = 1 << 20


def new_id() -> str:
    """A fresh sandbox id."""
    return f"sandbox-{uuid.uuid4().hex[:8]}"


def new_command_id() -> str:
    """A fresh command id."""
    return f"cmd-{uuid.uuid4().hex[:16]}"


def checked_command_id(command_id: str) -> str:
    """The id, if it is one.

    Raises:
        AgentRunError: `invalid_input`; nothing has been sent.
    """
    if isinstance(command_id, str) and is_valid_id(command_id):
        return command_id
    raise AgentRunError(
        f"{command_id!r} is not a command id",
        "invalid_input",
        cause=f"an id must match {ID_PATTERN}",
        remediation="Use the id of the handle that exec_background gave, or one of commands().",
    )


def new_key() -> str:
    """A fresh idempotency key."""
    return uuid.uuid4().hex


def checked_id(sandbox_id: str) -> str:
    """The id, if it is one.

    Raises:
        AgentRunError: `invalid_sandbox_id`; nothing has been sent.
    """
    if isinstance(sandbox_id, str) and is_valid_id(sandbox_id):
        return sandbox_id
    raise AgentRunError(
        f"{sandbox_id!r} is not a sandbox id",
        "invalid_sandbox_id",
        cause=f"an id must match {ID_PATTERN}",
        remediation="Use letters, digits, '-' and '_', at most 64, or leave the id out.",
    )


def child_ids(count: int, base: str | None) -> list[str]:
    """The ids of `count` children: generated, or `base` with a number behind it.

    Raises:
        AgentRunError: `invalid_sandbox_id`.
    """
    if base is None:
        return [new_id() for _ in range(count)]
    if count == 1:
        return [checked_id(base)]
    return [checked_id(f"{base}-{index}") for index in range(count)]


def check_timeout(timeout_s: float) -> int:
    """The timeout in whole seconds, rounded up, if it is not over the ceiling; never clamped.

    Raises:
        TimeoutTooLargeError: nothing has been sent.
        TypeError: it is not a number.
        ValueError: it is NaN.
    """
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)):
        raise TypeError(f"a timeout is a number of seconds, not {type(timeout_s).__name__}")
    if timeout_s <= MAX_EXEC_TIMEOUT_SECONDS or math.isnan(timeout_s):
        return math.ceil(timeout_s)
    raise TimeoutTooLargeError(
        f"a timeout of {timeout_s} s is over the ceiling of {MAX_EXEC_TIMEOUT_SECONDS} s",
        "timeout_too_large",
        remediation=f"Ask for at most {MAX_EXEC_TIMEOUT_SECONDS} seconds.",
        context={"requested_s": timeout_s, "max_timeout_s": MAX_EXEC_TIMEOUT_SECONDS},
    )


def check_port(port: int) -> int:
    """The port, if it is one.

    Raises:
        ValueError: nothing has been sent.
    """
    if isinstance(port, int) and not isinstance(port, bool) and 1 <= port <= 65_535:
        return port
    raise ValueError(f"port must be a whole number from 1 to 65535, not {port!r}")


def exec_message(
    command: str | Sequence[str],
    timeout_s: int,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The request of a command; a list of arguments is quoted for the shell.

    Raises:
        TypeError: it is neither text nor a list.
    """
    if not isinstance(command, (str, list, tuple)):
        raise TypeError(f"a command is a string or a list, not {type(command).__name__}")
    text = command if isinstance(command, str) else shlex.join(str(part) for part in command)
    message: dict[str, Any] = {"command": text, "timeoutSeconds": check_timeout(timeout_s)}
    if cwd:
        message["cwd"] = cwd
    if env:
        message["env"] = [{"key": key, "value": value} for key, value in env.items()]
    return message


def template_body(
    template_id: str,
    init_wait_seconds: int = 5,
    network: Network | None = None,
    workload: dict[str, Any] | None = None,
    resources: dict[str, int] | None = None,
) -> dict[str, Any]:
    """The body of a template request; what is None is left out."""
    optional = {
        "network": None if network is None else network.to_dict(),
        "workload": workload,
        "resources": resources,
    }
    body: dict[str, Any] = {"id": template_id, "init_wait_seconds": init_wait_seconds}
    body.update({name: value for name, value in optional.items() if value is not None})
    return body


def fork_body(template: str, ids: list[str]) -> dict[str, Any]:
    """The body of a live fork. `ids`, for more than one child, is an addition of ours."""
    body: dict[str, Any] = {"id": ids[0], "template": template, "pause_source": True}
    return body if len(ids) == 1 else {**body, "ids": ids}


def write_messages(path: str, content: str | bytes, mode: int) -> Iterator[dict[str, Any]]:
    """The messages that write a file; an empty file is written with one empty piece.

    Raises:
        TypeError: the content is neither text nor bytes.
    """
    if not isinstance(content, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"content must be str or bytes, not {type(content).__name__}")
    data = content.encode() if isinstance(content, str) else bytes(content)
    yield {"open": {"path": path, "mode": mode}}
    for start in range(0, max(len(data), 1), WRITE_PIECE_BYTES):
        yield {"data": encode_bytes(data[start : start + WRITE_PIECE_BYTES])}


def pty_url(base_url: str, sandbox_id: str) -> str:
    """Where a sandbox's terminals are; holds no key."""
    scheme, rest = base_url.split("://", 1)
    scheme = "wss" if scheme.lower() == "https" else "ws"
    return f"{scheme}://{rest}/sandbox.v1.Sandbox/Exec?{urlencode({'sandbox': sandbox_id})}"
