"""What is true of an engine on every machine: what it isolates with, boots from, does differently.

Each engine states its own in a `facts.py`. `scripts/reference` writes `docs/reference/engines.md`
and `linux.md` from them; the command line and the node ask them instead of asking for an engine by
name.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from mitos.host.rootfs import RootKind

__all__ = ["Difference", "Facts", "Isolation"]


class Isolation(enum.Enum):
    """What stands between a machine and the host's kernel."""

    NONE = "none"
    USER_SPACE_KERNEL = "user-space kernel"
    VIRTUAL_MACHINE = "virtual machine"


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that programs inside find different from Linux.

    Attributes:
        text: a sentence or two.
        is_old: True when only older programs of the engine have it.
        is_new: True when only its own program has it.
    """

    text: str
    is_old: bool = False
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What is true of an engine on every machine.

    Attributes:
        title: its name as people write it.
        summary: what it is, in a sentence or two, for the reference page.
        isolation: what stands between a machine and the host's kernel.
        shares_memory: True when machines of one snapshot share the memory they do not change.
        root_kinds: the kinds of root filesystem it boots, the best first; it refuses others.
        differences: what programs inside find different from Linux.
        program: what its program is called on the pages, with the date of its release.
        old_program: the oldest one that it drives too; empty where there is one alone.
    """

    title: str
    summary: str
    isolation: Isolation
    shares_memory: bool
    root_kinds: tuple[RootKind, ...]
    differences: tuple[Difference, ...]
    program: str = ""
    old_program: str = ""
