"""Commands in user namespaces of ours, on the machine's own kernel."""

from __future__ import annotations

import os

import pytest

from mitos.host import process
from mitos.host.user_namespace import UserNamespace
from tests.host.eventually import descriptors, settled_descriptors

NOBODY, SOMEBODY = 65_534, 0x7000_0000


@pytest.fixture(autouse=True)
def as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("mapping other users needs root")


async def test_a_command_inside_is_who_it_was_and_its_users_are_others() -> None:
    made = await UserNamespace.make({0: 0, NOBODY: SOMEBODY})
    command = ["sh", "-c", "id -u; cat /proc/self/uid_map /proc/self/gid_map"]

    try:
        said = (await process.run(made.entering(command), timeout_s=10)).stdout.split()
    finally:
        made.close()

    mapped = [b"0", b"0", b"1", b"65534", b"1879048192", b"1"]
    assert said == [b"0", *mapped, *mapped]


async def test_nothing_is_left_of_one() -> None:
    before = await settled_descriptors()
    made = await UserNamespace.make({0: 0})
    made.close()
    made.close()

    assert descriptors() - before == set()


async def test_users_that_the_host_does_not_give_are_an_error() -> None:
    before = await settled_descriptors()

    with pytest.raises(OSError, match="Invalid argument"):
        await UserNamespace.make({0: 0, 1: 0})

    assert descriptors() - before == set()
