"""A short run of each decoder under its fuzzer, and of the agent's parsers with mutated vectors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import decoder, parser
from tests.fuzz.target import TARGETS

RUNS = 5_000
ROUNDS = 100_000
SEED = 1


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", TARGETS)
def test_a_decoder_reads_or_refuses(name: str, tmp_path: Path) -> None:
    inputs, branches = decoder.fuzz_python(name, tmp_path, runs=RUNS, seed=SEED)

    assert inputs >= RUNS
    assert branches > 0


def test_an_input_that_a_decoder_gets_wrong_is_told(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "raise OverflowError('the input')"]

    with pytest.raises(decoder.FoundError, match="OverflowError: the input"):
        decoder.fuzz(program, tmp_path, runs=RUNS, seed=SEED)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("name", parser.SOURCES)
def test_a_parser_of_the_agent_survives_mutated_vectors(name: str, tmp_path: Path) -> None:
    program = tmp_path / name
    parser.build(name, program)

    done = subprocess.run(
        [program, str(SEED), str(ROUNDS)],
        input="".join(f"{seed.hex()}\n" for seed in parser.seeds(name)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (0, f"ran {ROUNDS}\n", "") == (done.returncode, done.stdout, done.stderr)
