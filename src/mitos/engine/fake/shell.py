"""Runs the scripts of the fake guest, each in a task that stands for its processes.

A job is what can be signalled: a command's first process, or one it put into the background. Its
`Process` is kept up to date while it runs, so that a snapshot at any moment holds it. A restored
job goes on with the statement it was in, from that statement's beginning, with its variables as
they were: a loop goes on looping.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import posixpath
import re
import shlex
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from mitos.engine.fake import builtin
from mitos.engine.fake.builtin import Leave
from mitos.engine.fake.expansion import Scope, expand
from mitos.engine.fake.filesystem import FileSystem
from mitos.engine.fake.pipe import Flow
from mitos.engine.fake.process import (
    FileSink,
    FileSource,
    FlowSink,
    FlowSource,
    NullSource,
    Process,
    Source,
    Streams,
    StreamSink,
)
from mitos.engine.fake.program import PROGRAMS
from mitos.engine.fake.syntax import (
    Command,
    For,
    Function,
    Group,
    If,
    Loop,
    Pipeline,
    Redirect,
    ShellSyntaxError,
    Simple,
    Statement,
    parse,
)

__all__ = ["Job", "Shell", "script_of"]

_log = logging.getLogger(__name__)

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_PROGRAM_FOLDERS = ("/bin", "/usr/bin", "/sbin", "/usr/sbin", "/usr/local/bin")
SUBSTITUTION_LIMIT_BYTES = 16 << 20
JOBS_REMEMBERED = 256
DEPTH_LIMIT = 40  # scripts and functions within one another
NOT_FOUND = 127


@dataclass(slots=True)
class Job:
    """A process with the task that runs it."""

    process: Process
    task: asyncio.Task[int] = field(init=False)
    signal_number: int = 0

    def kill(self, number: int) -> None:
        """Ends it as a signal does."""
        if not self.task.done():
            self.signal_number = self.signal_number or number
            self.task.cancel()


def script_of(argv: list[str]) -> list[Statement]:
    """A script that runs one program with these very words."""
    words = tuple(shlex.quote(word) for word in argv)
    return [Statement((Pipeline((Command(Simple(words)),)),))]


class Shell:
    """All jobs of a machine.

    Args:
        files: the machine's.
        may_run: waits while the machine is paused.
        spawn: makes a task that ends with the machine.
    """

    def __init__(
        self,
        files: FileSystem,
        *,
        may_run: Callable[[], Awaitable[object]],
        spawn: Callable[[Coroutine[Any, Any, int]], asyncio.Task[int]],
    ) -> None:
        self.files = files
        self._may_run = may_run
        self._spawn = spawn
        self.jobs: dict[int, Job] = {}
        self._last_pid = 1

    @property
    def processes(self) -> list[Process]:
        """Those that run."""
        return [job.process for job in self.jobs.values()]

    def next_pid(self) -> int:
        """A number no job has had."""
        self._last_pid += 1
        return self._last_pid

    def finds(self, name: str) -> bool:
        """True when there is such a program."""
        folder, base = posixpath.split(name)
        if folder and folder not in _PROGRAM_FOLDERS:
            return self.files.exists(name)
        return base in PROGRAMS or base in builtin.ALSO_PROGRAMS

    def start(self, process: Process, siblings: list[Job] | None = None) -> Job:
        """Lets a process run.

        Args:
            process: with its own pid.
            siblings: the jobs of the same command; those it starts are added.
        """
        job = Job(process)
        self.jobs[process.pid] = job
        self._last_pid = max(self._last_pid, process.pid)
        siblings = siblings if siblings is not None else []
        if len(siblings) >= JOBS_REMEMBERED:
            siblings[:] = [job for job in siblings if not job.task.done()]
        siblings.append(job)
        job.task = self._spawn(self._live(_Interpreter(self, siblings), process))
        return job

    async def _live(self, interpreter: _Interpreter, process: Process) -> int:
        try:
            return await interpreter.run(process)
        except BrokenPipeError:
            return 141
        except Exception:  # noqa: BLE001  a bug of the fake must not end the machine
            _log.exception("the fake shell failed")
            return 2
        finally:
            self.jobs.pop(process.pid, None)

    async def step(self) -> None:
        """Lets others run, and waits while the machine is paused."""
        await asyncio.sleep(0)
        await self._may_run()


class _Interpreter:
    """Runs the processes of one job."""

    def __init__(self, shell: Shell, siblings: list[Job]) -> None:
        self.shell = shell
        self._siblings = siblings
        self._depth = 0

    async def run(self, process: Process) -> int:
        """Runs what a process has left; returns its status."""
        self._depth += 1
        try:
            if self._depth > DEPTH_LIMIT:
                raise ShellSyntaxError("nested too deep")
            while process.rest:
                if process.inner is not None:
                    process.status, process.inner = await self.run(process.inner), None
                else:
                    await self._statement(process.rest[0], process, process.streams)
                process.rest.pop(0)
        except Leave as leave:
            process.status = leave.status
        except ShellSyntaxError as exc:
            await process.say(f"sh: 1: {exc}")
            process.status = 2
        finally:
            self._depth -= 1
        return process.status

    async def script(
        self, text: str, process: Process, streams: Streams, arguments: tuple[str, ...]
    ) -> int:
        """Runs a script in a process of its own, as `sh -c` does."""
        child = process.child(parse(text), streams=streams)
        child.functions, child.arguments = {}, arguments
        child.variables = process.environment
        is_last = len(process.rest) > 0 and isinstance(_sole(process.rest[0]), Simple)
        if is_last:
            process.inner = child
        try:
            return await self.run(child)
        finally:
            process.inner = None

    async def statements(
        self, statements: tuple[Statement, ...], process: Process, streams: Streams
    ) -> None:
        """Runs a list within a process."""
        for statement in statements:
            await self._statement(statement, process, streams)

    async def background(self, statement: Statement, process: Process, streams: Streams) -> None:
        """Starts a job that runs the statement."""
        streams = dataclasses.replace(streams, stdin=NullSource())
        pipelines = statement.pipelines
        if command := _sole_command(statement):
            streams = self._redirected(
                command.redirects, await self._targets(command, process), process, streams
            )
            pipelines = (Pipeline((Command(command.node),), pipelines[0].is_negated),)
        pid = self.shell.next_pid()
        self.shell.start(
            process.child([Statement(pipelines)], streams=streams, pid=pid), self._siblings
        )
        process.last_background_pid, process.status = pid, 0

    async def wait(self, pids: list[int], process: Process) -> int:
        """Waits for jobs this job's command started; returns the last one's status."""
        status = 0
        for job in [job for job in self._siblings if job.process.pid > process.pid]:
            if not pids or job.process.pid in pids:
                await asyncio.wait({job.task})
                status = 128 + job.signal_number if job.task.cancelled() else job.task.result()
        return status if pids else 0

    async def _statement(self, statement: Statement, process: Process, streams: Streams) -> None:
        if statement.is_background:
            await self.background(statement, process, streams)
            return
        for pipeline in statement.pipelines:
            if pipeline.operator and (pipeline.operator == "&&") != (process.status == 0):
                continue
            await self._pipeline(pipeline, process, streams)

    async def _pipeline(self, pipeline: Pipeline, process: Process, streams: Streams) -> None:
        if len(pipeline.commands) == 1:
            await self._command(pipeline.commands[0], process, streams)
        else:
            process.status = await self._joined(pipeline.commands, process, streams)
        if pipeline.is_negated:
            process.status = int(process.status == 0)

    async def _joined(
        self, commands: tuple[Command, ...], process: Process, streams: Streams
    ) -> int:
        flows = [Flow() for _ in commands[1:]]
        async with asyncio.TaskGroup() as group:
            tasks = list[asyncio.Task[int]]()
            for number, command in enumerate(commands):
                incoming = flows[number - 1] if number else None
                outgoing = flows[number] if number < len(flows) else None
                ends = Streams(
                    FlowSource(incoming) if incoming else streams.stdin,
                    FlowSink(outgoing) if outgoing else streams.stdout,
                    streams.stderr,
                )
                child = process.child([Statement((Pipeline((command,)),))], streams=ends)
                tasks.append(group.create_task(self._link(child, incoming, outgoing)))
        return tasks[-1].result()

    async def _link(self, process: Process, incoming: Flow | None, outgoing: Flow | None) -> int:
        try:
            return await _Interpreter(self.shell, self._siblings).run(process)
        finally:
            for flow in (incoming, outgoing):
                if flow is not None:
                    await flow.close()

    async def _command(self, command: Command, process: Process, streams: Streams) -> None:
        await self.shell.step()
        try:
            targets = await self._targets(command, process)
            streams = self._redirected(command.redirects, targets, process, streams)
            await self._node(command, process, streams)
        except BrokenPipeError:
            process.status = 141
        except OSError as exc:
            await process.say(f"sh: 1: {exc.filename}: {exc.strerror}")
            process.status = 2

    async def _node(self, command: Command, process: Process, streams: Streams) -> None:
        match command.node:
            case Simple(words):
                await self._simple(words, process, streams)
            case Group(body, is_subshell=True):
                process.status = await self.run(process.child(list(body), streams=streams))
            case Group(body):
                await self.statements(body, process, streams)
            case Function(name, body):
                process.functions[name], process.status = body, 0
            case If() as choice:
                await self._if(choice, process, streams)
            case Loop() as loop:
                await self._loop(loop, process, streams)
            case For() as loop:
                await self._for(loop, process, streams)

    async def _if(self, choice: If, process: Process, streams: Streams) -> None:
        for branch in choice.branches:
            await self.statements(branch.condition, process, streams)
            if process.status == 0:
                await self.statements(branch.body, process, streams)
                return
        process.status = 0
        await self.statements(choice.otherwise, process, streams)

    async def _loop(self, loop: Loop, process: Process, streams: Streams) -> None:
        status = 0
        while True:
            await self.statements(loop.condition, process, streams)
            if (process.status == 0) == loop.is_until:
                break
            if await self._round(loop.body, process, streams):
                return
            status = process.status
        process.status = status

    async def _for(self, loop: For, process: Process, streams: Streams) -> None:
        words = [word for raw in loop.words for word in await self._expanded(raw, process)]
        process.status = 0
        for word in words:
            process.variables[loop.name] = word
            if await self._round(loop.body, process, streams):
                return

    async def _round(self, body: tuple[Statement, ...], process: Process, streams: Streams) -> bool:
        """Runs a loop's body once; True when it left the loop."""
        try:
            await self.statements(body, process, streams)
        except builtin.LeaveLoop as leave:
            process.status = 0
            if leave.levels > 1:
                raise builtin.LeaveLoop(leave.levels - 1, goes_on=leave.goes_on) from None
            return not leave.goes_on
        return False

    async def _simple(self, words: tuple[str, ...], process: Process, streams: Streams) -> None:
        assigned, rest = dict[str, str](), list(words)
        while rest and (found := _ASSIGNMENT.fullmatch(rest[0])):
            (assigned[found.group(1)],) = await self._expanded(found.group(2), process, split=False)
            rest.pop(0)
        argv = [word for raw in rest for word in await self._expanded(raw, process)]
        if not argv:
            process.variables |= assigned
            process.status = 0
            return
        saved, exported = process.variables, process.exported
        if assigned:
            process.variables = saved | assigned
            process.exported = exported | assigned.keys()
        try:
            process.status = await self.execute(argv, process, streams)
        finally:
            if assigned:
                process.variables, process.exported = saved, exported

    async def execute(self, argv: list[str], process: Process, streams: Streams) -> int:
        """Runs a function, a builtin or a program."""
        if body := process.functions.get(argv[0]):
            return await self._function(body, argv, process, streams)
        folder, name = posixpath.split(argv[0])
        if not folder and (built_in := builtin.BUILTINS.get(name)):
            return await built_in(self, process, streams, argv[1:])
        if folder and folder not in _PROGRAM_FOLDERS:
            return await self._file(argv, process, streams)
        if name in builtin.ALSO_PROGRAMS:
            return await builtin.BUILTINS[name](self, process, streams, argv[1:])
        if program := PROGRAMS.get(name):
            return await program(
                dataclasses.replace(process, streams=streams), self.shell.files, argv[1:]
            )
        await dataclasses.replace(process, streams=streams).say(f"sh: 1: {argv[0]}: not found")
        return NOT_FOUND

    async def _function(
        self, body: Command, argv: list[str], process: Process, streams: Streams
    ) -> int:
        saved, process.arguments = process.arguments, (process.arguments[0], *argv[1:])
        self._depth += 1
        try:
            if self._depth > DEPTH_LIMIT:
                raise ShellSyntaxError("functions call one another too deep")
            await self._command(body, process, streams)
        except builtin.Return as leave:
            process.status = leave.status
        finally:
            self._depth -= 1
            process.arguments = saved
        return process.status

    async def _file(self, argv: list[str], process: Process, streams: Streams) -> int:
        files, said = self.shell.files, dataclasses.replace(process, streams=streams)
        if not files.exists(argv[0], cwd=process.cwd):
            await said.say(f"sh: 1: {argv[0]}: not found")
            return NOT_FOUND
        entry = files.stat(argv[0], cwd=process.cwd, follow=True)
        if entry.is_directory or not entry.mode & 0o111:
            await said.say(f"sh: 1: {argv[0]}: Permission denied")
            return 126
        return await self.script(
            entry.content.decode("utf-8", "surrogateescape"), process, streams, tuple(argv)
        )

    async def _expanded(self, word: str, process: Process, *, split: bool = True) -> list[str]:
        async def substitute(text: str) -> str:
            return await self._substituted(text, process)

        if split and word == '"$@"':
            return list(process.arguments[1:])
        scope = Scope(process.lookups, self.shell.files, process.cwd, substitute)
        return await expand(word, scope, split=split)

    async def _substituted(self, text: str, process: Process) -> str:
        output = bytearray()

        async def collect(data: bytes) -> None:
            if len(output) + len(data) > SUBSTITUTION_LIMIT_BYTES:
                raise BrokenPipeError("a substitution is too long")
            output.extend(data)

        streams = dataclasses.replace(process.streams, stdout=StreamSink(collect))
        process.status = await self.run(process.child(parse(text), streams=streams))
        return output.decode("utf-8", "surrogateescape")

    async def _targets(self, command: Command, process: Process) -> list[str]:
        targets = list[str]()
        for redirect in command.redirects:
            targets += await self._expanded(redirect.target, process, split=False)
        return targets

    def _redirected(
        self,
        redirects: tuple[Redirect, ...],
        targets: list[str],
        process: Process,
        streams: Streams,
    ) -> Streams:
        files = self.shell.files
        ends: dict[int, Any] = {0: streams.stdin, 1: streams.stdout, 2: streams.stderr}
        for redirect, target in zip(redirects, targets, strict=True):
            if redirect.operator in (">&", "<&"):
                if not target.isdigit() or int(target) not in ends:
                    raise OSError(9, "Bad file descriptor", target)
                ends[redirect.descriptor] = ends[int(target)]
                continue
            path = files.locate(target, cwd=process.cwd)
            if redirect.operator == "<":
                ends[redirect.descriptor] = FileSource(files, path)
                continue
            files.write(path, b"", append=redirect.operator == ">>")
            ends[redirect.descriptor] = FileSink(files, path)
        source: Source = ends[0]
        return Streams(source, ends[1], ends[2])


def _sole_command(statement: Statement) -> Command | None:
    pipelines = statement.pipelines
    if len(pipelines) == 1 and len(pipelines[0].commands) == 1:
        return pipelines[0].commands[0]
    return None


def _sole(statement: Statement) -> object:
    command = _sole_command(statement)
    return command and command.node
