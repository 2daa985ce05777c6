"""Addresses that are not globally reachable, as one table.

Source: the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890, RFC 8190), every entry
up to RFC 9780 of May 2025. Of blocks inside each other the smallest decides. An entry whose
column *Globally Reachable* says N/A counts as not reachable: such blocks are deprecated, or lead to
an IPv4 address by way of somebody's relay.

What the registries leave out is in the table too: multicast, and all of IPv6 that is not assigned
as global unicast (2000::/3). So site-local addresses (fec0::/10) and the forms that hold an IPv4
address in odd places are not reachable without an entry of their own.
"""

from __future__ import annotations

import ipaddress

__all__ = ["is_globally_reachable", "without_translation"]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""The prefix that translators of IPv6-only networks share (RFC 6052): the last 32 bits are where a
connection arrives.
"""

_BLOCKS = {
    # Globally reachable unless a smaller block says otherwise.
    "0.0.0.0/0": True,
    "2000::/3": True,
    # IPv4 Special-Purpose Address Registry
    "0.0.0.0/8": False,  # this network
    "10.0.0.0/8": False,  # private use
    "100.64.0.0/10": False,  # shared address space of carriers
    "127.0.0.0/8": False,  # loopback
    "169.254.0.0/16": False,  # link local
    "172.16.0.0/12": False,  # private use
    "192.0.0.0/24": False,  # protocol assignments
    "192.0.0.9/32": True,  # Port Control Protocol anycast
    "192.0.0.10/32": True,  # TURN anycast
    "192.0.2.0/24": False,  # documentation
    "192.31.196.0/24": True,  # AS112
    "192.52.193.0/24": True,  # AMT
    "192.88.99.0/24": False,  # 6to4 relay anycast, deprecated
    "192.168.0.0/16": False,  # private use
    "192.175.48.0/24": True,  # AS112
    "198.18.0.0/15": False,  # benchmarking
    "198.51.100.0/24": False,  # documentation
    "203.0.113.0/24": False,  # documentation
    "240.0.0.0/4": False,  # reserved; limited broadcast
    # IPv6 Special-Purpose Address Registry
    "::1/128": False,  # loopback
    "::/128": False,  # unspecified
    "::ffff:0:0/96": False,  # IPv4-mapped
    "64:ff9b::/96": True,  # IPv4-IPv6 translation: as reachable as the address inside
    "64:ff9b:1::/48": False,  # local IPv4-IPv6 translation
    "100::/64": False,  # discard only
    "100:0:0:1::/64": False,  # dummy prefix
    "2001::/23": False,  # protocol assignments
    "2001::/32": False,  # Teredo
    "2001:1::1/128": True,  # Port Control Protocol anycast
    "2001:1::2/128": True,  # TURN anycast
    "2001:1::3/128": True,  # DNS-SD registration anycast
    "2001:2::/48": False,  # benchmarking
    "2001:3::/32": True,  # AMT
    "2001:4:112::/48": True,  # AS112
    "2001:10::/28": False,  # ORCHID, deprecated
    "2001:20::/28": True,  # ORCHIDv2
    "2001:30::/28": True,  # drone remote ids
    "2001:db8::/32": False,  # documentation
    "2002::/16": False,  # 6to4
    "2620:4f:8000::/48": True,  # AS112
    "3fff::/20": False,  # documentation
    "5f00::/16": False,  # segment routing
    "fc00::/7": False,  # unique local
    "fe80::/10": False,  # link local
    # In other registries
    "224.0.0.0/4": False,  # multicast
    "fec0::/10": False,  # site local, deprecated
    "ff00::/8": False,  # multicast
}

_SMALLEST_FIRST = sorted(
    ((ipaddress.ip_network(text), is_reachable) for text, is_reachable in _BLOCKS.items()),
    key=lambda entry: -entry[0].prefixlen,
)


def is_globally_reachable(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether the whole internet may have a way to an address.

    Example:
        >>> is_globally_reachable(ipaddress.ip_address("8.8.8.8"))
        True
        >>> is_globally_reachable(ipaddress.ip_address("fec0::1"))
        False
    """
    address = without_translation(address)
    return next((entry for block, entry in _SMALLEST_FIRST if address in block), False)


def without_translation(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Where a connection arrives: the IPv4 address in a mapped or NAT64 one, else the same.

    Example:
        >>> without_translation(ipaddress.ip_address("64:ff9b::7f00:1"))
        IPv4Address('127.0.0.1')
    """
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address
