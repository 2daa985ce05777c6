from __future__ import annotations

import pytest

from mitos.engine.gvisor import release
from mitos.engine.gvisor.release import Release


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("runsc version mitos-20260701.0\nspec: 1.2.1\n", Release(20260701, 0, is_own=True)),
        ("runsc version 0.0~20240729.0\nspec: 1.0.2-dev\n", Release(20240729, 0)),
        ("runsc version release-20250319.0\nspec: 1.1.0\n", Release(20250319, 0)),
        ("runsc version 0.0~20221219.0\n", Release(20221219, 0)),
        ("runsc version release-20260101\n", Release(20260101, 0)),
        ("runsc version VERSION_MISSING\n", None),
        ("runsc version release-20261332.0\n", None),
        ("", None),
    ],
)
def test_releases_are_read_from_what_runsc_prints(text: str, expected: Release | None) -> None:
    assert expected == release.parse(text)


def test_the_release_of_debian_bookworm_is_refused() -> None:
    assert not Release(20221219, 0).is_supported


def test_only_known_releases_get_orders_over_their_socket() -> None:
    assert Release(20240729, 0).traits.has_socket
    assert Release(20260701, 0, is_own=True).traits.has_socket
    other = Release(20250319, 0)
    assert other.is_supported
    assert not other.is_known
    assert not other.traits.has_socket


def test_an_official_release_of_the_same_day_is_another() -> None:
    own, official = Release(20260701, 0, is_own=True), Release(20260701, 0)

    assert str(own) != str(official)
    assert own.traits.has_own_calls
    assert not official.traits.has_own_calls


def test_an_old_release_says_what_a_newer_one_gives() -> None:
    assert "idle" in Release(20240729, 0).traits.loses
    assert not Release(20260701, 0, is_own=True).traits.loses
