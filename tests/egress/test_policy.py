"""What a posture lets out, in every spelling of an address."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitos.egress.policy import DeniedError, Policy, parse_host
from mitos.wire.network import NetworkPosture


def policy(**members: object) -> Policy:
    return Policy(NetworkPosture.parse(members))


def passes(rules: Policy, text: str, port: int = 443) -> bool:
    """Whether the text passes; a name counts as resolved to a public address."""
    try:
        host = parse_host(text)
        rules.check_name(host, port)
        address = ipaddress.ip_address("8.8.8.8") if isinstance(host, str) else host
        rules.check_address(address, host, port)
    except DeniedError:
        return False
    return True


FORBIDDEN = [
    *("127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.0.1.", "0", "0.0.0.0"),
    *("::1", "[::1]", "::", "::ffff:127.0.0.1", "::ffff:7f00:1", "64:ff9b::7f00:1", "::127.0.0.1"),
    *("169.254.169.254", "2852039166", "0xa9fea9fe", "::ffff:169.254.169.254", "fd00:ec2::254"),
    *("2002:7f00:1::", "fe80::1%1", "127.0.0.1%00", "", ".", "a..b", "a b", "0x7f.1", "224.0.0.1"),
]


@pytest.mark.parametrize("text", FORBIDDEN)
def test_loopback_metadata_and_odd_spellings_never_pass(text: str) -> None:
    rules = policy(egress="allow", allow_cidrs=["0.0.0.0/0", "::/0", "127.0.0.0/8", "fc00::/7"])

    assert not passes(rules, text)


@given(st.ip_addresses(v=4, network="127.0.0.0/8"))
def test_no_spelling_of_loopback_passes(address: ipaddress.IPv4Address) -> None:
    rules = policy(egress="allow", allow_cidrs=["127.0.0.0/8", "::/0"])
    octets = address.packed
    spellings = (
        str(address),
        str(int(address)),
        hex(int(address)),
        ".".join(f"0{octet:o}" for octet in octets),
        ".".join(hex(octet) for octet in octets),
        f"::ffff:{address}",
        f"[::ffff:{octets.hex()[:4]}:{octets.hex()[4:]}]",
        f"{address}.",
    )

    assert [] == [text for text in spellings if passes(rules, text)]


@given(st.text(max_size=40))
def test_any_text_is_a_host_or_is_denied(text: str) -> None:
    try:
        host = parse_host(text)
    except DeniedError:
        return
    assert parse_host(str(host)) == host


def test_names_match_by_port_wildcards_below_the_apex_and_in_any_case() -> None:
    rules = policy(allow_domains=["Example.com:443", "*.example.org:80"])

    assert passes(rules, "EXAMPLE.com.")
    assert passes(rules, "a.b.example.org", 80)
    assert not passes(rules, "example.com", 80)
    assert not passes(rules, "example.org", 80)
    assert not passes(rules, "badexample.org", 80)


def test_private_space_needs_a_block_that_lies_inside_it() -> None:
    assert not passes(policy(egress="allow"), "10.1.2.3")
    assert not passes(policy(allow_cidrs=["0.0.0.0/0"]), "10.1.2.3")
    assert passes(policy(allow_cidrs=["10.1.0.0/16"]), "10.1.2.3")
    assert passes(policy(allow_cidrs=["0.0.0.0/0"]), "8.8.8.8")


def test_a_name_that_resolves_to_loopback_is_denied() -> None:
    rules = policy(allow_domains=["rebind.example:443"])

    rules.check_name("rebind.example", 443)
    with pytest.raises(DeniedError):
        rules.check_address(ipaddress.ip_address("127.0.0.1"), "rebind.example", 443)


def test_deny_is_the_default_and_block_overrides_all() -> None:
    assert not passes(policy(), "8.8.8.8")
    assert not passes(policy(block=True, egress="allow"), "8.8.8.8")
