"""Installed from the two wheels alone, Mitos runs on a Debian that has no compiler and no Go."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine import why_no_real_sandboxes
from tests.scripts.fresh import FreshMachine

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(1500)]

USE = """
import mitos

port = open("/root/port").read().strip()
with mitos.create("base", base_url=f"http://127.0.0.1:{port}", api_key="") as box:
    box.exec("echo prepared > /tmp/state")
    for child in box.fork(2):
        with child:
            print(child.exec("cat /tmp/state").stdout.strip())
"""

SERVE = """
python3 -m venv /root/env
/root/env/bin/pip install --quiet --no-index --find-links /root/wheels 'mitos-run[server]'
for tool in go cc gcc mmdebstrap mkfs.erofs; do ! command -v $tool; done
/root/env/bin/mitos serve --addr 127.0.0.1:0 --port-file /root/port --prepare base 2>/root/log &
server=$!
while [ ! -s /root/port ]; do kill -0 $server; sleep 0.2; done
/root/env/bin/python /root/use.py
/root/env/bin/mitos doctor
kill $server
wait $server
"""

WITHOUT_ENGINE = """
python3 -m venv /root/bare
/root/bare/bin/pip install --quiet --no-index --find-links /root/wheels mitos-run click rich \
  connectrpc protobuf-py starlette uvicorn h2 wsproto prometheus-client
/root/bare/bin/mitos serve --no-setup --addr 127.0.0.1:0
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our wheels, and those of everything they need."""
    folder = tmp_path_factory.mktemp("wheels")
    subprocess.run([ROOT / "scripts/build-wheels"], timeout=900, check=True)
    for wheel in (ROOT / "dist").glob("*.whl"):
        shutil.copy(wheel, folder)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder]
    subprocess.run([*pip, "--find-links", folder, "mitos-run[server]"], timeout=600, check=True)
    return folder


@pytest.fixture(scope="module")
def machine(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreshMachine]:
    """A fresh Debian 12 with the wheels in `/root/wheels`."""
    if reason := why_no_real_sandboxes():
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("debian") / "root"
    made = FreshMachine.make(root)
    shutil.copytree(wheels, root / "root/wheels")
    (root / "root/use.py").write_text(USE)
    yield made
    shutil.rmtree(root, ignore_errors=True)


def test_the_wheels_are_what_they_say(wheels: Path) -> None:
    (pure,) = wheels.glob("mitos_run-*.whl")
    (engine,) = wheels.glob("mitos_engine-*.whl")

    assert pure.name.endswith("-py3-none-any.whl")
    assert "manylinux" in engine.name
    assert not [name for name in zipfile.ZipFile(pure).namelist() if "mitos-engine" in name]
    files = zipfile.ZipFile(engine)
    assert "gvisor.dev/gvisor" in files.read("mitos_engine/LICENSES.txt").decode()
    assert files.getinfo("mitos_engine/mitos-engine").external_attr >> 16 & 0o111


def test_a_fresh_debian_serves_and_forks_from_wheels_alone(machine: FreshMachine) -> None:
    ended = machine.run(SERVE, timeout=900)

    log = machine.root / "root/log"
    said = log.read_text() if log.exists() else ""
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}\n{said}"
    assert ended.stdout.startswith("prepared\nprepared\n")
    assert "installing mmdebstrap erofs-utils, once" in said


def test_without_the_engine_one_sentence_says_what_to_run(machine: FreshMachine) -> None:
    ended = machine.run(WITHOUT_ENGINE, timeout=300)

    assert ended.returncode == 1
    assert "Run: pip install 'mitos-run[server]'" in ended.stderr
    assert "Traceback" not in ended.stderr
