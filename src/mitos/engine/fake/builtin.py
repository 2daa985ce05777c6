# ruff: noqa: ARG001  all have one signature
"""Commands that change the shell itself or start others: `cd`, `export`, `sh`, `nohup`, `kill`.

`program` has those that only read and write; `shell` runs both.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from mitos.engine.fake.process import Process, Streams
from mitos.engine.fake.syntax import ShellSyntaxError, parse

if TYPE_CHECKING:
    from mitos.engine.fake.shell import _Interpreter

__all__ = ["ALSO_PROGRAMS", "BUILTINS", "Leave", "LeaveLoop", "Return"]

Builtin = Callable[["_Interpreter", Process, Streams, list[str]], Awaitable[int]]

LINE_LIMIT_BYTES = 1 << 20
_SIGNALS = {"HUP": 1, "INT": 2, "QUIT": 3, "KILL": 9, "TERM": 15}


class Leave(Exception):  # noqa: N818  flow of a script, not an error
    """`exit`."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Return(Leave):
    """`return`."""


class LeaveLoop(Leave):
    """`break` and `continue`."""

    def __init__(self, levels: int, *, goes_on: bool) -> None:
        super().__init__(0)
        self.levels = levels
        self.goes_on = goes_on


async def _cd(run: _Interpreter, process: Process, streams: Streams, words: list[str]) -> int:
    wanted = words[0] if words else process.variables.get("HOME", "/root")
    path = run.shell.files.locate(wanted, cwd=process.cwd)
    if not run.shell.files.exists(path) or not run.shell.files.stat(path).is_directory:
        await _say(process, streams, f"sh: 1: cd: can't cd to {wanted}")
        return 2
    process.cwd = path
    return 0


async def _export(run: _Interpreter, process: Process, streams: Streams, words: list[str]) -> int:
    for word in words:
        name, equals, value = word.partition("=")
        if equals:
            process.variables[name] = value
        process.exported.add(name)
    return 0


async def _unset(run: _Interpreter, process: Process, streams: Streams, words: list[str]) -> int:
    for name in words:
        process.variables.pop(name, None)
    return 0


async def _exit(run: _Interpreter, process: Process, streams: Streams, words: list[str]) -> int:
    raise Leave(_number(words, process.status) & 0xFF)


async def _return(run: _Interpreter, process: Process, streams: Streams, words: list[str]) -> int:
    raise Return(_number(words, process.status) & 0xFF)


async def _break(run: _Interpreter, process: Process, streams: Streams, words: list[str]) -> int:
    raise LeaveLoop(_number(words, 1), goes_on=False)


async def _continue(run: _Interpreter, process: Process, streams: Streams, words: list[str]) -> int:
    raise LeaveLoop(_number(words, 1), goes_on=True)


async def _set(run: _Interpreter, process: Process, streams: Streams, words: list[str]) -> int:
    if words[:1] == ["--"]:
        process.arguments = (process.arguments[0], *words[1:])
    return 0


async def _shift(run: _Interpreter, process: Process, streams: Streams, words: list[str]) -> int:
    process.arguments = (process.arguments[0], *process.arguments[1 + _number(words, 1) :])
    return 0


async def _eval(run: _Interpreter, process: Process, streams: Streams, words: list[str]) -> int:
    await run.statements(tuple(parse(" ".join(words))), process, streams)
    return process.status


async def _wait(run: _Interpreter, process: Process, streams: Streams, words: list[str]) -> int:
    return await run.wait([int(word) for word in words if word.isdigit()], process)


async def _read(run: _Interpreter, process: Process, streams: Streams, words: list[str]) -> int:
    line = bytearray()
    while not line.endswith(b"\n") and (data := await streams.stdin.read()):
        line += data[: LINE_LIMIT_BYTES - len(line)]
    names = [word for word in words if not word.startswith("-")] or ["REPLY"]
    values = line.decode("utf-8", "surrogateescape").rstrip("\n").split(None, len(names) - 1)
    for number, name in enumerate(names):
        process.variables[name] = values[number] if number < len(values) else ""
    return 0 if line.endswith(b"\n") else 1


async def _kill(run: _Interpreter, process: Process, streams: Streams, words: list[str]) -> int:
    number, status = 15, 0
    if words and words[0].startswith("-"):
        name = words.pop(0).lstrip("-").removeprefix("SIG")
        name = words.pop(0) if name == "s" and words else name
        number = _SIGNALS.get(name, int(name) if name.isdigit() else 15)
    for word in words:
        job = run.shell.jobs.get(int(word)) if word.isdigit() else None
        if job is None:
            await _say(process, streams, f"sh: 1: kill: No such process: {word}")
            status = 1
        elif number:
            job.kill(number)
    await asyncio.sleep(0)  # it may have been this one
    return status


async def _env(run: _Interpreter, process: Process, streams: Streams, words: list[str]) -> int:
    child = process.child([])
    while words and "=" in words[0]:
        await _export(run, child, streams, [words.pop(0)])
    if words:
        return await run.execute(words, child, streams)
    lines = (f"{name}={value}\n" for name, value in child.environment.items())
    await streams.stdout.write("".join(lines).encode("utf-8", "surrogateescape"))
    return 0


async def _prefix(run: _Interpreter, process: Process, streams: Streams, words: list[str]) -> int:
    return await run.execute(words, process, streams) if words else 0


async def _exec(run: _Interpreter, process: Process, streams: Streams, words: list[str]) -> int:
    raise Leave(await run.execute(words, process, streams) if words else 0)


async def _sh(run: _Interpreter, process: Process, streams: Streams, words: list[str]) -> int:
    flags = ""
    while words and words[0].startswith("-"):
        flags += words.pop(0)[1:]
    try:
        if "c" in flags:
            arguments = tuple(words[1:]) or ("sh",)
            return await run.script(words[0] if words else "", process, streams, arguments)
        if words:
            content = b"".join(run.shell.files.read(words[0], cwd=process.cwd))
            text = content.decode("utf-8", "surrogateescape")
            return await run.script(text, process, streams, tuple(words))
    except ShellSyntaxError as exc:
        await _say(process, streams, f"sh: 1: {exc}")
        return 2
    return await _converse(run, process, streams)


async def _converse(run: _Interpreter, process: Process, streams: Streams) -> int:
    """Runs the lines of the standard input as they come."""
    child, pending = process.child([], streams=streams), b""
    prompt = b"$ " if "TERM" in process.variables else b""
    await streams.stdout.write(prompt)
    while data := await streams.stdin.read():
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            try:
                text = line.decode("utf-8", "surrogateescape")
                await run.statements(tuple(parse(text)), child, streams)
            except ShellSyntaxError as exc:
                await _say(process, streams, f"sh: 1: {exc}")
            except Leave as leave:
                return leave.status
            await streams.stdout.write(prompt)
        if len(pending) > LINE_LIMIT_BYTES:
            return 2
    if pending:
        child.rest = parse(pending.decode("utf-8", "surrogateescape"))
        return await run.run(child)
    return child.status


async def _say(process: Process, streams: Streams, text: str) -> None:
    await dataclasses.replace(process, streams=streams).say(text)


def _number(words: list[str], default: int) -> int:
    return int(words[0]) if words and words[0].isdigit() else default


BUILTINS: Mapping[str, Builtin] = {
    "cd": _cd, "export": _export, "readonly": _export, "local": _export, "unset": _unset,
    "exit": _exit, "return": _return, "break": _break, "continue": _continue, "set": _set,
    "shift": _shift, "eval": _eval, "wait": _wait, "read": _read, "kill": _kill, "env": _env,
    "nohup": _prefix, "setsid": _prefix, "command": _prefix, "exec": _exec,
    "sh": _sh, "bash": _sh, "dash": _sh,
}  # fmt: skip

ALSO_PROGRAMS = frozenset({"sh", "bash", "dash", "env", "nohup", "setsid", "kill"})
"""Those that are files of `/bin` too, so a command may be one of them."""
