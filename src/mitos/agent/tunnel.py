"""One connection between the server and a program in a sandbox: bytes both ways."""

from __future__ import annotations

from mitos.agent.answer import check
from mitos.agent.stream import Closed, LinkStream
from mitos.wire.errors import ApiError, ConnectCode
from mitos.wire.link import Control, Fields, Status, Tag

__all__ = ["Tunnel"]


class Tunnel:
    """A connection to a port of the sandbox, or from a program in it to its agent.

    Args:
        stream: of a `DIAL` or an `ACCEPT`.
        port: for error texts; None is the self-service socket.
    """

    def __init__(self, stream: LinkStream, port: int | None) -> None:
        self._stream = stream
        self._place = "the self-service socket" if port is None else f"port {port} of the sandbox"

    async def accepted(self) -> None:
        """Waits until a program has connected to the place of an `ACCEPT`.

        Raises:
            ApiError: the agent cannot listen there.
        """
        if await self._stream.read() is None:
            check(await self._stream.finish(), self._place)
            raise ApiError("internal", "the agent accepted nothing")

    async def read(self) -> bytes:
        """The next bytes from the other side, or b"" when it has said all it had to say.

        Raises:
            ApiError: with Connect code `unavailable` when nothing listens there.
        """
        chunk = await self._stream.read()
        if chunk is not None:
            return chunk[1]
        if self._stream.closed is not None and self._stream.closed.status is Status.FAILED:
            raise _unreachable(self._place, self._stream.closed)
        return b""

    async def write(self, data: bytes) -> bool:
        """Sends bytes, waiting while the other side does not read; False when it is gone."""
        return await self._stream.send(data)

    async def write_eof(self) -> None:
        """Says that nothing more comes. Idempotent."""
        await self._stream.send_eof()

    async def set_fork_reply(self, reply: bytes) -> None:
        """What a forked child's copy of the program is told before its connection is closed.

        Args:
            reply: at most 4,096 bytes; that of an earlier call is forgotten.
        """
        await self._stream.control(Control.FORK_REPLY, Fields().raw(Tag.MESSAGE, reply))

    async def wait_closed(self) -> None:
        """Waits until all that was written is taken and both directions have ended."""
        await self._stream.finish()


def _unreachable(place: str, closed: Closed) -> ApiError:
    return ApiError(
        "internal",
        f"{place} cannot be reached",
        cause=closed.fields.get_text(Tag.MESSAGE),
        remediation="Start a server on that port inside the sandbox, then try again.",
        status=502,
        connect=ConnectCode.UNAVAILABLE,
    )
