"""Where the messages of a request stream go: to a command, a port, a file, an archive."""

from __future__ import annotations

from collections.abc import AsyncIterator

from protobuf import Oneof

from mitos.agent.command import Command
from mitos.agent.tunnel import Tunnel
from mitos.server.runtime import stream
from mitos.wire._generated.sandbox.v1 import sandbox_pb as pb

__all__ = ["command", "contents", "tar_chunks", "tunnel"]


async def command(running: Command, request: AsyncIterator[pb.ExecRequest]) -> None:
    """Gives a command what the client sends it; the request's end is the input's end."""
    async for message in request:
        await _input(running, message)
    await running.close_input()


async def _input(running: Command, message: pb.ExecRequest) -> None:
    match message.msg:
        case Oneof(field="stdin", value=bytes(data)):
            await running.write(data)
        case Oneof(field="resize", value=pb.WindowSize() as size):
            await running.resize(size.cols, size.rows)
        case Oneof(field="stdin_close", value=True):
            await running.close_input()


async def tunnel(port: Tunnel, request: AsyncIterator[pb.Frame]) -> None:
    """Gives a port what the client sends it; `close` or the request's end is its end."""
    async for frame in request:
        match frame.msg:
            case Oneof(field="data", value=bytes(data)):
                await port.write(data)
            case Oneof(field="close", value=True):
                break
    await port.write_eof()
    await stream.drop(request)


async def contents(request: AsyncIterator[pb.WriteFileRequest]) -> AsyncIterator[bytes]:
    """The content of a file that is written."""
    async for message in stream.flowing(request):
        if message.msg is not None and message.msg.field == "data":
            yield message.msg.value


async def tar_chunks(request: AsyncIterator[pb.UploadRequest]) -> AsyncIterator[bytes]:
    """The archive of an upload."""
    async for message in stream.flowing(request):
        if message.msg is not None and message.msg.field == "chunk":
            yield message.msg.value
