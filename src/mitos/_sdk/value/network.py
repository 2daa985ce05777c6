"""What a sandbox may reach."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Network"]


@dataclass
class Network:
    """What a template's sandboxes may reach. Anything left out means deny.

    Attributes:
        block: no egress at all, whatever the rest says.
        egress: `deny` or `allow`, for what nothing else matches.
        allow_domains: `host:port` entries; the host may be `*.suffix`.
        allow_cidrs: address blocks.
        inbound: `deny` or `allow`.
        inbound_cidrs: narrows an inbound `allow`.

    Example:
        >>> Network(allow_domains=["pypi.org:443"]).to_dict()
        {'allow_domains': ['pypi.org:443']}
    """

    block: bool = False
    egress: str = "deny"
    allow_domains: list[str] = field(default_factory=list)
    allow_cidrs: list[str] = field(default_factory=list)
    inbound: str = "deny"
    inbound_cidrs: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The wire form: members that differ from their defaults.

        Example:
            >>> Network().to_dict()
            {}
        """
        members: dict[str, Any] = {}
        if self.block:
            members["block"] = True
        for name in ("egress", "inbound"):
            verdict = getattr(self, name)
            if verdict and verdict != "deny":
                members[name] = verdict
        for name in ("allow_domains", "allow_cidrs", "inbound_cidrs"):
            if entries := getattr(self, name):
                members[name] = list(entries)
        return members
