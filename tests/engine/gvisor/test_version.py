from __future__ import annotations

import pytest

from mitos.engine.gvisor import version
from mitos.engine.gvisor.version import Version


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("runsc version 0.0~20240729.0\nspec: 1.0.2-dev\n", Version(20240729, 0)),
        ("runsc version release-20250319.0\nspec: 1.1.0\n", Version(20250319, 0)),
        ("runsc version 0.0~20221219.0\n", Version(20221219, 0)),
        ("runsc version release-20260101\n", Version(20260101, 0)),
        ("runsc version VERSION_MISSING\n", None),
        ("", None),
    ],
)
def test_releases_are_read_from_what_runsc_prints(text: str, expected: Version | None) -> None:
    assert expected == version.parse(text)


def test_the_release_of_debian_bookworm_is_refused() -> None:
    assert not Version(20221219, 0).is_supported


def test_only_tested_releases_get_orders_over_their_socket() -> None:
    assert Version(20240729, 0).has_tested_socket
    assert not Version(20250319, 0).has_tested_socket
    assert Version(20250319, 0).is_supported
