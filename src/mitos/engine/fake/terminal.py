"""A terminal of the fake guest, between a stream and processes: echo, line ends, Ctrl-C, Ctrl-D."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

__all__ = ["Terminal"]

INTERRUPT = b"\x03"
END = b"\x04"


class Terminal:
    """One terminal. It ends with its command: a snapshot has none.

    Args:
        read: the keys pressed.
        write: what the screen shows.
        size: columns and rows.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[bytes]],
        write: Callable[[bytes], Awaitable[None]],
        *,
        size: tuple[int, int],
    ) -> None:
        self._read = read
        self._write = write
        self._has_ended = False
        self.size = size
        self.on_interrupt: Callable[[], None] | None = None

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return (type(None), ())

    async def read(self) -> bytes:
        """The next typed bytes, b"" at the end; shows what was typed."""
        if self._has_ended or not (keys := await self._read()):
            return b""
        if INTERRUPT in keys and self.on_interrupt is not None:
            self.on_interrupt()
        keys, end, _ = keys.partition(END)
        self._has_ended = bool(end)
        text = keys.replace(b"\r", b"\n")
        await self.write(text.replace(INTERRUPT, b"^C\n"))
        return text.replace(INTERRUPT, b"") or (b"" if end else await self.read())

    async def write(self, data: bytes) -> None:
        """Shows bytes."""
        await self._write(data.replace(b"\n", b"\r\n"))
