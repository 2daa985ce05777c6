"""The network posture of a template: what its sandboxes may reach, and who may reach them.

It has two spellings on the wire: the one of the template request, and the one of the sandbox
descriptor, which follows the cluster objects. Anything left out means deny.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from mitos.wire.errors import bad_member
from mitos.wire.ids import is_text

__all__ = ["NetworkPosture"]

MAX_ENTRIES = 1024
"""Of each list."""
MAX_HOST = 261
"""Characters of a domain entry before its port: the longest name, with a wildcard or brackets."""

_VERDICTS = ("deny", "allow")


@dataclass(frozen=True, slots=True)
class NetworkPosture:
    """What a sandbox may reach.

    Attributes:
        block: drop all egress, whatever the other members say.
        egress: verdict for egress that nothing else matches, `deny` or `allow`.
        allow_domains: `host:port` entries; the host may be `*.suffix`.
        allow_cidrs: destination blocks, v4 or v6.
        inbound: unsolicited inbound, `deny` or `allow`.
        inbound_cidrs: narrows an inbound `allow`.
    """

    block: bool = False
    egress: str = "deny"
    allow_domains: tuple[str, ...] = ()
    allow_cidrs: tuple[str, ...] = ()
    inbound: str = "deny"
    inbound_cidrs: tuple[str, ...] = ()

    @property
    def allows_egress(self) -> bool:
        """True when anything at all may leave."""
        rules = self.egress == "allow" or self.allow_domains or self.allow_cidrs
        return bool(rules) and not self.block

    @classmethod
    def parse(cls, value: object) -> NetworkPosture:
        """Reads the `network` member of a template request.

        Raises:
            ApiError: `invalid_input` naming the member; a posture that is half understood is
                refused.
        """
        if not isinstance(value, dict):
            raise bad_member("network", "an object")
        posture = cls.restore(value)
        for member in ("allow_domains", "allow_cidrs", "inbound_cidrs"):
            if len(getattr(posture, member)) > MAX_ENTRIES:
                raise bad_member(f"network.{member}", f"a list of at most {MAX_ENTRIES} entries")
        for domain in posture.allow_domains:
            host, colon, port = domain.rpartition(":")
            is_port = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536
            if not (host and colon and is_port and is_text(host, MAX_HOST)):
                raise bad_member("network.allow_domains", "entries of the form host:port")
        return posture

    @classmethod
    def restore(cls, value: dict[str, object]) -> NetworkPosture:
        """Reads what `to_template` gave, without the bounds that requests have today.

        Raises:
            ApiError: a member is of another type.
        """
        return cls(
            block=_boolean(value, "block"),
            egress=_verdict(value, "egress"),
            allow_domains=_strings(value, "allow_domains"),
            allow_cidrs=_cidrs(value, "allow_cidrs"),
            inbound=_verdict(value, "inbound"),
            inbound_cidrs=_cidrs(value, "inbound_cidrs"),
        )

    def to_template(self) -> dict[str, object]:
        """The `network` member of a template descriptor: both verdicts, the rest where set."""
        return {
            "egress": self.egress,
            "inbound": self.inbound,
            **({"block": True} if self.block else {}),
            **_lists(
                allow_domains=self.allow_domains,
                allow_cidrs=self.allow_cidrs,
                inbound_cidrs=self.inbound_cidrs,
            ),
        }

    def to_sandbox(self) -> dict[str, object]:
        """The `network` member of a sandbox descriptor, in the spelling of the cluster objects."""
        return {
            "egress": self.egress,
            "inbound": self.inbound,
            **({"blockNetwork": True} if self.block else {}),
            **_lists(
                allow=self.allow_domains,
                allowCidrs=self.allow_cidrs,
                inboundCidrs=self.inbound_cidrs,
            ),
        }


def _lists(**members: tuple[str, ...]) -> dict[str, object]:
    return {name: list(values) for name, values in members.items() if values}


def _boolean(value: dict[str, object], member: str) -> bool:
    found = value.get(member)
    if found is None or isinstance(found, bool):
        return bool(found)
    raise bad_member(f"network.{member}", "true or false")


def _verdict(value: dict[str, object], member: str) -> str:
    found = value.get(member) or "deny"
    if found in _VERDICTS:
        return str(found)
    raise bad_member(f"network.{member}", "deny or allow")


def _strings(value: dict[str, object], member: str) -> tuple[str, ...]:
    found = value.get(member)
    if found is None:
        return ()
    if isinstance(found, list) and all(isinstance(item, str) for item in found):
        return tuple(found)
    raise bad_member(f"network.{member}", "a list of strings")


def _cidrs(value: dict[str, object], member: str) -> tuple[str, ...]:
    blocks = _strings(value, member)
    for block in blocks:
        try:
            ipaddress.ip_network(block, strict=False)
        except ValueError:
            raise bad_member(f"network.{member}", "address blocks such as 10.0.0.0/8") from None
    return blocks
