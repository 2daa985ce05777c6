from __future__ import annotations

import io

import pytest
from rich.console import Console

from mitos.cli.progress import Steps


def plain() -> tuple[Steps, io.StringIO]:
    sink = io.StringIO()
    return Steps(Console(file=sink, highlight=False, markup=False)), sink


def test_a_log_gets_each_step_when_it_begins() -> None:
    steps, sink = plain()

    with steps:
        steps("one")
        assert sink.getvalue() == "one\n"
        steps("two [not markup]")

    assert sink.getvalue() == "one\ntwo [not markup]\n"


def test_the_step_that_failed_is_named() -> None:
    steps, sink = plain()

    def work() -> None:
        with steps:
            steps("one")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        work()

    assert "one: failed after 0.0 s" in sink.getvalue()


def test_a_terminal_shows_each_finished_step_with_its_time() -> None:
    sink = io.StringIO()

    with Steps(Console(file=sink, force_terminal=True, width=200, color_system=None)) as steps:
        steps("one")
        steps("two")

    assert "one (done, 0.0 s)" in sink.getvalue()
    assert "two (done, 0.0 s)" in sink.getvalue()
