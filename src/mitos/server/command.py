"""Commands that can be found again: the headers of a call, and the REST form of a command.

The published messages stay as they are; spec/additions.md describes the headers and the routes.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping

from mitos.agent.command import Command, CommandInfo, ExecRequest
from mitos.wire.errors import ApiError
from mitos.wire.ids import ID_PATTERN, is_valid_id

__all__ = ["CommandCall", "checked_command_id", "command_body"]

ID, KEEP, OFFSET, LOST = "x-command-id", "x-command-keep", "x-command-offset", "x-command-lost"
MAX_OFFSET = 1 << 63


@dataclasses.dataclass(frozen=True, slots=True)
class CommandCall:
    """What the headers of an exec call ask for.

    Attributes:
        id: the client's, or a fresh one.
        keep: the command lives on when the connection breaks.
        attaches: no command is started, an existing one is read.
        offset: of the first byte of output that is wanted, when attaching.
    """

    id: str
    keep: bool
    attaches: bool
    offset: int

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> CommandCall:
        """Reads the headers.

        Raises:
            ApiError: `invalid_input`.
        """
        offset = headers.get(OFFSET)
        command_id = headers.get(ID)
        if offset is not None and command_id is None:
            raise ApiError("invalid_input", "X-Command-Offset needs an X-Command-Id")
        return cls(
            id=f"cmd-{secrets.token_hex(8)}"
            if command_id is None
            else checked_command_id(command_id),
            keep=_flag(headers.get(KEEP, "false")),
            attaches=offset is not None,
            offset=_offset(offset or "0"),
        )

    @property
    def is_kept(self) -> bool:
        """The command outlives this call."""
        return self.keep or self.attaches

    def refuse_attach(self) -> None:
        """For calls that cannot attach.

        Raises:
            ApiError: `invalid_input`.
        """
        if self.attaches:
            raise ApiError(
                "invalid_input",
                "X-Command-Offset is for ExecStream only",
                remediation="Attach with ExecStream; a command's input is its first client's.",
            )

    def name(self, request: ExecRequest) -> ExecRequest:
        """The request, under this call's id."""
        return dataclasses.replace(request, id=self.id, keep=self.keep)

    def answer(self, command: Command) -> dict[str, str]:
        """The headers of the answer."""
        headers = {ID: self.id}
        if self.attaches:
            headers |= {OFFSET: str(command.offset), LOST: str(command.lost)}
        return headers


def checked_command_id(value: str) -> str:
    """The id, if it is one.

    Raises:
        ApiError: `invalid_input`.
    """
    if is_valid_id(value):
        return value
    raise ApiError(
        "invalid_input",
        "the command's id is not allowed",
        remediation=f"Use 1 to 64 characters that match {ID_PATTERN}.",
    )


def command_body(found: CommandInfo) -> dict[str, object]:
    """A command as the REST route shows it."""
    body: dict[str, object] = {
        "id": found.id,
        "command": found.title,
        "running": found.exit is None,
        "kept": found.is_kept,
        "output_start": found.output_start,
        "output_end": found.output_end,
        "exec_time_ms": found.duration_s * 1000,
    }
    if found.exit is None:
        body["pid"] = found.pid
        return body
    body["exit_code"] = found.exit.exit_code
    if found.exit.error:
        body["error"] = found.exit.error
    return body


def _new_id() -> str:
    return f"cmd-{secrets.token_hex(8)}"


def _flag(value: str) -> bool:
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ApiError("invalid_input", "X-Command-Keep must be true or false")


def _offset(value: str) -> int:
    if value.isascii() and value.isdigit() and len(value) < 20 and int(value) < MAX_OFFSET:
        return int(value)
    raise ApiError("invalid_input", "X-Command-Offset must be a whole number of bytes")
