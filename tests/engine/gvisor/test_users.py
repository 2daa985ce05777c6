"""Who sandboxes are on the host: everything the host's kernel tells of their processes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mitos.engine.base import MachineSpec
from mitos.engine.gvisor.users import User, Users
from mitos.host import cgroup
from mitos.host.rootfs import RootKind
from tests.contract.guest import Client
from tests.engine.gvisor.conftest import Lab
from tests.engine.roots import bare_root
from tests.host.eventually import descriptors, settled_descriptors
from tests.machine import running_release

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

NAMESPACES = ("pid", "user", "mnt", "ipc", "uts", "net")
NOT_OF_DEBIANS = ("pid",)
"""What Debian's program leaves as the host's."""


@dataclass(frozen=True)
class Seen:
    """What the host tells of all processes of one sandbox."""

    users: set[str]
    groups: set[str]
    powers: set[str]
    namespaces: dict[str, set[str]]


def look(lab: Lab, client: Client) -> Seen:
    hierarchy = cgroup.detect(Path("/proc/self/mountinfo").read_text())
    assert hierarchy is not None
    folders = [
        Path(f"/proc/{pid}")
        for pid in hierarchy.processes(f"{lab.engine.control_group}/{client.machine.id}")
    ]
    rows = [row.split() for each in folders for row in (each / "status").read_text().splitlines()]
    assert len(folders) >= 2  # its kernel, and what runs the guest's code
    return Seen(
        users={user for row in rows if row[0] == "Uid:" for user in row[1:]},
        groups={group for row in rows if row[0] in ("Gid:", "Groups:") for group in row[1:]},
        powers={row[1] for row in rows if row[0].startswith("Cap")},
        namespaces={
            name: {str((each / "ns" / name).readlink()) for each in folders} for name in NAMESPACES
        },
    )


@pytest.fixture
async def image_spec(lab: Lab, tmp_path: Path) -> MachineSpec:
    """A machine whose root is an image, as a server makes them."""
    root = await bare_root(RootKind.EROFS_IMAGE, tmp_path / "image", lab.spec.guest)
    return replace(lab.spec, rootfs=root)


async def test_two_sandboxes_share_no_user_and_no_namespace_and_have_no_power(
    lab: Lab, image_spec: MachineSpec
) -> None:
    first, second = await lab.boot(image_spec), await lab.boot(image_spec)
    child = await lab.restore(first, lab.folder)
    ours = {name: {str(Path(f"/proc/self/ns/{name}").readlink())} for name in NAMESPACES}

    seen = [look(lab, client) for client in (first, second, child)]

    for one in seen:
        (user,) = one.users
        assert one.groups == {user}
        assert 0x7000_0000 <= int(user) < 0x7FFE_0000
        assert set(map(int, one.powers, [16] * len(one.powers))) == {0}
    assert len({user for one in seen for user in one.users}) == 3
    is_own = running_release().is_own
    for name in NAMESPACES if is_own else set(NAMESPACES) - set(NOT_OF_DEBIANS):
        parts = [one.namespaces[name] for one in seen] + [ours[name]]
        assert [len(part) for part in parts] == [1] * 4, name
        assert len(set.union(*parts)) == 4, name


async def test_a_user_is_used_again_when_its_sandbox_is_gone(
    lab: Lab, image_spec: MachineSpec
) -> None:
    first = await lab.boot(image_spec)
    (user,) = look(lab, first).users
    await first.link.close()
    await lab.engine.destroy(first.machine)
    before = await settled_descriptors()

    second = await lab.boot(image_spec)

    assert look(lab, second).users == {user}
    await second.link.close()
    await lab.engine.destroy(second.machine)
    assert descriptors() - before == set()


async def test_where_the_root_is_a_folder_a_sandbox_is_root_without_the_powers_of_root(
    lab: Lab,
) -> None:
    """Its files are handed out by their owner. `docs/threat-model.md` says so."""
    seen = look(lab, await lab.boot())

    files = 0b11111  # CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID
    chroot, ptrace = 1 << 18, 1 << 19
    allowed = files | chroot | ptrace
    assert seen.users == {"0"}
    if running_release().is_own:
        assert [power for power in seen.powers if int(power, 16) & ~allowed] == []


async def test_engines_have_users_of_their_own(tmp_path: Path) -> None:
    one, other = Users(tmp_path / "one"), Users(tmp_path / "other")

    taken = [await one.take(), await one.take(), await other.take()]

    assert len({user.number for user in taken}) == 3
    for users, user in zip((one, one, other), taken, strict=True):
        users.give_back(user)
        users.close()


async def test_users_of_a_crowd_are_given_back_and_few_namespaces_kept(tmp_path: Path) -> None:
    users = Users(tmp_path)
    before = namespaces()
    crowd = [await users.take() for _ in range(40)]
    for user in crowd:
        users.give_back(user)
    kept = namespaces() - before
    again = [await users.take() for _ in range(40)]

    assert 1 <= len(kept) <= 16
    assert {user.number for user in crowd} == {user.number for user in again}
    for user in again:
        users.give_back(user)
    users.close()
    assert before == namespaces()


async def test_a_number_of_an_earlier_process_is_nobody_elses_until_it_is_given_back(
    tmp_path: Path,
) -> None:
    earlier = Users(tmp_path)
    left = [await earlier.take() for _ in range(3)]
    for user in left:
        user.close()

    users = Users(tmp_path)
    for user in left:
        users.reserve(user.number)
    taken = [await users.take() for _ in range(3)]
    users.give_back(User(left[1].number))
    again = await users.take()

    assert not {user.number for user in taken} & {user.number for user in left}
    assert again.number == left[1].number
    assert again.namespace is not None
    for user in (*taken, again):
        users.give_back(user)
    users.close()


def namespaces() -> set[str]:
    """The user namespaces that this process holds."""
    return {each for each in descriptors() if " -> user:" in each}
