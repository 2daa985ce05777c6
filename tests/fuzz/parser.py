"""The guest agent's parsers of what comes over the link, under libFuzzer: `guest/fuzz`.

A harness is a function of bytes that ends the program when something is wrong. clang builds it
with libFuzzer, which goes where it finds new branches; any compiler builds it with mutated seeds
instead.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["SOURCES", "build", "build_with_libfuzzer", "count_lines", "seeds"]

ROOT = Path(__file__).parents[2]
GUEST = ROOT / "guest"

SOURCES = {
    "frames": ("link.c", "buffer.c"),
    "message": ("message.c", "link.c", "buffer.c"),
    "request": ("exec_request.c", "environment.c", "stream.c", "poller.c", "link.c", "buffer.c"),
    "stream": ("exec_request.c", "environment.c", "poller.c", "link.c", "buffer.c"),
}
"""What each harness is linked with; it has included what else it needs."""

MEASURED = {
    "frames": ("link.c",),
    "message": ("message.c",),
    "request": ("exec_request.c", "environment.c"),
    "stream": ("stream.c",),
}
"""Whose lines are counted."""

FLAGS = ("-std=c11", "-Wall", "-Wextra", "-g", "-O1", "-fno-sanitize-recover=all")
DEADLINE_S = 120


def build(name: str, output: Path) -> None:
    """A program that gives the harness mutated seeds, with sanitizers."""
    compiler = os.environ.get("CC", "cc")
    _compile([compiler, "-fsanitize=address,undefined"], name, output, "fuzz/main.c")


def build_with_libfuzzer(name: str, output: Path, *, counting: bool = False) -> None:
    """libFuzzer's program; one that counts lines keeps no other watch."""
    checks = ["-fsanitize=fuzzer,address,undefined"]
    if counting:
        checks = ["-fsanitize=fuzzer", "-fprofile-instr-generate", "-fcoverage-mapping"]
    _compile(["clang", *checks], name, output)


def _compile(compiler: Sequence[str], name: str, output: Path, *more: str) -> None:
    files = [GUEST / each for each in (f"fuzz/{name}.c", *SOURCES[name], *more)]
    command = [*compiler, *FLAGS, f"-I{GUEST}", *files, "-o", output]
    subprocess.run(command, cwd=ROOT, check=True, timeout=DEADLINE_S)


def count_lines(name: str, program: Path, corpus: Path) -> dict[str, tuple[int, int]]:
    """For each measured file the lines that the corpus runs through, and all there are.

    Args:
        name: the harness.
        program: built with `counting`.
        corpus: folder of inputs.
    """
    profile, merged = program.with_suffix(".profraw"), program.with_suffix(".profdata")
    environment = {**os.environ, "LLVM_PROFILE_FILE": str(profile)}
    _run([program, "-runs=0", corpus], env=environment)
    _run([_tool("llvm-profdata"), "merge", profile, "-o", merged])
    files = [GUEST / each for each in MEASURED[name]]
    shown = _run([_tool("llvm-cov"), "export", program, f"-instr-profile={merged}", *files])
    (data,) = json.loads(shown)["data"]
    lines = {Path(each["filename"]).name: each["summary"]["lines"] for each in data["files"]}
    return {each: (lines[each]["covered"], lines[each]["count"]) for each in MEASURED[name]}


def _run(command: Sequence[str | Path], **options: object) -> str:
    done = subprocess.run(
        command, cwd=ROOT, check=True, timeout=DEADLINE_S, capture_output=True, text=True, **options
    )  # type: ignore[call-overload]
    return str(done.stdout)


def _tool(name: str) -> str:
    """A program of clang's own version: Debian has them with the version in the name."""
    clang = shutil.which("clang")
    assert clang, "clang is not installed"
    beside = Path(clang).resolve().with_name(name)
    return str(beside) if beside.exists() else name


def seeds(name: str) -> Iterator[bytes]:
    """Inputs to begin with, from the vectors of the specification."""
    groups = json.loads((ROOT / "spec" / "vectors" / "guest-link.json").read_text())
    groups.pop("version")
    for group, vectors in groups.items():
        if name == "message" and not re.search("kernel", group):
            continue
        for vector in vectors:
            data = bytes.fromhex(vector["bytes"])
            yield data if name in ("frames", "request") else b"\xff" + data
