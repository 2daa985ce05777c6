"""The plug-in that divides the tests into lanes, on a small suite."""

from __future__ import annotations

import itertools

import pytest

from tests.lanes import LANES, LONG, OF_A_CHANGE, lane_of

pytest_plugins = ["pytester"]

TESTS = """
import pytest

def test_fast(): pass

@pytest.mark.real
def test_real(): pass

@pytest.mark.parametrize(
    "size", ["small", *(pytest.param(name, marks=getattr(pytest.mark, name)) for name in LONG)]
)
def test_size(size): pass

@pytest.mark.real
@pytest.mark.parametrize("size", [pytest.param("long", marks=pytest.mark.soak)])
def test_real_size(size): pass
""".replace("LONG", repr([*LONG]))

IN_LANE = {
    "fast": {"test_fast", "test_size[small]"},
    "real": {"test_real"},
    "matrix": {"test_size[matrix]"},
    "crash": {"test_size[crash]"},
    "soak": {"test_size[soak]", "test_real_size[long]"},
}


def collected(suite: pytest.Pytester, *lanes: str) -> set[str]:
    """The names of the tests that a run would take."""
    options = ["-p", "tests.lanes", "--strict-markers"]
    recorded = suite.inline_run(
        "--collect-only", "-q", *options, *(f"--lane={name}" for name in lanes)
    )
    (finished,) = recorded.getcalls("pytest_collection_finish")
    return {item.name for item in finished.session.items}


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(test_all=TESTS)
    return pytester


def test_every_lane_is_tried_here() -> None:
    assert IN_LANE.keys() == set(LANES)


def test_the_lanes_are_a_partition_of_the_suite(suite: pytest.Pytester) -> None:
    of_each = {name: collected(suite, name) for name in LANES}

    assert of_each == IN_LANE
    assert sorted(collected(suite, *LANES)) == sorted(itertools.chain(*of_each.values()))


def test_without_a_lane_a_run_takes_those_of_a_change(suite: pytest.Pytester) -> None:
    assert collected(suite) == set().union(*(IN_LANE[name] for name in OF_A_CHANGE))


def test_a_test_in_two_long_lanes_is_refused() -> None:
    with pytest.raises(ValueError, match="in one lane, not in crash and soak"):
        lane_of(["soak", "crash"])


def test_markers_decide_the_lane() -> None:
    assert lane_of(["parametrize", "timeout"]) == "fast"
    assert lane_of(["real"]) == "real"
    assert lane_of(["real", "soak"]) == "soak"
