"""Commands of the fake guest: a few shell words, run on its file system."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from mitos.engine.fake.filesystem import FileSystem

__all__ = ["Outcome", "Shell", "UnknownCommandError"]

_OPERATORS = ("&&", "||", ";", "&")
NOT_FOUND = 127


class UnknownCommandError(Exception):
    """No such program, run without a shell."""


@dataclass
class Outcome:
    """What a command did."""

    stdout: bytes = b""
    stderr: bytes = b""
    exit_code: int = 0
    signal: int = 0
    wants_exit: bool = False
    environment: dict[str, str] = field(default_factory=dict)


class Shell:
    """Runs command lines.

    Args:
        files: the guest's files.
        environment: its variables.
        hostname: what `hostname` prints.
    """

    def __init__(self, files: FileSystem, environment: Mapping[str, str], hostname: str) -> None:
        self._files = files
        self._environment = dict(environment)
        self._hostname = hostname
        self._cwd = "/workspace"

    async def run(self, argv: list[str], stdin: bytes, cwd: str) -> Outcome:
        """Runs a program, or a line for `/bin/sh -c`.

        Raises:
            UnknownCommandError: no such program.
            OSError: no such working directory.
        """
        if cwd and not self._files.stat(cwd).is_directory:
            raise NotADirectoryError(20, "Not a directory", cwd)
        self._cwd = cwd or self._cwd
        if argv[0].rpartition("/")[2] == "sh" and argv[1:2] == ["-c"]:
            return await self._line(" ".join(argv[2:3]), stdin)
        outcome = await self._command(argv, stdin)
        if outcome.exit_code == NOT_FOUND:
            raise UnknownCommandError(argv[0])
        return outcome

    async def _line(self, text: str, stdin: bytes) -> Outcome:
        lexer = shlex.shlex(text.replace("\n", ";"), posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split = True
        lexer.commenters = ""
        whole, skip = Outcome(), False
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word not in _OPERATORS:
                words.append(word)
                continue
            if words and not skip:
                step = await self._redirected(words, stdin)
                whole.stdout += step.stdout
                whole.stderr += step.stderr
                whole.exit_code, whole.signal = step.exit_code, step.signal
                if step.wants_exit or step.signal:
                    return whole
            failed = whole.exit_code != 0
            skip = (word == "&&" and failed) or (word == "||" and not failed)
            words = []
        return whole

    async def _redirected(self, words: list[str], stdin: bytes) -> Outcome:
        argv: list[str] = []
        sinks: list[tuple[str, str, str]] = []
        rest = iter(words)
        for word in rest:
            if word in (">", ">>"):
                channel = argv.pop() if argv and argv[-1] in ("1", "2") else "1"
                sinks.append((channel, word, next(rest, "")))
            elif word == ">&":
                sinks.append((argv.pop(), word, next(rest, "")))
            elif word == "<":
                stdin = self._files.read(next(rest, ""))
            else:
                argv.append(self._expanded(word))
        outcome = await self._command(argv, stdin)
        for channel, operator, target in sinks:
            self._redirect(outcome, channel, operator, target)
        return outcome

    def _redirect(self, outcome: Outcome, channel: str, operator: str, target: str) -> None:
        name, other = ("stderr", "stdout") if channel == "2" else ("stdout", "stderr")
        data = getattr(outcome, name)
        setattr(outcome, name, b"")
        if operator == ">&":
            setattr(outcome, other, getattr(outcome, other) + data)
            return
        path = self._path(target)
        old = b""
        if operator == ">>":
            try:
                old = self._files.read(path)
            except FileNotFoundError:
                old = b""
        self._files.write(path, old + data)

    def _expanded(self, word: str) -> str:
        for name, value in self._environment.items():
            word = word.replace(f"${name}", value).replace(f"${{{name}}}", value)
        return word

    def _path(self, path: str) -> str:
        return path if path.startswith("/") else f"{self._cwd}/{path}"

    async def _command(self, argv: list[str], stdin: bytes) -> Outcome:
        name, arguments = (argv[0] if argv else "true").rpartition("/")[2], argv[1:]
        try:
            return await self._builtin(name, arguments, stdin)
        except OSError as exc:
            return Outcome(stderr=f"{name}: {exc.filename}: {exc.strerror}\n".encode(), exit_code=1)

    async def _builtin(self, name: str, arguments: list[str], stdin: bytes) -> Outcome:  # noqa: C901, PLR0911, PLR0912
        match name, arguments:
            case (("true" | ":" | "nohup" | "export"), _):
                return Outcome()
            case "false", _:
                return Outcome(exit_code=1)
            case "echo", words:
                return Outcome(stdout=(" ".join(words) + "\n").encode())
            case "printf", [text, *_]:
                return Outcome(stdout=text.encode().decode("unicode_escape").encode())
            case "pwd", _:
                return Outcome(stdout=f"{self._cwd}\n".encode())
            case "cd", [path]:
                self._cwd = self._files.resolve(self._path(path))
                return Outcome()
            case "hostname", _:
                return Outcome(stdout=f"{self._hostname}\n".encode())
            case "env", _:
                lines = (f"{key}={value}\n" for key, value in self._environment.items())
                return Outcome(stdout="".join(lines).encode())
            case "cat", paths:
                found = b"".join(self._files.read(self._path(path)) for path in paths)
                return Outcome(stdout=found if paths else stdin)
            case "ls", paths:
                entries = self._files.list(self._path(paths[0]) if paths else self._cwd)
                names = (path.rpartition("/")[2] for path, _ in entries)
                return Outcome(stdout="".join(f"{name}\n" for name in names).encode())
            case "mkdir", ["-p", path] | [path]:
                self._files.make_directory(self._path(path))
                return Outcome()
            case "rm", [*_, path]:
                self._files.remove(self._path(path), recursive=True)
                return Outcome()
            case "sleep", [seconds]:
                await asyncio.sleep(float(seconds))
                return Outcome()
            case "kill", [_, "$$"]:
                return Outcome(signal=9)
            case "exit", codes:
                return Outcome(exit_code=int(codes[0]) if codes else 0, wants_exit=True)
        return Outcome(stderr=f"sh: 1: {name}: not found\n".encode(), exit_code=NOT_FOUND)
