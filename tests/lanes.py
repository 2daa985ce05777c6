"""Which tests a run takes: the option `--lane`, a pytest plug-in that `tests/conftest.py` loads.

Each test is in exactly one lane, by its markers. Without the option a run takes the lanes of a
change. `scripts/test` is the command in front of it.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

FAST = "fast"
"""What needs no engine, and may run beside other tests. Not a marker: all that has none."""

REAL = "real"

LONG = {
    "matrix": "every combination of what a shorter test takes a sample of",
    "crash": "servers, agents and kernels that are killed again and again",
    "soak": "gibibytes, or thousands of calls",
}
"""The lanes that take long; each has a short test of the same in `fast` or `real`."""

LANES = (FAST, REAL, *LONG)
OF_A_CHANGE = (FAST, REAL)


def lane_of(markers: Iterable[str]) -> str:
    """The lane of a test with these markers.

    Raises:
        ValueError: It has the markers of two long lanes.
    """
    names = set(markers)
    long = sorted(names & LONG.keys())
    if len(long) > 1:
        raise ValueError(f"a test is in one lane, not in {' and '.join(long)}")
    if long:
        return long[0]
    return REAL if REAL in names else FAST


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--lane`."""
    parser.addoption(
        "--lane",
        action="append",
        choices=LANES,
        help="take only the tests of this lane; may be given again (default: fast and real)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Registers the markers."""
    config.addinivalue_line(
        "markers",
        "real: runs real sandboxes; needs root and the engine that scripts/install sets up",
    )
    for name, content in LONG.items():
        config.addinivalue_line("markers", f"{name}: {content}; runs in the lane of this name")


@pytest.hookimpl(trylast=True)  # when all have their markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Takes out the tests of other lanes."""
    wanted = config.getoption("--lane") or OF_A_CHANGE
    taken: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        try:
            lane = lane_of(marker.name for marker in item.iter_markers())
        except ValueError as exc:
            raise pytest.UsageError(f"{item.nodeid}: {exc}") from exc
        (taken if lane in wanted else left).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = taken
