"""What is written down of a sandbox, and what is made of a journal that is not whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mitos.engine.base import EngineError, EngineFault, MachineSpec, Resources
from mitos.engine.gvisor import journal
from mitos.engine.gvisor.journal import VERSION, Activity, Entry, Process
from mitos.host.rootfs import RootFilesystem, RootKind

MAKING = Entry(boot="b", format="gvisor-1", spec="5", user=7)
MADE = replace(MAKING, kernel=Process(11, 1100), gofer=Process(12, 1200))
SPEC = MachineSpec(
    RootFilesystem(RootKind.FOLDER, Path("/root")), Path("/guest"), environment={"A": "1", "B": "2"}
)


@pytest.mark.parametrize("entry", [MAKING, MADE, replace(MADE, user=None, gofer=None)])
def test_what_was_written_is_read(tmp_path: Path, entry: Entry) -> None:
    journal.write(tmp_path, MAKING)
    journal.write(tmp_path, entry)

    assert journal.read(tmp_path) == entry
    assert {"activity", "machine.json"} == {each.name for each in tmp_path.iterdir()}


def test_a_sandbox_is_in_the_making_first(tmp_path: Path) -> None:
    journal.write(tmp_path, MAKING)

    assert Activity.MAKING is journal.read_activity(tmp_path)


@pytest.mark.parametrize("activity", Activity)
def test_what_it_does_is_kept_beside(tmp_path: Path, activity: Activity) -> None:
    journal.write(tmp_path, MAKING)
    journal.write_activity(tmp_path, activity)
    journal.write(tmp_path, MADE)

    assert activity is journal.read_activity(tmp_path)
    assert journal.read(tmp_path) == MADE


@pytest.mark.parametrize("content", [b"", b"?", b"rr"])
def test_what_it_does_is_unknown_when_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    expected = Activity.RUNNING if content == b"rr" else Activity.CHANGING
    (tmp_path / "activity").write_bytes(content)

    assert expected is journal.read_activity(tmp_path)
    assert Activity.CHANGING is journal.read_activity(tmp_path / "missing")


def test_what_it_does_is_not_noted_of_one_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        journal.write_activity(tmp_path / "missing", Activity.RUNNING)

    assert not (tmp_path / "missing").exists()


def test_a_sandbox_without_a_journal_has_no_entry(tmp_path: Path) -> None:
    assert journal.read(tmp_path) is None
    assert journal.read(tmp_path / "missing") is None


def test_a_journal_cut_short_at_any_byte_is_no_entry(tmp_path: Path) -> None:
    journal.write(tmp_path, MADE)
    whole = (tmp_path / "machine.json").read_bytes()

    for size in range(len(whole)):
        (tmp_path / "machine.json").write_bytes(whole[:size])
        assert journal.read(tmp_path) is None


@pytest.mark.parametrize("name", ["version", "boot", "format", "spec", "user", "kernel", "gofer"])
def test_a_journal_that_lacks_something_is_no_entry(tmp_path: Path, name: str) -> None:
    journal.write(tmp_path, MADE)
    kept = json.loads((tmp_path / "machine.json").read_text())
    del kept[name]
    (tmp_path / "machine.json").write_text(json.dumps(kept))

    assert journal.read(tmp_path) is None


def test_another_version_is_refused_whatever_else_is_there(tmp_path: Path) -> None:
    (tmp_path / "machine.json").write_text(json.dumps({"version": VERSION + 1}))

    with pytest.raises(EngineError, match=f"version {VERSION + 1}") as caught:
        journal.read(tmp_path)

    assert caught.value.fault is EngineFault.UNAVAILABLE
    assert "Start the server that wrote it" in caught.value.remediation


def test_equal_specs_have_one_digest_and_others_another() -> None:
    others = [
        replace(SPEC, rootfs=RootFilesystem(RootKind.EROFS_IMAGE, Path("/root"))),
        replace(SPEC, rootfs=RootFilesystem(RootKind.FOLDER, Path("/other"))),
        replace(SPEC, guest=Path("/other")),
        replace(SPEC, resources=Resources(memory_mib=1)),
        replace(SPEC, environment={"A": "1"}),
        replace(SPEC, environment={"A": "2", "B": "1"}),
    ]

    digests = {journal.digest(each) for each in (SPEC, *others)}

    assert len(digests) == 1 + len(others)
    assert journal.digest(SPEC) == journal.digest(replace(SPEC, environment={"B": "2", "A": "1"}))
