"""Putting `runsc` in place: in one step, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from mitos.engine.gvisor import install
from mitos.engine.kind import InstallError
from mitos.host import process


def write_program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


async def test_a_runsc_that_does_not_run_here_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    write_program(home / "bin/runsc-old", "echo runsc version old")
    (home / "bin/runsc").symlink_to("runsc-old")

    async def unpack(work: Path) -> Path:
        write_program(work / "runsc", "exit 3")
        return work / "runsc"

    monkeypatch.setattr(install, "_unpack", unpack)

    with pytest.raises(InstallError, match="does not run here"):
        await install.install_runsc(home)

    assert names(home / "bin") == ["runsc", "runsc-old"]
    assert str((home / "bin/runsc").readlink()) == "runsc-old"


async def test_a_new_runsc_takes_the_place_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    (home / "bin/runsc").symlink_to("runsc-old")

    async def unpack(work: Path) -> Path:
        write_program(work / "runsc", "echo runsc version 0.0~20240729.0/../x")
        return work / "runsc"

    monkeypatch.setattr(install, "_unpack", unpack)

    link = await install.install_runsc(home)

    assert link == home / "bin/runsc"
    assert str(link.readlink()) == "runsc-0.0~20240729.0..x"
    assert names(home / "bin") == ["runsc", "runsc-0.0~20240729.0..x"]


async def test_a_machine_without_apt_is_told_where_to_put_runsc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install.shutil, "which", lambda _: None)

    with pytest.raises(InstallError, match=str(tmp_path / "bin/runsc")):
        await install.install_runsc(tmp_path)


@pytest.mark.real
@pytest.mark.timeout(600)
async def test_runsc_comes_from_backports_without_touching_the_machines_sources(
    tmp_path: Path,
) -> None:
    lists = Path("/var/lib/apt/lists")
    before = names(lists)

    link = await install.install_runsc(tmp_path)

    said = await process.run([link, "--version"], timeout_s=10)
    assert b"runsc version" in said.stdout
    assert len(names(tmp_path / "bin")) == 2
    assert before == names(lists)
