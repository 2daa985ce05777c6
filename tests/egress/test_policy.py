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


NOT_REACHABLE = [
    *("0.1.2.3", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.88.99.2", "198.51.100.1"),
    *("203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("::ffff:0:8.8.8.8", "::ffff:0:10.0.0.1", "::8.8.8.8", "::ffff:192.88.99.1", "1::1"),
    *("64:ff9b:1::1", "64:ff9b:1:8:8:8:808:808", "64:ff9b:2::1", "64:ff9b:0:1::808:808"),
    *("64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b::192.0.2.1", "64:ff9b::e000:1"),
    *("100::1", "100:0:0:1::1", "2001::1", "2001:0:808:808::1", "2001:1::4", "2001:2::1"),
    *("2001:10::1", "2001:40::1", "2001:db8::1", "2002:808:808::1", "3fff::1", "3fff:fff::1"),
    *("4000::1", "5f00::1", "fec0::1", "feff::1", "ff02::1", "ff0e::1", "fbff::1"),
]
REACHABLE = [
    *("1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.32.0.1"),
    *("192.0.0.9", "192.0.1.1", "192.31.196.1", "192.88.98.1", "198.20.0.1", "223.255.255.255"),
    *("64:ff9b::8.8.8.8", "::ffff:8.8.8.8", "2001:1::3", "2001:3::1", "2001:20::1", "2001:200::1"),
    *("2001:4860:4860::8888", "2606:4700::1111", "2a00:1450:4001::1", "3fff:1000::1"),
]


@pytest.mark.parametrize("text", NOT_REACHABLE)
def test_what_is_not_globally_reachable_never_passes(text: str) -> None:
    every_block = ["0.0.0.0/0", "::/0", f"{text}/32" if "." in text and ":" not in text else "::/1"]

    assert not passes(policy(egress="allow", allow_cidrs=every_block), text)


@pytest.mark.parametrize("text", REACHABLE)
def test_what_is_globally_reachable_passes_where_all_may(text: str) -> None:
    assert passes(policy(egress="allow"), text)


@given(st.ip_addresses(v=4))
def test_a_translated_address_passes_exactly_where_its_inside_does(
    address: ipaddress.IPv4Address,
) -> None:
    rules = policy(egress="allow", allow_cidrs=["10.0.0.0/8"])

    assert passes(rules, str(address)) == passes(rules, f"64:ff9b::{address}")


@given(st.ip_addresses())
def test_no_address_passes_that_the_standard_library_calls_special(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """Its own list is older and shorter, and made by others from the same registries."""
    if passes(policy(egress="allow"), str(address)) and address not in NAT64:
        assert address.is_global or any(address in ipaddress.ip_network(one) for one in EXEMPT)


NAT64 = ipaddress.ip_network("64:ff9b::/96")
EXEMPT = ("192.0.0.9/32", "192.0.0.10/32", "2001::/23")
"""Blocks that older standard libraries take for special as a whole."""


def test_private_space_opens_to_a_block_behind_a_translator_too() -> None:
    rules = policy(allow_cidrs=["10.1.0.0/16"])

    assert passes(rules, "64:ff9b::10.1.2.3")
    assert not passes(rules, "64:ff9b::10.2.2.3")
