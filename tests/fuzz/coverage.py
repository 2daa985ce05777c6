"""Which lines of the decoders the inputs of their corpora run through: a tracer of Python's own.

Prints an object of `[lines run, lines of all functions]` by module.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.fuzz.target import TARGETS

__all__ = ["run_lines"]

Line = tuple[str, int]
"""A file, and a line of it."""


def run_lines(
    run: Callable[[bytes], None], inputs: Iterable[bytes], files: Sequence[str]
) -> set[Line]:
    """The lines of these files that are run."""
    found: set[Line] = set()

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            found.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        for each in inputs:
            run(each)
    finally:
        sys.settrace(None)
    return found


def _lines(name: str) -> Iterator[Line]:
    """The lines inside of functions: what a module runs when it is imported does not count."""
    for code in _inside(compile(Path(name).read_text(), name, "exec")):
        is_function = code.co_flags & 2 and not code.co_name.startswith("<")
        lines = {line for *_, line in code.co_lines() if line} if is_function else set()
        yield from ((name, line) for line in lines - {code.co_firstlineno})


def _inside(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _inside(constant)


def main() -> None:
    """For the targets that are named, with a corpus in a folder of the name each."""
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    reached: set[Line] = set()
    modules = {
        module.__name__: str(module.__file__) for n in names for module in TARGETS[n].modules
    }
    for name in names:
        inputs = [path.read_bytes() for path in sorted((folder / name).iterdir())]
        reached |= run_lines(TARGETS[name].run, inputs, list(modules.values()))
    counts = {name: set(_lines(file)) for name, file in modules.items()}
    print(json.dumps({name: [len(lines & reached), len(lines)] for name, lines in counts.items()}))


if __name__ == "__main__":
    main()
