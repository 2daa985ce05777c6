"""A pytest plug-in for machines where every test can run: a skipped test fails the run.

`scripts/test` loads it on Debian as root.
"""

from __future__ import annotations

import pytest

skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Notes each test that was skipped; expected failures do not count."""
    if report.skipped and not hasattr(report, "wasxfail"):
        skipped.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Notes each module that was skipped whole."""
    if report.skipped:
        skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Turns a run with skips into a failed one."""
    if skipped and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says so; the reasons stand in the summary above."""
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped)} tests were skipped on a machine where all can run", red=True
        )
