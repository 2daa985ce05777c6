"""The network posture: what is understood, what is refused, and its two spellings."""

from __future__ import annotations

import pytest

from mitos.wire.errors import ApiError
from mitos.wire.network import NetworkPosture

FULL = {
    "block": True,
    "egress": "allow",
    "allow_domains": ["*.example.org:443", "example.org:80"],
    "allow_cidrs": ["10.0.0.0/8", "fd00::/8"],
    "inbound": "allow",
    "inbound_cidrs": ["192.0.2.0/24"],
}

BAD = {
    "no object": ["deny"],
    "a verdict that is none": {"egress": "maybe"},
    "an inbound verdict that is none": {"inbound": "sometimes"},
    "a number for a verdict": {"egress": 1},
    "text for a boolean": {"block": "yes"},
    "a name without a port": {"allow_domains": ["example.org"]},
    "a port of 0": {"allow_domains": ["example.org:0"]},
    "a port too high": {"allow_domains": ["example.org:65536"]},
    "a port in other digits": {"allow_domains": ["example.org:\uff14\uff14\uff13"]},
    "no name": {"allow_domains": [":443"]},
    "one name, not a list": {"allow_domains": "example.org:443"},
    "a number in a list": {"allow_cidrs": [10]},
    "a block that is none": {"allow_cidrs": ["10.0.0.0/33"]},
    "an inbound block that is none": {"inbound_cidrs": ["everyone"]},
}


def test_nothing_said_is_deny_both_ways() -> None:
    posture = NetworkPosture.parse({})

    assert posture == NetworkPosture()
    assert posture.to_template() == {"egress": "deny", "inbound": "deny"}
    assert posture.to_sandbox() == {"egress": "deny", "inbound": "deny"}


def test_a_posture_is_echoed_in_both_spellings() -> None:
    posture = NetworkPosture.parse(FULL)

    assert posture.to_template() == FULL
    assert posture.to_sandbox() == {
        "blockNetwork": True,
        "egress": "allow",
        "allow": FULL["allow_domains"],
        "allowCidrs": FULL["allow_cidrs"],
        "inbound": "allow",
        "inboundCidrs": FULL["inbound_cidrs"],
    }
    assert NetworkPosture.parse(posture.to_template()) == posture


@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_what_is_half_understood_is_refused(value: object) -> None:
    with pytest.raises(ApiError) as caught:
        NetworkPosture.parse(value)

    assert "invalid_input" == caught.value.code
    assert "network" in caught.value.message
