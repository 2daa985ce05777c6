"""How much memory the host can spare, from made-up files and the machine's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from mitos.host import memory


def test_what_is_available_is_read_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 4096 kB\nMemAvailable:    1024 kB\n")

    assert memory.available_bytes(tmp_path / "meminfo") == 1 << 20


def test_a_host_that_does_not_say_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 4096 kB\n")

    with pytest.raises(OSError, match="does not say"):
        memory.available_bytes(tmp_path / "meminfo")


def test_this_machine_has_some() -> None:
    assert memory.available_bytes() > 1 << 20
