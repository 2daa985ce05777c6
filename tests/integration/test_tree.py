"""The fork tree of real sandboxes: lineage, checkpoints, differences, promotion."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

import mitos
from tests.integration.conftest import Server

pytestmark = pytest.mark.real


@pytest.fixture
def family(server: Server) -> Iterator[mitos.DirectSandbox]:
    """The first of a family; whoever comes from it is ended with it."""
    root = server.create()
    try:
        yield root
    finally:
        with contextlib.suppress(mitos.NotFoundError):
            root.terminate(subtree=True)


def test_the_tree_tells_the_living_and_the_ended(family: mitos.DirectSandbox) -> None:
    (child,) = family.fork(1)
    (grandchild,) = child.fork(1)
    child.terminate()

    members = {kin.id: kin for kin in grandchild.tree()}

    assert [family.id, child.id, grandchild.id] == list(members)
    assert members[child.id].parent_uid == members[family.id].uid
    assert members[grandchild.id].parent_uid == members[child.id].uid
    assert ["Ready", "Ended", "Ready"] == [kin.phase for kin in members.values()]
    assert "terminated" == members[child.id].reason
    assert members[child.id].ended_at_unix is not None


def test_the_end_of_a_subtree_takes_all_descendants(
    server: Server, family: mitos.DirectSandbox
) -> None:
    (child,) = family.fork(1)
    child.fork(2)

    child.terminate(subtree=True)

    listed = mitos.SandboxServer(server.url).list_sandboxes()
    assert [family.id] == [row["id"] for row in listed]


def test_a_sandbox_goes_back_to_its_checkpoint_under_its_own_id(
    family: mitos.DirectSandbox,
) -> None:
    family.run_code("x = 1")
    family.files.write("/workspace/f", "before")
    kept = family.checkpoint("start")
    family.run_code("x = 2")
    family.files.write("/workspace/f", "after")

    for _ in range(2):
        family.restore(kept)
        assert "1" == family.run_code("x").text
        assert "before" == family.files.read("/workspace/f")
        family.run_code("x = 3")
        family.files.write("/workspace/f", "again")

    assert family.id == family.exec("hostname").stdout.strip()
    assert [("start", kept.id)] == [(each.name, each.id) for each in family.checkpoints()]
    assert kept.size_bytes > 0
    family.delete_checkpoint(kept)
    assert [] == family.checkpoints()
    with pytest.raises(mitos.NotFoundError):
        family.restore(kept)


def test_checkpoints_leave_with_their_sandbox(server: Server, family: mitos.DirectSandbox) -> None:
    family.checkpoint()
    assert [] != list((server.home / "checkpoints").iterdir())

    family.terminate()

    assert [] == list((server.home / "checkpoints").iterdir())


def test_only_files_that_really_differ_are_in_a_diff(family: mitos.DirectSandbox) -> None:
    for name in ("same", "changed", "gone", "rewritten"):
        family.files.write(f"/workspace/{name}", "12345")
    a, b = family.fork(2)
    assert mitos.FileDiff([], [], []) == a.diff(b)
    b.files.write("/workspace/new file\n", "x")
    b.files.write("/workspace/changed", "54321")
    b.files.write("/workspace/rewritten", "12345")
    b.files.remove("/workspace/gone")
    b.exec("chmod 600 /workspace/same; echo more >> /etc/profile; rm -r /usr/share/doc")

    found = a.diff(b)

    assert ["/workspace/new file\n"] == found.added
    assert ["/etc/profile", "/workspace/changed", "/workspace/same"] == found.modified
    assert {"/workspace/gone", "/usr/share/doc"} <= set(found.removed)
    assert all(
        path == "/workspace/gone" or path.startswith("/usr/share/doc") for path in found.removed
    )
    assert found.added == b.diff(a).removed


def test_strangers_have_no_diff(server: Server, family: mitos.DirectSandbox) -> None:
    with server.create() as stranger, pytest.raises(mitos.AgentRunError, match="forks of one"):
        family.diff(stranger)


def test_a_promoted_child_takes_its_parents_place(
    server: Server, family: mitos.DirectSandbox
) -> None:
    old_id = family.id
    family.run_code("x = 41")
    (child,) = family.fork(1)
    child.run_code("x += 1")
    child.exec("setsid sleep 1000 > /dev/null 2>&1 &")

    child.promote()

    assert old_id == child.id
    assert "42" == family.run_code("x").text
    assert old_id == child.exec("hostname").stdout.strip()
    assert 0 == child.exec("pgrep -f 'sleep 1000' || pidof sleep").exit_code
    assert [old_id] == [row["id"] for row in mitos.SandboxServer(server.url).list_sandboxes()]


def test_a_sandbox_without_a_parent_is_not_promoted(family: mitos.DirectSandbox) -> None:
    with pytest.raises(mitos.AgentRunError, match="no parent"):
        family.promote()


def test_a_partial_fork_has_children_and_no_errors(family: mitos.DirectSandbox) -> None:
    family.run_code("x = 41")

    children = family.fork(2, partial=True)

    assert {} == children.errors
    assert ["42", "42"] == [child.run_code("x + 1").text for child in children]
