"""The life of a sandbox as a table: in which phase what may happen, and which phase follows. Pure.

`lifecycle/lifecycle.py` is the only writer of a sandbox's phase and asks this table; every cell is
a test (`tests/node/lifecycle/test_transition.py`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Event", "Phase", "Transition", "transition"]


class Phase(str, enum.Enum):
    """Where a sandbox is in its life."""

    READY = "Ready"  # its processes run
    PAUSED = "Paused"  # its machine is there and stands still
    HIBERNATED = "Hibernated"  # it is a snapshot on disk, without a machine
    TERMINATING = "Terminating"  # it has ended; what it had is being freed

    @property
    def stands_still(self) -> bool:
        """No process runs, so its deadline stands still as well."""
        return self in (Phase.PAUSED, Phase.HIBERNATED)


class Event(str, enum.Enum):
    """What can happen to a sandbox, or be done with it."""

    CALL = "called"  # a runtime call: a command, a file, a cell, a port
    PAUSE = "paused"
    RESUME = "resumed"
    HIBERNATE = "hibernated"
    WAKE = "woken"
    CHECKPOINT = "checkpointed"
    FORK = "forked"
    RESTORE = "restored"
    PROMOTE = "promoted"
    END = "ended"


@dataclass(frozen=True, slots=True)
class Transition:
    """What follows an event.

    Attributes:
        to: the phase afterwards.
        wakes_first: a hibernated sandbox gets a machine before the event happens to it.
    """

    to: Phase
    wakes_first: bool = False


def _to(phase: Phase) -> Transition:
    return Transition(phase)


def _woken(phase: Phase) -> Transition:
    return Transition(phase, wakes_first=True)


_READY, _PAUSED, _ASLEEP, _GONE = map(
    _to, (Phase.READY, Phase.PAUSED, Phase.HIBERNATED, Phase.TERMINATING)
)

_COLUMNS = (Phase.READY, Phase.PAUSED, Phase.HIBERNATED, Phase.TERMINATING)

# None refuses the event.
_TABLE: dict[Event, tuple[Transition | None, ...]] = {
    #                  in READY, in PAUSED, in HIBERNATED,         in TERMINATING
    Event.CALL:       (_READY,   None,      _woken(Phase.READY),   None),
    Event.PAUSE:      (_PAUSED,  _PAUSED,   _woken(Phase.PAUSED),  None),
    Event.RESUME:     (_READY,   _READY,    _woken(Phase.READY),   None),
    Event.HIBERNATE:  (_ASLEEP,  _ASLEEP,   _ASLEEP,               None),
    Event.WAKE:       (_READY,   _PAUSED,   _READY,                None),
    Event.CHECKPOINT: (_READY,   _PAUSED,   _woken(Phase.READY),   None),
    Event.FORK:       (_READY,   _PAUSED,   _ASLEEP,               None),
    Event.RESTORE:    (_READY,   _READY,    _READY,                None),
    Event.PROMOTE:    (_READY,   None,      _woken(Phase.READY),   None),
    Event.END:        (_GONE,    _GONE,     _GONE,                 _GONE),
}  # fmt: skip


def transition(phase: Phase, event: Event) -> Transition | None:
    """What follows the event in the phase; None when it is refused there.

    Example:
        >>> transition(Phase.READY, Event.PAUSE)
        Transition(to=<Phase.PAUSED: 'Paused'>, wakes_first=False)
    """
    return _TABLE[event][_COLUMNS.index(phase)]
