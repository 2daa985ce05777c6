# ruff: noqa: ARG001, ARG005  all have one signature
"""The programs of the fake guest: each takes a process and its arguments, and gives a status."""

from __future__ import annotations

import asyncio
import errno
import posixpath
import re
import stat
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

from mitos.engine.fake.filesystem import FileSystem, fail
from mitos.engine.fake.process import FileSource, Process, Source, whole

__all__ = ["PROGRAMS", "Program"]

Program = Callable[[Process, FileSystem, list[str]], Awaitable[int]]


class _UsageError(Exception):
    """The arguments make no sense to the program."""


async def _true(process: Process, files: FileSystem, words: list[str]) -> int:
    return 0


async def _false(process: Process, files: FileSystem, words: list[str]) -> int:
    return 1


async def _echo(process: Process, files: FileSystem, words: list[str]) -> int:
    end = "\n"
    while words and words[0] in ("-n", "-e"):
        end = "" if words.pop(0) == "-n" else end
    await process.stdout.write(_encoded(" ".join(words) + end))
    return 0


async def _printf(process: Process, files: FileSystem, words: list[str]) -> int:
    if not words:
        raise _UsageError("usage: printf format [arguments]")
    form, arguments = _unescaped(words[0]), words[1:]
    size = len(re.findall(r"%[-0-9.]*[sdix]", form.replace("%%", "")))
    while True:
        now, arguments = arguments[:size], arguments[size:]
        await process.stdout.write(_encoded(_formatted(form, now)))
        if not (arguments and size):
            return 0


def _formatted(form: str, arguments: list[str]) -> str:
    rest = iter(arguments)

    def value(match: re.Match[str]) -> str:
        if match.group() == "%%":
            return "%"
        word, kind = next(rest, ""), match.group()[-1]
        if not re.fullmatch(r"-?\d{0,4}(?:\.\d{1,4})?", match.group()[1:-1]):
            raise _UsageError(f"{match.group()}: invalid directive")
        return match.group() % (word if kind == "s" else int(word or "0"))

    return re.sub(r"%%|%[-0-9.]*[sdix]", value, form)


def _unescaped(text: str) -> str:
    named = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "\\": "\\"}

    def value(match: re.Match[str]) -> str:
        code = match.group(1)
        if code in named:
            return named[code]
        number = int(code[1:], 16) if code.startswith("x") else int(code, 8)
        return bytes([number & 0xFF]).decode("utf-8", "surrogateescape")

    return re.sub(r"\\(x[0-9a-fA-F]{1,2}|[0-7]{1,3}|[ntrab\\])", value, text)


async def _cat(process: Process, files: FileSystem, words: list[str]) -> int:
    for source in _sources(process, files, words):
        while piece := await source.read():
            await process.stdout.write(piece)
            await asyncio.sleep(0)
    return 0


async def _head(process: Process, files: FileSystem, words: list[str]) -> int:
    options, paths = _options(words, with_value="nc")
    wanted = int(options.get("c", options.get("n", "10")))
    for source in _sources(process, files, paths):
        left = wanted
        while left > 0 and (piece := await source.read()):
            if "c" in options:
                piece = piece[:left]
                left -= len(piece)
            else:
                lines = piece.splitlines(keepends=True)[:left]
                piece, left = b"".join(lines), left - b"".join(lines).count(b"\n")
            await process.stdout.write(piece)
    return 0


async def _tail(process: Process, files: FileSystem, words: list[str]) -> int:
    options, paths = _options(words, with_value="nc")
    for source in _sources(process, files, paths):
        content = await whole(source)
        if "c" in options:
            await process.stdout.write(content[-int(options["c"]) :])
        else:
            lines = content.splitlines(keepends=True)[-int(options.get("n", "10")) :]
            await process.stdout.write(b"".join(lines))
    return 0


async def _count(process: Process, files: FileSystem, words: list[str]) -> int:
    options, paths = _options(words)
    for source in _sources(process, files, paths):
        content = await whole(source)
        counts = {"l": content.count(b"\n"), "w": len(content.split()), "c": len(content)}
        shown = [str(counts[name]) for name in "lwc" if name in options or not options]
        await process.stdout.write(_encoded(" ".join(shown) + "\n"))
    return 0


async def _grep(process: Process, files: FileSystem, words: list[str]) -> int:
    options, (pattern, *paths) = _options(words)
    try:
        wanted = re.compile(_encoded(pattern), re.IGNORECASE if "i" in options else 0)
    except re.error as exc:
        raise _UsageError(f"grep: {exc}") from exc
    found = list[bytes]()
    for source in _sources(process, files, paths):
        lines = (await whole(source)).splitlines()
        found += [line for line in lines if bool(wanted.search(line)) != ("v" in options)]
    if "c" in options:
        await process.stdout.write(f"{len(found)}\n".encode())
    elif "q" not in options:
        await process.stdout.write(b"".join(line + b"\n" for line in found))
    return 0 if found else 1


async def _ls(process: Process, files: FileSystem, words: list[str]) -> int:
    options, paths = _options(words)
    for path in paths or ["."]:
        entries = files.entries(path, cwd=process.cwd)
        is_directory = files.stat(path, cwd=process.cwd, follow=True).is_directory
        for full, entry in entries:
            name = posixpath.basename(full) if is_directory and "d" not in options else path
            if name.startswith(".") and is_directory and not {"a", "A"} & options.keys():
                continue
            arrow = f" -> {entry.target}" if entry.is_link else ""
            line = f"{stat.filemode(entry.mode)} 1 root root {entry.size_bytes} {name}{arrow}"
            await process.stdout.write(_encoded(f"{line if 'l' in options else name}\n"))
    return 0


async def _mkdir(process: Process, files: FileSystem, words: list[str]) -> int:
    options, paths = _options(words)
    for path in paths:
        files.make_directory(path, cwd=process.cwd, parents="p" in options)
    return 0


async def _rm(process: Process, files: FileSystem, words: list[str]) -> int:
    options, paths = _options(words)
    for path in paths:
        is_forced, is_recursive = "f" in options, bool({"r", "R"} & options.keys())
        if is_forced and not files.exists(path, cwd=process.cwd):
            files.remove(path, cwd=process.cwd, recursive=is_recursive)
            continue
        if files.stat(path, cwd=process.cwd).is_directory and not is_recursive:
            raise IsADirectoryError(21, "Is a directory", path)
        files.remove(path, cwd=process.cwd, recursive=is_recursive)
    return 0


async def _touch(process: Process, files: FileSystem, words: list[str]) -> int:
    for path in words:
        files.write(path, b"", cwd=process.cwd, append=True)
    return 0


async def _ln(process: Process, files: FileSystem, words: list[str]) -> int:
    options, (target, path) = _options(words)
    if "s" not in options:
        raise _UsageError("ln: only symbolic links")
    files.make_link(target, path, cwd=process.cwd)
    return 0


async def _mv(process: Process, files: FileSystem, words: list[str]) -> int:
    _, (source, path) = _options(words)
    files.move(source, _inside(source, path, process, files), cwd=process.cwd)
    return 0


async def _cp(process: Process, files: FileSystem, words: list[str]) -> int:
    _, (source, path) = _options(words)
    content = b"".join(files.read(source, cwd=process.cwd))
    files.write(_inside(source, path, process, files), content, cwd=process.cwd)
    return 0


def _inside(source: str, path: str, process: Process, files: FileSystem) -> str:
    if not files.exists(path, cwd=process.cwd):
        return path
    is_directory = files.stat(path, cwd=process.cwd, follow=True).is_directory
    return posixpath.join(path, posixpath.basename(source.rstrip("/"))) if is_directory else path


async def _chmod(process: Process, files: FileSystem, words: list[str]) -> int:
    mode, *paths = words
    for path in paths:
        old = files.stat(path, cwd=process.cwd, follow=True).mode
        files.change_mode(path, old | 0o111 if mode == "+x" else int(mode, 8), cwd=process.cwd)
    return 0


async def _pwd(process: Process, files: FileSystem, words: list[str]) -> int:
    await process.stdout.write(_encoded(process.cwd + "\n"))
    return 0


async def _hostname(process: Process, files: FileSystem, words: list[str]) -> int:
    return await _cat(process, files, ["/etc/hostname"])


async def _date(process: Process, files: FileSystem, words: list[str]) -> int:
    form = words[0][1:] if words and words[0].startswith("+") else "%a %b %e %H:%M:%S UTC %Y"
    now = time.time_ns()
    form = form.replace("%N", f"{now % 10**9:09}").replace("%s", str(now // 10**9))
    await process.stdout.write(_encoded(time.strftime(form, time.gmtime(now // 10**9)) + "\n"))
    return 0


async def _seq(process: Process, files: FileSystem, words: list[str]) -> int:
    numbers = [int(word) for word in words]
    first, last = numbers[0] if len(numbers) > 1 else 1, numbers[-1]
    step = numbers[1] if len(numbers) > 2 else 1
    for number in range(first, last + (1 if step > 0 else -1), step):
        await process.stdout.write(f"{number}\n".encode())
        if number % 1000 == 0:
            await asyncio.sleep(0)
    return 0


async def _sleep(process: Process, files: FileSystem, words: list[str]) -> int:
    units = {"s": 1, "m": 60, "h": 3600}
    for word in words:
        number = word[:-1] if word[-1:] in units else word
        await asyncio.sleep(float(number) * units.get(word[-1:], 1))
    return 0


async def _yes(process: Process, files: FileSystem, words: list[str]) -> int:
    line = _encoded((" ".join(words) or "y") + "\n")
    while True:
        await process.stdout.write(line * max(1, 4096 // len(line)))
        await asyncio.sleep(0)


async def _test(process: Process, files: FileSystem, words: list[str]) -> int:
    is_negated = False
    while words and words[0] == "!":
        is_negated, words = not is_negated, words[1:]
    return int(_holds(process, files, words) == is_negated)


def _holds(process: Process, files: FileSystem, words: list[str]) -> bool:  # noqa: PLR0911
    match words:
        case []:
            return False
        case [text]:
            return text != ""
        case ["-n" | "-z" as operator, text]:
            return (text != "") == (operator == "-n")
        case [operator, path] if operator in _FILE_TESTS:
            try:
                entry = files.stat(path, cwd=process.cwd, follow=operator != "-L")
            except OSError:
                return False
            return _FILE_TESTS[operator](entry.mode, entry.size_bytes)
        case [left, "=" | "==", right]:
            return left == right
        case [left, "!=", right]:
            return left != right
        case [left, operator, right] if operator in _NUMBER_TESTS:
            return _NUMBER_TESTS[operator](int(left), int(right))
    raise _UsageError("test: unexpected operator")


_FILE_TESTS: Mapping[str, Callable[[int, int], bool]] = {
    "-e": lambda mode, size: True,
    "-f": lambda mode, size: stat.S_ISREG(mode),
    "-d": lambda mode, size: stat.S_ISDIR(mode),
    "-L": lambda mode, size: stat.S_ISLNK(mode),
    "-s": lambda mode, size: size > 0,
    "-x": lambda mode, size: bool(mode & 0o111),
    "-r": lambda mode, size: True,
    "-w": lambda mode, size: True,
}
_NUMBER_TESTS: Mapping[str, Callable[[int, int], bool]] = {
    "-eq": lambda left, right: left == right,
    "-ne": lambda left, right: left != right,
    "-lt": lambda left, right: left < right,
    "-le": lambda left, right: left <= right,
    "-gt": lambda left, right: left > right,
    "-ge": lambda left, right: left >= right,
}


async def _bracket(process: Process, files: FileSystem, words: list[str]) -> int:
    if not words or words[-1] != "]":
        raise _UsageError("[: missing ]")
    return await _test(process, files, words[:-1])


def _sources(process: Process, files: FileSystem, paths: list[str]) -> Iterable[Source]:
    for path in paths or ["-"]:
        if path == "-":
            yield process.stdin
            continue
        try:
            source = FileSource(files, files.locate(path, cwd=process.cwd))
        except OSError as exc:
            raise fail(exc.errno or errno.EIO, path) from exc
        yield source


def _options(words: list[str], *, with_value: str = "") -> tuple[dict[str, str], list[str]]:
    options, rest = dict[str, str](), list(words)
    while rest and len(rest[0]) > 1 and rest[0].startswith("-"):
        letters = rest.pop(0)[1:]
        if letters == "-":
            break
        if letters[0] in with_value:
            options[letters[0]] = letters[1:] or (rest.pop(0) if rest else "")
        elif letters.isdigit() and "n" in with_value:
            options["n"] = letters
        else:
            options |= dict.fromkeys(letters, "")
    return options, rest


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _careful(name: str, program: Program) -> Program:
    async def run(process: Process, files: FileSystem, words: list[str]) -> int:
        try:
            return await program(process, files, list(words))
        except BrokenPipeError:
            return 141
        except OSError as exc:
            await process.say(f"{name}: {exc.filename}: {exc.strerror}")
            return 2 if name == "ls" else 1
        except (_UsageError, ValueError, OverflowError) as exc:
            await process.say(
                str(exc) if isinstance(exc, _UsageError) else f"{name}: bad arguments"
            )
            return 2

    return run


PROGRAMS: Mapping[str, Program] = {
    name: _careful(name, program)
    for name, program in {
        ":": _true, "true": _true, "false": _false, "echo": _echo, "printf": _printf, "cat": _cat,
        "head": _head, "tail": _tail, "wc": _count, "grep": _grep, "ls": _ls, "mkdir": _mkdir,
        "rm": _rm, "touch": _touch, "ln": _ln, "mv": _mv, "cp": _cp, "chmod": _chmod, "pwd": _pwd,
        "hostname": _hostname, "date": _date, "seq": _seq, "sleep": _sleep, "yes": _yes,
        "test": _test, "[": _bracket, "sync": _true,
    }.items()
}  # fmt: skip
