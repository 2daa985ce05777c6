"""A template's workload: a program that runs in every sandbox from its first instant.

It is started when the template is made and captured in the snapshot, once it is ready.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from mitos.wire.errors import bad_member
from mitos.wire.ids import is_text

__all__ = ["ReadyCheck", "Workload"]

MAX_ARGUMENTS = 256
MAX_VARIABLES = 256
MAX_TEXT = 32 * 1024
"""Characters of one argument, or of one variable's value."""

MAX_READY_TIMEOUT_S = 1800
DEFAULT_WAIT_S = 5
MAX_WAIT_S = 600

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_PATH = re.compile(r"/[!-~]{0,1023}")
"""A request target of origin form: nothing that ends a line or begins a header."""


@dataclass(frozen=True, slots=True)
class ReadyCheck:
    """The HTTP request whose answer says that the program serves.

    Attributes:
        port: on the sandbox's loopback.
        path: of the GET request.
        expect: the status that means ready.
        timeout_s: how long it may take from the start.
    """

    port: int
    path: str = "/"
    expect: int = 200
    timeout_s: int = 120


@dataclass(frozen=True, slots=True)
class Workload:
    """What is started, and when it counts as running.

    Attributes:
        command: program and arguments.
        environment: variables over the sandbox's own, sorted by name.
        ready: asked until it answers; None for a program that serves no HTTP.
        wait_s: without `ready`, how long it is given to start.
    """

    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    ready: ReadyCheck | None = None
    wait_s: int = DEFAULT_WAIT_S

    @classmethod
    def parse(cls, value: object, *, wait_s: object) -> Workload | None:
        """Reads the `workload` member of a template request; None when it asks for none.

        Raises:
            ApiError: `invalid_input` naming the member.
        """
        if value is None:
            return None
        if not isinstance(value, dict):
            raise bad_member("workload", "an object")
        command = value.get("command") or []
        if not isinstance(command, list) or not all(is_text(each, MAX_TEXT) for each in command):
            raise bad_member(
                "workload.command",
                f"a list of texts without NUL, each of at most {MAX_TEXT} characters",
            )
        if len(command) > MAX_ARGUMENTS:
            raise bad_member("workload.command", f"at most {MAX_ARGUMENTS} strings")
        if not command:
            return None
        return cls(
            command=tuple(command),
            environment=_environment(value.get("env")),
            ready=_ready(value.get("ready")),
            wait_s=_number("init_wait_seconds", wait_s or DEFAULT_WAIT_S, 1, MAX_WAIT_S),
        )


def _environment(value: object) -> tuple[tuple[str, str], ...]:
    found = value or {}
    if not isinstance(found, dict) or len(found) > MAX_VARIABLES:
        raise bad_member("workload.env", f"an object of at most {MAX_VARIABLES} members")
    for name, text in found.items():
        if not _VARIABLE.fullmatch(name) or not is_text(text, MAX_TEXT):
            raise bad_member("workload.env", "strings by names of letters, digits and '_'")
    return tuple(sorted(found.items()))


def _ready(value: object) -> ReadyCheck | None:
    if not value:
        return None
    if not isinstance(value, dict):
        raise bad_member("workload.ready", "an object")
    path = value.get("path") or "/"
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        wanted = "a path of printable characters that begins with '/'"
        raise bad_member("workload.ready.path", wanted)
    return ReadyCheck(
        port=_member(value, "port", 0, 1, 65_535),
        path=path,
        expect=_member(value, "expect", 200, 100, 599),
        timeout_s=_member(value, "timeout_seconds", 120, 1, MAX_READY_TIMEOUT_S),
    )


def _member(value: dict[str, Any], name: str, default: int, low: int, high: int) -> int:
    return _number(f"workload.ready.{name}", value.get(name) or default, low, high)


def _number(member: str, value: object, low: int, high: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise bad_member(member, f"a number from {low} to {high}")
