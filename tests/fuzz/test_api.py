"""The REST contract under generated requests: every answer is one that `spec/openapi.yaml` has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fuzz import api
from tests.fuzz.api import Tally
from tests.fuzz.world import standing

SEED = int(os.environ.get("MITOS_FUZZ_SEED", "1"))
REQUESTS = int(os.environ.get("MITOS_FUZZ_REQUESTS", "100000"))


def fuzz_rounds(folder: Path, *, requests: int, cases: int) -> Tally:
    """Rounds over all operations, each with a seed of its own, until there are so many requests."""
    tally, seed = Tally(), SEED
    with standing(folder) as world:
        while tally.total < requests:
            print(f"seed {seed}, after {tally.total} requests", flush=True)
            for operation in api.load():
                api.fuzz(operation, world, tally, cases=cases, seed=seed)
            seed += 1
    print("\n".join(tally.lines()), f"\n{tally.total} requests")
    return tally


def check_reached(tally: Tally) -> None:
    every = {operation.label for operation in api.load()}
    assert every == tally.reached(2)
    assert every == tally.reached(4)


@pytest.mark.timeout(180)
def test_every_operation_answers_as_the_contract_says(tmp_path: Path) -> None:
    check_reached(fuzz_rounds(tmp_path / "server", requests=1, cases=3))


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_hundred_thousand_requests_are_answered_as_the_contract_says(tmp_path: Path) -> None:
    check_reached(fuzz_rounds(tmp_path / "server", requests=REQUESTS, cases=25))
