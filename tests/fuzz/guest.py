"""A fake engine whose guests do a little more: enough for every route to have something to find.

Each has one kept command, programs that list files, and a web server on one port.
"""

from __future__ import annotations

import asyncio
import errno
from typing import Any

from mitos.engine.base import MachineSpec
from mitos.engine.fake.engine import FakeEngine, FakeMachine
from mitos.engine.fake.guest import FakeGuest, GuestState
from mitos.wire.link import Fields, Operation, Tag

__all__ = ["COMMAND", "PORT", "BusyEngine"]

COMMAND = "cmd-0123456789abcdef"
PORT = 8080

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"


class BusyEngine(FakeEngine):
    """Runs such guests."""

    def _add(self, spec: MachineSpec, state: GuestState, *, is_restored: bool) -> FakeMachine:
        machine = super()._add(spec, state, is_restored=is_restored)
        known = machine.guest._handlers() | _more(machine.guest)
        machine.guest._handlers = lambda: known  # type: ignore[method-assign]
        return machine


def _more(guest: FakeGuest) -> dict[int, Any]:
    async def execute(stream: Any) -> Fields:
        """Files are listed as if there were none; other commands are the fake shell's."""
        if stream.fields.get_texts(Tag.ARG)[:1] in (["/usr/bin/find"], ["/usr/bin/xargs"]):
            return Fields().uint(Tag.EXIT_CODE, 0)
        return await guest._exec(stream)

    return {
        Operation.EXEC: execute,
        Operation.COMMANDS: _commands,
        Operation.END_COMMAND: _end_command,
        Operation.VITALS: _vitals,
        Operation.DIAL: _dial,
    }


async def _commands(_stream: Any) -> Fields:
    command = Fields().text(Tag.COMMAND_ID, COMMAND).text(Tag.NAME, "make \udcff")
    return Fields().raw(Tag.COMMAND, command.uint(Tag.PID, 7).uint(Tag.KEEP, 1).encode())


async def _end_command(stream: Any) -> Fields:
    if stream.fields.get_text(Tag.COMMAND_ID) != COMMAND:
        raise ProcessLookupError(errno.ESRCH, "no such command")
    return Fields()


async def _vitals(_stream: Any) -> Fields:
    return Fields().uint(Tag.PROCESS_COUNT, 2)


async def _dial(stream: Any) -> Fields:
    if stream.fields.get_uint(Tag.PORT) != PORT:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    while b"\r\n\r\n" not in stream.input:
        await asyncio.sleep(0)
    await stream.output(_ANSWER)
    return Fields()
