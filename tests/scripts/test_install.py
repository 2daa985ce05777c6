"""`scripts/install` on machines that lack something, and beside other checkouts.

Installing for real is for `scripts/test`: what is installed here is made by a stand-in for pip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(90)  # some make environments, which a busy machine takes long for

BASE_PYTHON = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"

PIP = """
import sysconfig
from pathlib import Path

folders = {name: Path(sysconfig.get_path(name)) for name in ("scripts", "purelib")}
for name in ("mitos", "pip", "pytest"):
    script = folders["scripts"] / name
    script.write_text(f"#!{folders['scripts']}/python\\n")
    script.chmod(0o755)
(folders["purelib"] / "mitos.pth").write_text(f"{Path.cwd()}/src")
"""
"""Makes what `pip install -e .` makes of this project, as far as paths are in it."""

PYTHON = f"""#!/bin/sh
case "$*" in
  "-m venv "*)
    "{BASE_PYTHON}" -m venv --without-pip "$3" || exit
    cp "${{0%/*}}/pip.py" "$3"/lib/python3*/site-packages ;;
  *) exec "{BASE_PYTHON}" "$@" ;;
esac
"""
"""A Python whose environments have that instead of pip."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A source tree in which nothing was installed yet."""
    return make_checkout(tmp_path / "tree")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment variables of a machine where installing is quick and changes no system."""
    folder = tmp_path_factory.mktemp("machine")
    programs = folder / "programs"
    programs.mkdir()
    names = ("bash", "cat", "cp", "cut", "dirname", "env", "flock", "id", "mkdir", "readlink")
    for name in (*names, "rm", "sed", "sh", "sha256sum", "tail", "uname"):
        (programs / name).symlink_to(str(shutil.which(name)))
    write_script(programs / "python3", PYTHON)
    (programs / "pip.py").write_text(PIP)
    home = folder / "home"
    write_script(home / "bin/mitos-engine", "#!/bin/sh\n")
    return {"PATH": str(programs), "MITOS_PYTHON": "", "MITOS_HOME": str(home)}


@pytest.fixture(scope="module")
def other(machine: dict[str, str]) -> Path:
    """Another checkout on that machine, installed. No test changes it."""
    tree = make_checkout(Path(machine["PATH"]).parent / "other")
    install(tree, **machine)
    assert is_own(tree)
    return tree


def make_checkout(tree: Path) -> Path:
    (tree / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/install", tree / "scripts/install")
    shutil.copy(ROOT / "pyproject.toml", tree)
    (tree / "engine").mkdir()
    shutil.copy(ROOT / "engine/pyproject.toml", tree / "engine")
    (tree / "src/mitos").mkdir(parents=True)
    (tree / "src/mitos/__init__.py").touch()
    return tree


def write_script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def install(tree: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tree / "scripts/install", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_checking_a_bare_checkout_names_everything_and_changes_nothing(
    checkout: Path, tmp_path: Path
) -> None:
    before = sorted(checkout.rglob("*"))

    result = install(checkout, "--check", MITOS_HOME=str(tmp_path / "home"))

    assert result.returncode == 1
    assert "missing: the environment .venv" in result.stderr
    assert "missing: the guest agent's build" in result.stderr
    assert f"missing: the engine at {tmp_path}/home/bin/mitos-engine" in result.stderr
    assert before == sorted(checkout.rglob("*"))
    assert not (tmp_path / "home").exists()


def test_a_missing_python_is_named_with_the_command_that_installs_it(
    checkout: Path, tmp_path: Path
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("bash", "dirname", "id", "uname", "sha256sum", "cut", "sed"):
        (programs / name).symlink_to(str(shutil.which(name)))

    result = install(checkout, "--check", PATH=str(programs), MITOS_PYTHON="")

    assert result.returncode == 1
    assert "missing: Python 3.11 or later with venv" in result.stderr
    assert "apt-get install -y python3 python3-venv" in result.stderr


@pytest.mark.parametrize(("code", "counts"), [(0, True), (1, False)])
def test_an_engine_that_does_not_run_counts_as_missing(
    checkout: Path, tmp_path: Path, code: int, counts: bool
) -> None:
    write_script(tmp_path / "home/bin/mitos-engine", f"#!/bin/sh\nexit {code}\n")

    result = install(checkout, "--check", MITOS_HOME=str(tmp_path / "home"))

    assert ("missing: the engine" not in result.stderr) == counts


def test_an_environment_made_from_another_pyproject_counts_as_missing(checkout: Path) -> None:
    bin_folder = checkout / ".venv/bin"
    bin_folder.mkdir(parents=True)
    for name in ("python", "mitos"):
        (bin_folder / name).write_text("#!/bin/sh\nexit 0\n")
        (bin_folder / name).chmod(0o755)
    (checkout / ".venv/.mitos-server").write_text("another\n")

    result = install(checkout, "--check")

    assert "missing: the environment .venv" in result.stderr


def test_an_unknown_argument_is_wrong_usage(checkout: Path) -> None:
    assert install(checkout, "--chekc").returncode == 2


def test_help_says_what_it_does(checkout: Path) -> None:
    result = install(checkout, "--help")

    assert result.returncode == 0
    assert "--check" in result.stdout


def link(tree: Path, other: Path) -> None:
    (tree / ".venv").symlink_to(other / ".venv")


def copy(tree: Path, other: Path) -> None:
    shutil.copytree(other / ".venv", tree / ".venv", symlinks=True)


def copy_with_own_scripts(tree: Path, other: Path) -> None:
    """As pip leaves a copy in which it was run: other programs' scripts are as they were."""
    copy(tree, other)
    subprocess.run([tree / ".venv/bin/python", "-m", "pip"], cwd=tree, check=True)
    (tree / ".venv/bin/pytest").write_text(f"#!{other}/.venv/bin/python\n")


def copy_with_long_first_lines(tree: Path, other: Path) -> None:
    """As pip writes a script whose interpreter's path has a blank or is long."""
    copy_with_own_scripts(tree, other)
    python = f"{other}/.venv/bin/python"
    (tree / ".venv/bin/pytest").write_text(f"""#!/bin/sh\n'''exec' "{python}" "$0" "$@"\n' '''\n""")


def own_with_anothers_mitos(tree: Path, other: Path) -> None:
    make_own(tree, other)
    (path_file,) = (tree / ".venv/lib").glob("python3*/site-packages/mitos.pth")
    path_file.write_text(f"{other}/src")


def own_with_anothers_packages(tree: Path, other: Path) -> None:
    make_own(tree, other)
    shutil.rmtree(tree / ".venv/lib")
    (tree / ".venv/lib").symlink_to(other / ".venv/lib")


def moved(tree: Path, other: Path) -> None:
    before = tree.with_name("before")
    tree.rename(before)
    make_own(before, other)
    before.rename(tree)


def make_own(tree: Path, other: Path) -> None:
    python = other.parent / "programs/python3"
    subprocess.run([python, "-m", "venv", tree / ".venv"], check=True)
    subprocess.run([tree / ".venv/bin/python", "-m", "pip"], cwd=tree, check=True)


STRAY = [
    *(link, copy, copy_with_own_scripts, copy_with_long_first_lines),
    *(own_with_anothers_mitos, own_with_anothers_packages, moved),
]


def mark_current(tree: Path, other: Path) -> None:
    """Says of the environment that it was made from this pyproject.toml."""
    if not (tree / ".venv").is_symlink():
        shutil.copy(other / ".venv/.mitos-server", tree / ".venv/.mitos-server")


def is_own(tree: Path) -> bool:
    """True when the environment of a tree is a folder there and starts the tree's own mitos."""
    scripts = [tree / ".venv/bin" / name for name in ("mitos", "pip", "pytest")]
    code = "import mitos; print(mitos.__file__)"
    said = subprocess.check_output([tree / ".venv/bin/python", "-I", "-c", code], text=True)
    return (
        not (tree / ".venv").is_symlink()
        and all(each.read_text().startswith(f"#!{tree}/.venv/bin/python") for each in scripts)
        and said.strip() == f"{tree}/src/mitos/__init__.py"
    )


def state(tree: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a folder: kind, time of the last change, content. What Python compiles
    counts only by name.
    """
    found: dict[str, tuple[object, ...]] = {}
    for path in tree.rglob("*"):
        if "__pycache__" not in path.parts:
            known = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            changed_ns = 0 if path.is_dir() else known.st_mtime_ns
            found[str(path)] = (known.st_mode, known.st_ino, changed_ns, content)
    return found


def test_an_environment_of_its_own_is_kept(other: Path, machine: dict[str, str]) -> None:
    result = install(other, "--check", **machine)

    assert "missing: the environment .venv" not in result.stderr


def test_a_checkout_that_is_reached_by_a_link_keeps_its_environment(
    tmp_path: Path, other: Path, machine: dict[str, str]
) -> None:
    (tmp_path / "way").symlink_to(other)

    result = install(tmp_path / "way", "--check", **machine)

    assert "missing: the environment .venv" not in result.stderr


@pytest.mark.parametrize("stray", STRAY)
def test_an_environment_that_strayed_counts_as_missing_and_is_named(
    checkout: Path, other: Path, machine: dict[str, str], stray: Callable[[Path, Path], None]
) -> None:
    stray(checkout, other)
    mark_current(checkout, other)
    before = state(checkout)

    result = install(checkout, "--check", **machine)

    assert result.returncode == 1
    assert "missing: the environment .venv; the one that is here " in result.stderr
    assert before == state(checkout)


@pytest.mark.parametrize("stray", STRAY)
def test_it_makes_its_own_and_leaves_the_others(
    checkout: Path, other: Path, machine: dict[str, str], stray: Callable[[Path, Path], None]
) -> None:
    stray(checkout, other)
    mark_current(checkout, other)
    before = state(other)

    install(checkout, **machine)

    assert is_own(checkout)
    assert before == state(other)
    assert "missing: the environment .venv" not in install(checkout, "--check", **machine).stderr


def test_a_python_of_the_environment_that_has_to_go_is_not_what_makes_the_new_one(
    checkout: Path, other: Path, machine: dict[str, str]
) -> None:
    link(checkout, other)
    before = state(other)
    path = f"{checkout}/.venv/bin:{machine['PATH']}"

    result = install(checkout, "--check", **{**machine, "PATH": path})
    assert "missing: Python" not in result.stderr
    install(checkout, **{**machine, "PATH": path, "MITOS_PYTHON": f"{machine['PATH']}/python3"})

    assert is_own(checkout)
    assert before == state(other)


def test_a_link_that_leads_nowhere_is_replaced(checkout: Path, machine: dict[str, str]) -> None:
    (checkout / ".venv").symlink_to(checkout.parent / "gone/.venv")

    install(checkout, **machine)

    assert is_own(checkout)
    assert not (checkout.parent / "gone").exists()


def test_an_environment_that_pip_could_not_fill_does_not_count_as_made(
    checkout: Path, machine: dict[str, str]
) -> None:
    programs = checkout.parent / "programs"
    shutil.copytree(machine["PATH"], programs, symlinks=True)
    (programs / "pip.py").write_text("raise SystemExit(1)\n")

    result = install(checkout, **{**machine, "PATH": str(programs)})

    assert result.returncode == 1
    assert "failed: make_environment" in result.stderr
    assert not list((checkout / ".venv").glob(".mitos-*"))
