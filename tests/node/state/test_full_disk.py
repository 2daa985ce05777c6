"""A home whose disk is really full: what cannot be is told, and ending always works."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mitos.engine.fake import FakeEngine
from mitos.wire.errors import ApiError
from tests.node.conftest import Node, StartNode
from tests.node.consistency import check

SIZE = "3m"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The home on a disk of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it mounts a small disk")
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", home], check=True)
    try:
        yield home
    finally:
        subprocess.run(["umount", "-l", home], check=True)


def fill(home: Path) -> Path:
    """Takes all space there is."""
    file = home / "filler"
    with file.open("wb", buffering=0) as stream:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while True:
                    stream.write(bytes(size))
            except OSError:
                continue
    return file


async def refused(node: Node) -> ApiError:
    """The first refusal of a create, once the space that SQLite had reserved is used up."""
    for number in range(1000):
        try:
            await node.create("python", f"more-{number}")
        except ApiError as exc:
            return exc
    raise AssertionError("a full disk took a thousand sandboxes")


async def test_sandboxes_end_on_a_full_disk(
    small_disk: Path, start_node: StartNode, engine: FakeEngine
) -> None:
    node = await start_node(max_sandboxes=2000)
    await node.templates.create("python")
    await node.create("python", "one")
    filler = fill(small_disk)

    error = await refused(node)
    for record in node.list_sandboxes():
        await node.terminate(record.id)

    assert ("quota_exceeded", "disk") == (error.code, error.context["dimension"])
    assert [] == node.list_sandboxes()
    assert {} == engine.machines
    filler.unlink()
    await node.create("python", "two")
    check(node, engine)
    with pytest.raises(ApiError, match="has ended"):
        node.agent("one")
