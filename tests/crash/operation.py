"""The operations under test, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.crash.keeping import Checkpoint, Hibernate, Promote, Restore, Wake
from tests.crash.making import Build, Create, Fork
from tests.crash.subject import Operation
from tests.crash.using import Exec, Idle, Pause, Resume, Upload

__all__ = ["OPERATIONS"]

OPERATIONS: Mapping[str, type[Operation]] = {
    "create": Create,
    "fork": Fork,
    "exec": Exec,
    "upload": Upload,
    "checkpoint": Checkpoint,
    "hibernate": Hibernate,
    "wake": Wake,
    "promote": Promote,
    "build": Build,
    "idle": Idle,
    "pause": Pause,
    "resume": Resume,
    "restore": Restore,
}
