"""Commands that can be found again: the headers of a call that runs or reads one.

The published messages stay as they are; spec/additions.md describes the headers.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping

from mitos.agent.command import Command, ExecRequest
from mitos.server.identifier import checked_id
from mitos.wire.errors import ApiError

__all__ = ["CommandCall"]

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
            else checked_id(command_id, "command"),
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


def _flag(value: str) -> bool:
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ApiError("invalid_input", "X-Command-Keep must be true or false")


def _offset(value: str) -> int:
    if value.isascii() and value.isdigit() and len(value) < 20 and int(value) < MAX_OFFSET:
        return int(value)
    raise ApiError("invalid_input", "X-Command-Offset must be a whole number of bytes")
