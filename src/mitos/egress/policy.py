"""What a network posture lets out: destinations are checked as text first, then as addresses.

A name must be allowed by name before it is resolved, so that a lookup tells nobody anything; then
every address it has is checked, and the connection goes to a checked address. Private address space
passes only through a block of the posture that lies inside it; loopback, the addresses where clouds
keep credentials, and all else that is not globally reachable (`special.py`) never pass.
"""

from __future__ import annotations

import ipaddress
import re

from mitos.egress.special import is_globally_reachable, without_translation
from mitos.wire.network import NetworkPosture

__all__ = ["Address", "DeniedError", "Policy", "parse_host"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Block = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_NAME = 253

_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        *("169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200"),
        *("192.0.0.192", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254"),
    )
)
_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
        *("169.254.0.0/16", "198.18.0.0/15", "fc00::/7", "fe80::/10"),
    )
)

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)\Z")


class DeniedError(Exception):
    """The posture does not allow a destination; the text names the rule and is safe to show."""


def parse_host(text: str) -> str | Address:
    """The one spelling of a host: an address, or a name in lower-case ASCII without a final dot.

    Raises:
        DeniedError: it is neither, or an IPv4 address in another form than `192.0.2.1`.
    """
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in host:
        try:
            return _plain(ipaddress.IPv6Address(host))
        except ValueError:
            raise DeniedError("the host is not an IPv6 address") from None
    host = host.removesuffix(".")
    try:
        name = host.lower() if host.isascii() else host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise DeniedError("the host is not a valid name") from None
    name = name.removesuffix(".")
    labels = name.split(".")
    if not 0 < len(name) <= MAX_NAME or not all(map(_LABEL.match, labels)):
        raise DeniedError("the host is not a valid name")
    if not _NUMBER.match(labels[-1]):
        return name
    try:
        return ipaddress.IPv4Address(name)
    except ValueError:
        raise DeniedError("an IPv4 address must be four decimal numbers") from None


def _plain(address: ipaddress.IPv6Address) -> Address:
    if address.scope_id is not None:
        raise DeniedError("an address with a zone does not pass")
    return address.ipv4_mapped or address


class Policy:
    """The rules of one posture.

    Args:
        posture: of the sandbox; already parsed.
    """

    def __init__(self, posture: NetworkPosture) -> None:
        self._blocked = posture.block
        self._allows_rest = posture.egress == "allow"
        self._names: set[tuple[str | Address, int]] = set()
        self._suffixes: set[tuple[str, int]] = set()
        self._blocks: list[_Block] = [
            ipaddress.ip_network(block, strict=False) for block in posture.allow_cidrs
        ]
        for entry in posture.allow_domains:
            self._add_domain(entry)

    def _add_domain(self, entry: str) -> None:
        host, _, port = entry.rpartition(":")
        try:
            if host.startswith("*."):
                self._suffixes.add((f".{parse_host(host[2:])}", int(port)))
            else:
                self._names.add((parse_host(host), int(port)))
        except DeniedError:
            return  # an entry that names nothing allows nothing

    def check_name(self, host: str | Address, port: int) -> None:
        """Decides whether a name may be resolved; an address is left to `check_address`.

        Raises:
            DeniedError: nothing in the posture allows it.
        """
        if self._blocked:
            raise DeniedError("network.block drops all egress")
        if not isinstance(host, str) or self._allows(host, port):
            return
        raise DeniedError("no entry of network.allow_domains matches the name and port")

    def check_address(self, address: Address, host: str | Address, port: int) -> None:
        """Decides whether a connection may go to the address.

        Args:
            address: what the connection would go to.
            host: what the program asked for; the address itself where it named one.
            port: 1 to 65535.

        Raises:
            DeniedError: it is not globally reachable and no block opens its private space, or
                nothing allows it.
        """
        if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
            raise DeniedError("an address with a zone does not pass")
        address = without_translation(address)
        if self._blocked:
            raise DeniedError("network.block drops all egress")
        _check_reachable(address)
        if (space := _private_space(address)) is not None:
            if any(address in block and _lies_in(block, space) for block in self._blocks):
                return
            raise DeniedError(
                "the address is private, and no entry of network.allow_cidrs inside that private "
                "space covers it"
            )
        if self._allows(host, port) or any(address in block for block in self._blocks):
            return
        raise DeniedError("no entry of network.allow_domains or network.allow_cidrs matches")

    def _allows(self, host: str | Address, port: int) -> bool:
        if self._allows_rest or (host, port) in self._names:
            return True
        return isinstance(host, str) and any(
            host.endswith(suffix) and port == allowed for suffix, allowed in self._suffixes
        )


def _check_reachable(address: Address) -> None:
    if address in _METADATA:
        raise DeniedError("addresses of cloud metadata services never pass")
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        raise DeniedError("loopback, unspecified and multicast addresses never pass")
    if not is_globally_reachable(address) and _private_space(address) is None:
        raise DeniedError("addresses that are not globally reachable never pass")


def _private_space(address: Address) -> _Block | None:
    return next((space for space in _PRIVATE if address in space), None)


def _lies_in(block: _Block, space: _Block) -> bool:
    return (
        block.version == space.version
        and block.network_address in space
        and block.broadcast_address in space
    )
