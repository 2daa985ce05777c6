from __future__ import annotations

import pytest

from mitos.host import apt
from mitos.host.apt import DEFAULT_MIRRORS, Mirrors


def test_the_first_mirror_of_each_kind_counts() -> None:
    found = apt.parse_mirrors(
        "https://packages.example/tools stable-tools\n"
        "http://near.example/debian/ bookworm\n"
        "http://near.example/debian/ bookworm-updates\n"
        "http://near.example/security/ bookworm-security\n"
        "http://far.example/debian/ trixie\n"
    )

    assert found == Mirrors("http://near.example/debian", "http://near.example/security")


@pytest.mark.parametrize(
    "text", ["", "garbage", "cdrom:[x] bookworm", "http://u.example/ubuntu noble", "bookworm"]
)
def test_a_machine_without_debian_sources_gets_debians_own_mirror(text: str) -> None:
    assert apt.parse_mirrors(text) == DEFAULT_MIRRORS


def test_sources_are_signed_and_cover_updates_and_security() -> None:
    lines = Mirrors("http://m", "http://s").sources("bookworm")

    assert [line.split()[2:4] for line in lines] == [
        ["http://m", "bookworm"],
        ["http://m", "bookworm-updates"],
        ["http://s", "bookworm-security"],
    ]
    assert all(f"signed-by={apt.KEYRING}" in line for line in lines)
