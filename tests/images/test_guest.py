"""The guest files are laid out once, whole, and for this machine."""

from __future__ import annotations

import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mitos.images import guest


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation of two architectures and one kernel."""
    root = tmp_path / "site"
    files = root / "_guest"
    (files / "kernels").mkdir(parents=True)
    (files / "agent-amd64").write_bytes(b"for amd64")
    (files / "agent-arm64").write_bytes(b"for arm64")
    (files / "kernels" / "python").write_bytes(b"kernel")
    monkeypatch.setattr(guest.importlib.resources, "files", lambda _name: root)
    return files


@pytest.mark.parametrize(
    ("machine", "agent"), [("x86_64", b"for amd64"), ("aarch64", b"for arm64")]
)
def test_the_machine_s_agent_and_the_kernels_are_laid_out(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, agent: bytes
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    folder = guest.materialize(tmp_path / "home")

    assert folder.parent == tmp_path / "home"
    assert (folder / "agent").read_bytes() == agent
    assert (folder / "kernels" / "python").read_bytes() == b"kernel"
    for path in (folder, folder / "agent", folder / "kernels", folder / "kernels" / "python"):
        assert path.stat().st_mode & 0o777 == 0o755


def test_the_folder_is_named_by_its_content(package: Path, tmp_path: Path) -> None:
    first = guest.materialize(tmp_path / "home")
    again = guest.materialize(tmp_path / "home")
    (package / "kernels" / "python").write_bytes(b"another kernel")
    changed = guest.materialize(tmp_path / "home")

    assert first == again
    assert first != changed
    assert (first / "kernels" / "python").read_bytes() == b"kernel"


def test_a_kernel_may_have_folders(package: Path, tmp_path: Path) -> None:
    module = package / "kernels" / "python.d" / "kernel" / "__init__.py"
    (module.parent / "__pycache__").mkdir(parents=True)
    (module.parent / "__pycache__" / "stale.pyc").write_bytes(b"stale")
    module.write_bytes(b"module")
    folder = guest.materialize(tmp_path / "home")

    laid_out = folder / "kernels" / "python.d" / "kernel" / "__init__.py"
    assert laid_out.read_bytes() == b"module"
    assert [laid_out] == list(laid_out.parent.iterdir())
    for path in (laid_out, laid_out.parent, laid_out.parent.parent):
        assert path.stat().st_mode & 0o777 == 0o755


def test_many_may_lay_it_out_at_the_same_time(package: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        folders = set(pool.map(lambda _: guest.materialize(tmp_path / "home"), range(64)))

    assert len(folders) == 1
    assert list((tmp_path / "home").iterdir()) == list(folders)


@pytest.mark.parametrize("missing", ["agent-amd64", "kernels/python"])
def test_a_missing_build_says_what_to_do(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    (package / missing).unlink()
    if missing.startswith("kernels"):
        (package / "kernels").rmdir()

    with pytest.raises(guest.GuestMissingError, match="scripts/build-agent"):
        guest.materialize(tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_an_unknown_machine_is_refused(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")

    with pytest.raises(guest.GuestMissingError, match="riscv64"):
        guest.materialize(tmp_path / "home")
