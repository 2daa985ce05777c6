"""Ids: what names a sandbox or a template."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitos.wire.ids import is_valid_id


@pytest.mark.parametrize("text", ["a", "0", "sandbox-0a1b2c3d", "A_b-9", "x" * 64])
def test_ids(text: str) -> None:
    assert is_valid_id(text)


@pytest.mark.parametrize(
    "text", ["", "-a", "_a", ".", "..", "a/b", "python:3.12", "a b", "a\n", "ä", "x" * 65, "a\0"]
)
def test_no_ids(text: str) -> None:
    assert not is_valid_id(text)


@given(st.text(max_size=70))
def test_an_id_can_be_a_file_name_a_host_label_and_a_log_field(text: str) -> None:
    if is_valid_id(text):
        assert re.fullmatch(r"[!-~]+", text)
        assert not set(text) & set("/.:%?&=\"'\\$`;|<>")
