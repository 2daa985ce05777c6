"""Where servers are killed: named points inside operations, as data.

A point is a function of the server and a place in it. `server.py` starts a server that dies there,
and `moment.py` gives each numbered moment its point. Production code knows nothing of them.
"""

from __future__ import annotations

import enum
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["IDLE", "POINTS", "Point", "When", "find", "locate"]


class When(enum.Enum):
    """Where in a function the server dies."""

    BEFORE = "before"
    AFTER = "after"
    INSIDE = "inside"  # of a context manager: it has been entered
    LEAVING = "leaving"  # of a context manager: what it was entered for is done
    CHUNK = "chunk"  # of an asynchronous generator: at a large chunk
    AT_RANDOM = "at random"  # of no function: at a time of its moment


@dataclass(frozen=True, slots=True)
class Point:
    """One place to die at.

    Attributes:
        operation: that is under way.
        function: its dotted name; empty for a random time.
        when: where in the function.
        passing: the how-manieth time it is passed.
    """

    operation: str
    function: str
    when: When
    passing: int = 1

    @property
    def name(self) -> str:
        """Names it in the table, in a command line and in the name of a test."""
        words = (self.operation, self.when.value, self.function.rpartition("mitos.")[2])
        nth = f"#{self.passing}" if self.passing > 1 else ""
        return " ".join(filter(None, words)) + nth


def find(name: str) -> Point:
    """The point of that name.

    Raises:
        LookupError: there is none.
    """
    for point in POINTS:
        if point.name == name:
            return point
    raise LookupError(f"no point {name!r}")


def locate(function: str) -> tuple[Any, str]:
    """What has the function as an attribute, and its name there.

    Raises:
        LookupError: there is no such function any more.
    """
    *path, name = function.split(".")
    for length in range(len(path), 0, -1):
        try:
            owner = importlib.import_module(".".join(path[:length]))
        except ModuleNotFoundError:
            continue
        try:
            for step in path[length:]:
                owner = getattr(owner, step)
            if isinstance(inspect.getattr_static(owner, name), (Callable, classmethod)):  # type: ignore[arg-type]
                return owner, name
        except AttributeError:
            pass
        break
    raise LookupError(f"no function {function}")


_AGENT = "mitos.agent.client.AgentClient"
_CONTROL = "mitos.engine.gvisor.control.SocketControl"
_ENGINE = "mitos.engine.gvisor.engine.GvisorEngine"
_HOST = "mitos.engine.gvisor.making"
_LAUNCHER = "mitos.node.machine.launcher.Launcher"
_LINK = "mitos.agent.link.Link"
_POOL = "mitos.node.machine.pool.Pool"
_STREAM = "mitos.agent.stream.LinkStream"
_SUPERVISOR = "mitos.node.lifecycle.supervisor.Supervisor"
_TABLE = "mitos.node.state.sandbox.SandboxTable"
_TEMPLATES = "mitos.node.state.template.TemplateTable"
_TRANSACTION = "mitos.node.state.database.Database.transaction"
_WARM_UP = "mitos.node.template.warm_up"

_BEFORE, _AFTER, _INSIDE, _LEAVING, _CHUNK = (
    When.BEFORE,
    When.AFTER,
    When.INSIDE,
    When.LEAVING,
    When.CHUNK,
)

_TABLE_OF_POINTS: dict[str, tuple[tuple[Any, ...], ...]] = {
    "create": (
        (f"{_POOL}.take_warm", _BEFORE),
        (f"{_ENGINE}.resume", _AFTER),
        (f"{_AGENT}.identify", _BEFORE),
        (f"{_AGENT}.identify", _AFTER),
        (f"{_TABLE}.begin", _BEFORE),
        (_TRANSACTION, _LEAVING),
        (f"{_TABLE}.begin", _AFTER),
        # What follows is the pool that makes the next machine.
        (f"{_HOST}.create", _AFTER),
        (f"{_ENGINE}.restore", _AFTER),
        (f"{_ENGINE}.pause", _AFTER),
    ),
    "fork": (
        (f"{_LINK}.frozen", _INSIDE),
        (f"{_CONTROL}.checkpoint", _BEFORE),
        (f"{_CONTROL}.checkpoint", _AFTER),
        (f"{_ENGINE}.checkpoint", _AFTER),
        (f"{_ENGINE}.prepare", _AFTER, 3),
        (f"{_CONTROL}.restore", _AFTER, 2),
        (f"{_ENGINE}.restore", _AFTER, 4),
        (f"{_AGENT}.identify", _AFTER, 8),
        (f"{_TABLE}.begin", _BEFORE),
        (_TRANSACTION, _LEAVING),
        (f"{_TABLE}.begin", _AFTER),
    ),
    "exec": (
        (f"{_AGENT}.exec", _INSIDE),
        ("mitos.agent.command.Command._outputs", _CHUNK, 1),
        ("mitos.agent.command.Command._outputs", _CHUNK, 20),
        ("mitos.agent.command.Command._outputs", _CHUNK, 60),
        (f"{_AGENT}.exec", _LEAVING),
    ),
    "upload": (
        (f"{_AGENT}.write_file", _BEFORE),
        (f"{_STREAM}.send", _AFTER, 1),
        (f"{_STREAM}.send", _AFTER, 20),
        (f"{_STREAM}.send_eof", _BEFORE),
        (f"{_STREAM}.send_eof", _AFTER),
        (f"{_AGENT}.write_file", _AFTER),
    ),
    "checkpoint": (
        (f"{_LINK}.frozen", _INSIDE),
        (f"{_CONTROL}.checkpoint", _BEFORE),
        (f"{_CONTROL}.checkpoint", _AFTER),
        (f"{_ENGINE}.checkpoint", _AFTER),
        ("mitos.node.state.checkpoint.Checkpoints.add", _BEFORE),
        (_TRANSACTION, _LEAVING),
        ("mitos.node.state.checkpoint.Checkpoints.add", _AFTER),
    ),
    "hibernate": (
        (f"{_LINK}.frozen", _INSIDE),
        (f"{_CONTROL}.checkpoint", _AFTER),
        (f"{_TABLE}.change", _BEFORE),
        (_TRANSACTION, _LEAVING),
        (f"{_TABLE}.change", _AFTER),
        (f"{_ENGINE}.destroy", _BEFORE),
        (f"{_ENGINE}.destroy", _AFTER),
    ),
    "wake": (
        (f"{_LAUNCHER}.launch", _BEFORE),
        (f"{_CONTROL}.restore", _BEFORE),
        (f"{_ENGINE}.restore", _AFTER),
        (f"{_AGENT}.identify", _AFTER),
        (f"{_TABLE}.change", _BEFORE),
        (_TRANSACTION, _LEAVING),
        ("mitos.node.state.hibernation.Hibernations.clear", _BEFORE),
        ("mitos.node.state.hibernation.Hibernations.clear", _AFTER),
    ),
    "promote": (
        (f"{_AGENT}.identify", _BEFORE),
        (f"{_AGENT}.identify", _AFTER),
        (f"{_TABLE}.rename", _BEFORE),
        (_TRANSACTION, _LEAVING),
        (f"{_TABLE}.rename", _AFTER),
        (f"{_ENGINE}.destroy", _BEFORE),
        (f"{_ENGINE}.destroy", _AFTER),
    ),
    "build": (
        ("mitos.images.store.ImageStore.ensure", _AFTER),
        (f"{_ENGINE}.boot", _AFTER),
        (f"{_WARM_UP}._run_step", _BEFORE, 2),
        (f"{_WARM_UP}._start_kernel", _BEFORE),
        (f"{_CONTROL}.checkpoint", _AFTER),
        (f"{_ENGINE}.checkpoint", _AFTER),
        (f"{_TEMPLATES}.save", _BEFORE),
        (f"{_TEMPLATES}.save", _AFTER),
        (f"{_POOL}.keep_warm", _AFTER),
    ),
    "pause": (
        (f"{_LINK}.frozen", _INSIDE),
        (f"{_CONTROL}.pause", _BEFORE),
        (f"{_CONTROL}.pause", _AFTER),
        (f"{_TABLE}.change", _BEFORE),
        (f"{_TABLE}.change", _AFTER),
    ),
    "resume": (
        (f"{_ENGINE}.resume", _BEFORE),
        (f"{_CONTROL}.resume", _BEFORE),
        (f"{_CONTROL}.resume", _AFTER),
        (f"{_TABLE}.change", _BEFORE),
        (f"{_TABLE}.change", _AFTER),
    ),
    "restore": (
        (f"{_CONTROL}.restore", _BEFORE),
        (f"{_AGENT}.identify", _BEFORE),
        (f"{_TABLE}.change", _BEFORE),
        (f"{_TABLE}.change", _AFTER),
        (f"{_ENGINE}.destroy", _BEFORE),
        (f"{_ENGINE}.destroy", _AFTER),
    ),
}

IDLE = Point("idle", "", When.AT_RANDOM)

POINTS = (
    *(Point(operation, *rest) for operation, all_ in _TABLE_OF_POINTS.items() for rest in all_),
    IDLE,
)
