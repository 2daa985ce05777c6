"""Who calls: the owner whose templates and sandboxes a request is about.

The server's gate makes a principal out of a request; the node keeps all it has by owner. There is
one owner today.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LOCAL", "Principal"]


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller.

    Attributes:
        owner: names whose things the caller may see and use.
    """

    owner: str


LOCAL = Principal("local")
"""The owner of everything on a server that knows only one."""
