"""The runtime service `sandbox.v1.Sandbox`: each RPC as a call on a sandbox's agent.

Connect itself (framing, codecs, compression, deadlines) is the `connectrpc` runtime's; this module
turns messages into calls and answers into messages. `runtime/application.py` serves it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

from connectrpc.request import RequestContext

from mitos.agent.client import AgentClient
from mitos.agent.command import ExecRequest
from mitos.agent.file import ChangeKind
from mitos.agent.transfer import download, tar, upload
from mitos.node import vitals
from mitos.node.tenant import Tenant
from mitos.server.errors import connect_errors
from mitos.server.runtime import feed, lifecycle, listing, stream
from mitos.server.runtime.command import CommandCall
from mitos.server.runtime.execution import Timeouts, exec_request
from mitos.server.runtime.messages import (
    OPENED,
    code_messages,
    exec_messages,
    file_chunks,
    file_info,
    guest_vitals,
    process_info,
    tunnel_frames,
)
from mitos.server.settings import ServerSettings
from mitos.server.tenant import Tenants
from mitos.wire._generated.sandbox.v1 import sandbox_pb as pb
from mitos.wire._generated.sandbox.v1.sandbox_connect import Sandbox
from mitos.wire.errors import ApiError
from mitos.wire.ids import is_valid_id

__all__ = ["RuntimeService"]

MIN_VITALS_INTERVAL_S = 1
"""Also what no interval, or one below 0, means."""

_Context = RequestContext[Any, Any]


class RuntimeService(Sandbox):
    """The service.

    Args:
        tenants: whose sandboxes they are.
        settings: default timeouts.
    """

    def __init__(self, tenants: Tenants, settings: ServerSettings) -> None:
        self._tenants = tenants
        self._settings = settings

    async def exec_stream(
        self, request: pb.ExecStreamRequest, ctx: _Context, /
    ) -> AsyncGenerator[pb.ExecResponse]:
        """Runs a command without input; output as it comes, then its exit."""
        with self._stream(ctx) as (sandbox_id, agent):
            call = CommandCall.of(ctx.request_headers)
            if call.attaches:
                opened = agent.attach(call.id, call.offset)
            else:
                opened = agent.exec(call.name(self._exec_request(request, sandbox_id, stdin=False)))
            async with opened as command, aclosing(exec_messages(command)) as messages:
                ctx.response_headers.update(call.answer(command))
                if call.is_kept:
                    yield OPENED
                async for message in messages:
                    yield message

    async def exec(
        self, request: AsyncIterator[pb.ExecRequest], ctx: _Context, /
    ) -> AsyncGenerator[pb.ExecResponse]:
        """Runs a command with input, on a terminal if asked."""
        with self._stream(ctx) as (sandbox_id, agent):
            opened = await stream.first(request, "open")
            call = CommandCall.of(ctx.request_headers)
            call.refuse_attach()
            wanted = call.name(self._exec_request(opened, sandbox_id, stdin=True))
            async with (
                agent.exec(wanted) as command,
                aclosing(exec_messages(command)) as answers,
                aclosing(stream.together(answers, feed.command(command, request))) as messages,
            ):
                ctx.response_headers.update(call.answer(command))
                if call.is_kept:
                    yield OPENED
                async for message in messages:
                    yield message

    async def read_file(
        self, request: pb.ReadFileRequest, ctx: _Context, /
    ) -> AsyncGenerator[pb.Chunk]:
        """The file's content; the last message has `eof`."""
        with self._agent(ctx) as agent:
            async with aclosing(file_chunks(agent.read_file(request.path))) as messages:
                async for message in messages:
                    yield message

    async def write_file(
        self, request: AsyncIterator[pb.WriteFileRequest], ctx: _Context, /
    ) -> pb.WriteFileResult:
        """Replaces a file in one step once all of it has come."""
        with self._agent(ctx) as agent:
            opened = await stream.first(request, "open")
            written = await agent.write_file(opened.path, feed.contents(request), mode=opened.mode)
            return pb.WriteFileResult(bytes_written=written)

    async def list(self, request: pb.ListRequest, ctx: _Context, /) -> pb.ListResponse:
        """The entries of a directory, or the one of a file."""
        with self._agent(ctx) as agent:
            entries, token = listing.page(
                await agent.list_directory(request.parent),
                size=request.page_size,
                token=request.page_token,
                wanted=request.filter,
            )
            infos = [file_info(entry) for entry in entries]
            return pb.ListResponse(entries=infos, next_page_token=token)

    async def stat(self, request: pb.StatRequest, ctx: _Context, /) -> pb.FileInfo:
        """What is at a path, links not followed."""
        with self._agent(ctx) as agent:
            return file_info(await agent.stat(request.path))

    async def archive(
        self, request: pb.ArchiveRequest, ctx: _Context, /
    ) -> AsyncGenerator[pb.Chunk]:
        """A tree of `/workspace` as tar; the last message has `eof`."""
        with self._agent(ctx) as agent:
            if request.direction != pb.ArchiveRequest.Direction.DOWNLOAD:
                raise ApiError("invalid_input", "the direction of Archive must be DOWNLOAD")
            content = download.archive(agent, tar.workspace_path(request.path))
            async with aclosing(file_chunks(content)) as messages:
                async for message in messages:
                    yield message

    async def upload(
        self, request: AsyncIterator[pb.UploadRequest], ctx: _Context, /
    ) -> pb.UploadResult:
        """Unpacks a tar below a folder of `/workspace`."""
        with self._agent(ctx) as agent:
            opened = await stream.first(request, "open")
            dest = tar.workspace_path(opened.dest)
            written = await upload.upload(agent, dest, feed.tar_chunks(request))
            return pb.UploadResult(bytes_written=written)

    async def watch(self, request: pb.WatchRequest, ctx: _Context, /) -> AsyncGenerator[pb.FsEvent]:
        """What changes in a folder of `/workspace`, until the caller goes away.

        With the header `X-Mitos-Watch-Ready` the first event has no kind and says that from now on
        nothing is missed.
        """
        ready = bool(ctx.request_headers.get("x-mitos-watch-ready"))
        with self._agent(ctx) as agent:
            path = tar.workspace_path(request.path)
            async with aclosing(agent.watch(path, recursive=request.recursive)) as changes:
                async for change in changes:
                    if ready or change.kind is not ChangeKind.READY:
                        yield pb.FsEvent(
                            kind=pb.FsEvent.Kind(change.kind),
                            path=change.path,
                            new_path=change.new_path,
                        )

    async def mkdir(self, request: pb.MkdirRequest, ctx: _Context, /) -> pb.MkdirResponse:
        """Makes a directory and its parents."""
        with self._agent(ctx) as agent:
            await agent.make_directory(request.path)
            return pb.MkdirResponse()

    async def remove(self, request: pb.RemoveRequest, ctx: _Context, /) -> pb.RemoveResponse:
        """Removes a file or tree; published clients cannot ask for less."""
        with self._agent(ctx) as agent:
            await agent.remove(request.path)
            return pb.RemoveResponse()

    async def processes(self, _request: pb.ProcessesRequest, ctx: _Context, /) -> pb.ProcessList:
        """What runs in the sandbox, with shares of CPU over 100 ms."""
        with self._agent(ctx) as agent:
            found = await vitals.read_processes(agent)
            return pb.ProcessList(processes=[process_info(each) for each in found])

    async def signal(self, request: pb.SignalRequest, ctx: _Context, /) -> pb.SignalResponse:
        """Signals one process; never the agent."""
        with self._agent(ctx) as agent:
            await agent.signal(request.pid, request.signal)
            return pb.SignalResponse()

    async def vitals(
        self, request: pb.VitalsRequest, ctx: _Context, /
    ) -> AsyncGenerator[pb.GuestVitals]:
        """Samples of the whole sandbox, until it ends or the client goes away."""
        with connect_errors():
            interval_s = max(request.interval_seconds, MIN_VITALS_INTERVAL_S)
            samples = self._tenant.vitals(_sandbox_id(ctx), interval_s)
            async with aclosing(samples):
                async for sample in samples:
                    yield guest_vitals(sample)

    async def fork(self, request: pb.ForkRequest, ctx: _Context, /) -> pb.Operation:
        """Makes siblings of the sandbox."""
        with connect_errors():
            return await lifecycle.fork(self._tenant, _sandbox_id(ctx), request)

    async def checkpoint(self, request: pb.CheckpointRequest, ctx: _Context, /) -> pb.Revision:
        """Keeps a snapshot of the sandbox."""
        with connect_errors():
            return await lifecycle.checkpoint(self._tenant, _sandbox_id(ctx), request)

    async def extend_lifetime(self, request: pb.ExtendRequest, ctx: _Context, /) -> pb.Lease:
        """Moves the sandbox's deadline."""
        with connect_errors():
            return lifecycle.extend_lifetime(self._tenant, _sandbox_id(ctx), request)

    async def budget(self, _request: pb.BudgetRequest, ctx: _Context, /) -> pb.BudgetStatus:
        """What is left of the server's bounds."""
        with connect_errors():
            return lifecycle.budget(self._tenant, _sandbox_id(ctx))

    async def port_forward(
        self, request: AsyncIterator[pb.Frame], ctx: _Context, /
    ) -> AsyncGenerator[pb.Frame]:
        """Bytes to and from a port of the sandbox; ends when the port has said all it had to."""
        with self._stream(ctx) as (_, agent):
            opened = await stream.first(request, "open")
            async with (
                agent.dial(opened.port) as tunnel,
                aclosing(tunnel_frames(tunnel)) as answers,
                aclosing(stream.together(answers, feed.tunnel(tunnel, request))) as frames,
            ):
                async for frame in frames:
                    yield frame

    async def run_code_stream(
        self, request: pb.RunCodeStreamRequest, ctx: _Context, /
    ) -> AsyncGenerator[pb.RunCodeResponse]:
        """Runs a cell in the sandbox's kernel."""
        with self._stream(ctx) as (sandbox_id, agent):
            async with aclosing(self._run_code(agent, request, sandbox_id)) as messages:
                async for message in messages:
                    yield message

    async def run_code(
        self, request: AsyncIterator[pb.RunCodeRequest], ctx: _Context, /
    ) -> AsyncGenerator[pb.RunCodeResponse]:
        """The same; a cell has no input, so what follows `open` is dropped."""
        with self._stream(ctx) as (sandbox_id, agent):
            opened = await stream.first(request, "open")
            async with (
                aclosing(self._run_code(agent, opened, sandbox_id)) as answers,
                aclosing(stream.together(answers, stream.drop(request))) as messages,
            ):
                async for message in messages:
                    yield message

    async def _run_code(
        self, agent: AgentClient, request: pb.RunCodeOpen | pb.RunCodeStreamRequest, sandbox_id: str
    ) -> AsyncGenerator[pb.RunCodeResponse]:
        timeout_s = self._timeouts.of_code(request.timeout_seconds, sandbox_id)
        language = request.language or "python"
        async with agent.run_code(request.code, language=language, timeout_s=timeout_s) as events:
            async for event in events:
                for message in code_messages(event):
                    yield message

    def _exec_request(
        self, request: pb.ExecOpen | pb.ExecStreamRequest, sandbox_id: str, *, stdin: bool
    ) -> ExecRequest:
        return exec_request(request, sandbox_id, self._timeouts, stdin=stdin)

    @property
    def _tenant(self) -> Tenant:
        """The caller's view of the node."""
        return self._tenants.current()

    @property
    def _timeouts(self) -> Timeouts:
        return Timeouts.of(self._settings, self._tenant)

    @contextlib.contextmanager
    def _agent(self, ctx: _Context) -> Iterator[AgentClient]:
        with connect_errors():
            yield self._tenant.agent(_sandbox_id(ctx))

    @contextlib.contextmanager
    def _stream(self, ctx: _Context) -> Iterator[tuple[str, AgentClient]]:
        with connect_errors():
            sandbox_id = _sandbox_id(ctx)
            with self._tenant.stream(sandbox_id) as agent:
                yield sandbox_id, agent


def _sandbox_id(ctx: _Context) -> str:
    sandbox_id = ctx.request_headers.get("x-sandbox-id") or ""
    if not is_valid_id(sandbox_id):
        raise ApiError(
            "invalid_input",
            "the X-Sandbox-Id header is missing or no sandbox id",
            remediation="Send the id that create or fork returned.",
        )
    return sandbox_id
