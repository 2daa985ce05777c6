"""What sandboxes answer, as the messages of `sandbox.v1`."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Literal

from protobuf import Oneof

from mitos.agent.command import Command, CommandExit
from mitos.agent.file import FileEntry
from mitos.agent.tunnel import Tunnel
from mitos.node import vitals
from mitos.wire._generated.sandbox.v1 import sandbox_pb as pb
from mitos.wire.link import Channel, KernelEvent, KernelEventKind

__all__ = [
    "OPENED",
    "code_messages",
    "exec_exit",
    "exec_messages",
    "file_chunks",
    "file_info",
    "guest_vitals",
    "process_info",
    "tunnel_frames",
]

CHUNK_BYTES = 32 * 1024
"""Largest piece of output or file content in one message, as the contract says."""

_Stdout = Oneof[Literal["stdout"], bytes]
_Stderr = Oneof[Literal["stderr"], bytes]
_Exit = Oneof[Literal["exit"], pb.ExecExit]
_Result = Oneof[Literal["result"], pb.RunResult]
_Error = Oneof[Literal["error"], pb.RunError]
_ExitCode = Oneof[Literal["exit_code"], int]
_Data = Oneof[Literal["data"], bytes]
_Close = Oneof[Literal["close"], bool]

OPENED = pb.ExecResponse(msg=_Stdout("stdout", b""))
"""An empty message: with it the headers are sent, so that the client knows the command runs."""


BEAT_S = 2.0
"""How often a client hears of a command that stands still with its sandbox: it waits longer."""


async def exec_messages(command: Command) -> AsyncGenerator[pb.ExecResponse]:
    """A command's output and exit as messages, with empty ones while its sandbox is paused."""
    outputs = aiter(command)
    while True:
        while not await command.ready(BEAT_S):
            if command.stands_still:
                yield OPENED
        if (output := await anext(outputs, None)) is None:
            break
        for piece in _pieces(output.data):
            if output.channel is Channel.ERROR:
                yield pb.ExecResponse(msg=_Stderr("stderr", piece))
            else:
                yield pb.ExecResponse(msg=_Stdout("stdout", piece))
    assert command.exit is not None
    yield pb.ExecResponse(msg=_Exit("exit", exec_exit(command.exit)))


def exec_exit(ended: CommandExit) -> pb.ExecExit:
    """A command's end as a message; the duration is never 0."""
    return pb.ExecExit(
        exit_code=ended.exit_code,
        exec_time_ms=max(ended.duration_s * 1000, 0.001),
        error=ended.error,
    )


def code_messages(event: KernelEvent) -> Iterator[pb.RunCodeResponse]:
    """A kernel's event as messages. Its JSON comes from the guest: odd members are dropped."""
    match event.kind:
        case KernelEventKind.STDOUT:
            for piece in _pieces(event.payload):
                yield pb.RunCodeResponse(msg=_Stdout("stdout", piece))
        case KernelEventKind.STDERR:
            for piece in _pieces(event.payload):
                yield pb.RunCodeResponse(msg=_Stderr("stderr", piece))
        case KernelEventKind.RESULT:
            body = _object(event.payload)
            data = {k: v.encode("utf-8", "replace") for k, v in _texts(body.get("data")).items()}
            result = pb.RunResult(text=_text(body.get("text")), data=data)
            yield pb.RunCodeResponse(msg=_Result("result", result))
        case KernelEventKind.ERROR:
            body = _object(event.payload)
            lines = body.get("traceback")
            error = pb.RunError(
                name=_text(body.get("name")) or "Error",
                value=_text(body.get("value")),
                traceback=[_text(line) for line in lines] if isinstance(lines, list) else [],
            )
            yield pb.RunCodeResponse(msg=_Error("error", error))
        case KernelEventKind.DONE:
            yield pb.RunCodeResponse(
                msg=_ExitCode("exit_code", event.payload[0] if event.payload else 1)
            )


def _object(payload: bytes) -> dict[str, object]:
    try:
        body = json.loads(payload)
    except (ValueError, RecursionError):
        body = {"name": "KernelStreamError", "value": "the kernel sent an event that is not JSON"}
    return body if isinstance(body, dict) else {}


def _text(value: object) -> str:
    """A string protobuf can carry: no lone surrogates."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {_text(k): _text(v) for k, v in value.items() if isinstance(v, str)}


def _pieces(data: bytes) -> Iterator[bytes]:
    """Data in parts that fit one message each."""
    for start in range(0, len(data), CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]


async def file_chunks(content: AsyncGenerator[bytes]) -> AsyncGenerator[pb.Chunk]:
    """Content as messages; the last has `eof`."""
    async with aclosing(content) as chunks:
        async for chunk in chunks:
            for piece in _pieces(chunk):
                yield pb.Chunk(data=piece)
    yield pb.Chunk(eof=True)


async def tunnel_frames(tunnel: Tunnel) -> AsyncGenerator[pb.Frame]:
    """What a port says as messages; the last has `close`."""
    while data := await tunnel.read():
        for piece in _pieces(data):
            yield pb.Frame(msg=_Data("data", piece))
    yield pb.Frame(msg=_Close("close", True))


def process_info(found: vitals.ProcessInfo) -> pb.ProcessInfo:
    """A process as a message."""
    return pb.ProcessInfo(
        pid=found.pid,
        ppid=found.ppid,
        command=found.command,
        state=found.state,
        cpu_percent=found.cpu_percent,
        rss_bytes=found.rss_bytes,
    )


def guest_vitals(sample: vitals.Vitals) -> pb.GuestVitals:
    """A sample as a message."""
    return pb.GuestVitals(
        sampled_at_unix=sample.sampled_at_unix,
        cpu_percent=sample.cpu_percent,
        cpu_steal_percent=sample.steal_percent,
        mem_used_bytes=sample.memory_used_bytes,
        mem_total_bytes=sample.memory_total_bytes,
        mem_balloon_bytes=sample.balloon_bytes,
        process_count=sample.process_count,
    )


def file_info(entry: FileEntry) -> pb.FileInfo:
    """A file as a message."""
    return pb.FileInfo(
        name=entry.name,
        path=entry.path,
        is_dir=entry.is_directory,
        size=entry.size,
        mode=entry.mode,
        modified_at_unix=entry.modified_at_unix,
    )
