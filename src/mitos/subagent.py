"""Subagents that inherit everything: an agent inside a sandbox forks the sandbox it runs in.

Off the platform nothing happens and the result says so, so that agent code runs anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from mitos import guest

__all__ = [
    "SubagentHandle",
    "SubagentResult",
    "current_sandbox",
    "is_on_mitos",
    "spawn_subagent",
]


@dataclass(frozen=True)
class SubagentHandle:
    """One child."""

    sandbox_id: str
    label: str = ""
    on_mitos: bool = True


@dataclass(frozen=True)
class SubagentResult:
    """What came of a spawn; true when it ran on the platform."""

    on_mitos: bool
    children: tuple[SubagentHandle, ...] = ()
    reason: str = ""

    def __bool__(self) -> bool:
        return self.on_mitos

    @property
    def first(self) -> SubagentHandle | None:
        """The first child, if there is one."""
        return self.children[0] if self.children else None


def is_on_mitos() -> bool:
    """True inside a sandbox. Looks at the environment only.

    Example:
        >>> is_on_mitos()  # on a developer's machine
        False
    """
    return guest.socket_path() is not None


def current_sandbox() -> guest.Identity | None:
    """The sandbox this runs in, or None outside of one.

    Raises:
        GuestError: inside one that does not answer.

    Example:
        >>> current_sandbox() is None  # on a developer's machine
        True
    """
    return guest.identity() if is_on_mitos() else None


def spawn_subagent(n: int = 1, *, label: str = "") -> SubagentResult:
    """Forks this sandbox into `n` children; outside of one, says why nothing happened.

    The children go on from this call too: there the result is true and has no children.

    Raises:
        GuestError: inside a sandbox, when the fork is refused.

    Example:
        >>> result = spawn_subagent(2)
        >>> bool(result)  # on a developer's machine
        False
    """
    if not is_on_mitos():
        reason = f"not inside a Mitos sandbox: {guest.SOCKET_ENV} is not set"
        return SubagentResult(on_mitos=False, reason=reason)
    children = guest.fork(n, label=label)
    return SubagentResult(
        on_mitos=True, children=tuple(SubagentHandle(child, label) for child in children)
    )
