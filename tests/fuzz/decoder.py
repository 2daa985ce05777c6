"""Runs decoders under their fuzzers, and says how far each came: `scripts/fuzz python` and `c`.

The inputs that reached something new are kept in `build/fuzz`, so that the next run goes on
from there; one that a decoder gets wrong is named in the output, and kept beside them.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz import parser
from tests.fuzz.target import TARGETS

__all__ = ["FoundError", "fuzz_c", "fuzz_python"]

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "fuzz"
LIMITS = ("-timeout=10", "-rss_limit_mb=2048", "-max_len=4096", "-print_final_stats=1")
DEADLINE_S = 3600

Lines = dict[str, tuple[int, int]]
"""By file: the lines that a corpus runs through, and all there are in functions."""


class FoundError(Exception):
    """A decoder got an input wrong; the text is what its fuzzer said."""


def fuzz(command: Sequence[str | Path], corpus: Path, *, runs: int, seed: int) -> tuple[int, int]:
    """Runs a fuzzer of libFuzzer's kind; how many inputs it tried, how many branches it reached.

    Raises:
        FoundError: it found one.
    """
    arguments = [f"-runs={runs}", f"-seed={seed}", f"-artifact_prefix={corpus.parent}/found-"]
    done = subprocess.run(
        [*command, corpus, *arguments, *LIMITS],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=DEADLINE_S,
        check=False,
    )
    said = done.stdout + done.stderr
    if done.returncode != 0:
        raise FoundError(f"{command}\n{said[-8000:]}")
    (inputs,) = re.findall(r"^stat::number_of_executed_units: *(\d+)$", said, re.MULTILINE)
    return int(inputs), max(int(each) for each in re.findall(r"\bcov: (\d+)", said))


def fuzz_python(name: str, corpus: Path, *, runs: int, seed: int) -> tuple[int, int]:
    """One of `tests.fuzz.target`."""
    program = [sys.executable, "-m", "tests.fuzz.target", name]
    return fuzz(program, corpus, runs=runs, seed=seed)


def fuzz_c(name: str, corpus: Path, *, runs: int, seed: int) -> tuple[int, int]:
    """One of `tests.fuzz.parser`."""
    for number, each in enumerate(parser.seeds(name)):
        (corpus / f"seed-{number}").write_bytes(each)
    program = corpus.parent / f"{name}.program"
    parser.build_with_libfuzzer(name, program)
    return fuzz([program], corpus, runs=runs, seed=seed)


def _lines_python(names: Sequence[str]) -> Lines:
    program = [sys.executable, "-m", "tests.fuzz.coverage", FOLDER / "python", *names]
    done = subprocess.run(
        program, cwd=ROOT, check=True, timeout=DEADLINE_S, capture_output=True, text=True
    )
    return {str(name): tuple(count) for name, count in json.loads(done.stdout).items()}


def _lines_c(names: Sequence[str]) -> Lines:
    found: Lines = {}
    for name in names:
        program = FOLDER / "c" / f"{name}.counting"
        parser.build_with_libfuzzer(name, program, counting=True)
        found |= parser.count_lines(name, program, FOLDER / "c" / name)
    return found


def main() -> int:
    """The command line."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("language", choices=["python", "c"])
    arguments.add_argument("names", nargs="*", help="which; all without")
    arguments.add_argument("--runs", type=int, default=1_000_000)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_intermixed_args()
    is_python = given.language == "python"
    names = given.names or list(TARGETS if is_python else parser.SOURCES)
    run = fuzz_python if is_python else fuzz_c
    print("| decoder | inputs | branches |\n| --- | ---: | ---: |", flush=True)
    failed = False
    for name in names:
        corpus = FOLDER / given.language / name
        corpus.mkdir(parents=True, exist_ok=True)
        try:
            inputs, branches = run(name, corpus, runs=given.runs, seed=given.seed)
        except FoundError as exc:
            print(exc, file=sys.stderr)
            failed = True
        else:
            print(f"| `{name}` | {inputs:,} | {branches:,} |", flush=True)
    print("\n| file | lines run | of |\n| --- | ---: | ---: |")
    for file, (done, of) in (_lines_python if is_python else _lines_c)(names).items():
        print(f"| `{file}` | {done} | {of} |")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
