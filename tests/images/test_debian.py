from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mitos.images import debian
from mitos.images.image import DebianImage, ImageBuildError

IMAGE = DebianImage("tiny", ("curl", "git"))


def test_the_command_names_packages_suite_folder_and_sources() -> None:
    argv = debian.command(IMAGE, Path("/r"), sources=["deb http://m main"], apt=['A::B "c";'])

    assert "--include=curl,git" in argv
    assert '--aptopt=A::B "c";' in argv
    assert argv[-3:] == ["bookworm", "/r", "deb http://m main"]


def test_the_command_dies_with_us_in_namespaces_of_its_own() -> None:
    argv = debian.command(IMAGE, Path("/r"), sources=[], apt=[])

    assert argv[:3] == ["setpriv", "--pdeathsig", "KILL"]
    assert argv.index("--kill-child") < argv.index("mmdebstrap")


def test_stages_are_told_also_when_lines_arrive_in_pieces() -> None:
    told: list[str] = []
    stages = debian._Stages(told.append)

    for piece in (b"I: downl", b"oading...\nnoise\nI: success in 3 s\nI: un", b"packing...\n"):
        stages(piece)

    assert told == ["downloading", "unpacking"]


def test_a_line_without_end_is_kept_bounded() -> None:
    stages = debian._Stages(lambda _: None)

    for _ in range(100):
        stages(b"x" * 10_000)

    assert len(stages._partial) <= 4096


async def test_a_missing_tool_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian.os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda _: None)

    with pytest.raises(ImageBuildError, match="apt-get install -y mmdebstrap"):
        await debian.build(IMAGE, tmp_path, lambda _: None)


async def test_without_root_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian.os, "geteuid", lambda: 1000)

    with pytest.raises(ImageBuildError, match="as root"):
        await debian.build(IMAGE, tmp_path, lambda _: None)
