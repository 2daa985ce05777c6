"""The quickstart as a person runs it: it ends well, shows its steps, and leaves nothing running."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MACHINE_HOME = Path(os.environ.get("MITOS_HOME") or "/var/lib/mitos")
DEADLINE_S = 300

pytestmark = [pytest.mark.real, pytest.mark.timeout(2 * DEADLINE_S)]


@pytest.fixture
def home() -> Iterator[Path]:
    """A home without templates that shares the machine's downloads. Its path is short: it holds
    Unix sockets.
    """
    if os.geteuid() != 0:
        pytest.skip("real sandboxes need root on this machine")
    made = Path(tempfile.mkdtemp(prefix="mitos-q-"))
    for name in ("bin", "rootfs"):
        (MACHINE_HOME / name).mkdir(parents=True, exist_ok=True)
        (made / name).symlink_to(MACHINE_HOME / name)
    yield made
    assert processes_naming(made) == []
    shutil.rmtree(made)


def processes_naming(home: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(os.fsencode(home) in word for word in words):
            found.append(f"{entry.parent.name}: {words!r}")
    return found


def quickstart(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [ROOT / "scripts/quickstart"],
        env={**os.environ, "MITOS_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_it_runs_the_example_twice_the_second_time_within_15_seconds(home: Path) -> None:
    first, _ = (process := quickstart(home)).communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, first

    began_at_s = time.monotonic()
    second, _ = (process := quickstart(home)).communicate(timeout=DEADLINE_S)
    took_s = time.monotonic() - began_at_s

    assert process.returncode == 0, second
    assert took_s < 15
    for line in (ROOT / "examples/01_quickstart.py").read_text().splitlines():
        assert line in second
    assert "      sb: hello" in second
    assert re.search(r"^a, b = sb\.fork\(2\) +\d+ ms$", second, re.MULTILINE)
    assert "every assertion held" in second


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_it_stops_the_server(home: Path, number: signal.Signals) -> None:
    process = quickstart(home)
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if "sb.run_code" in line:
            break

    os.killpg(process.pid, number)
    rest, _ = process.communicate(timeout=60)

    assert process.returncode not in (0, None), seen + rest
    assert "every assertion held" not in rest


def test_an_example_that_fails_fails_the_quickstart_and_shows_the_line(tmp_path: Path) -> None:
    example = tmp_path / "example.py"
    example.write_text("first = 1\nassert first == 2\n")

    result = subprocess.run(
        [ROOT / ".venv/bin/python", ROOT / "scripts/narrate", example],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert result.returncode == 1
    assert "first = 1" in result.stdout
    assert "assert first == 2" in result.stderr
