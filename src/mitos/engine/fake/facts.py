"""What is true of the fake engine."""

from __future__ import annotations

from mitos.engine.facts import Difference, Facts, Isolation
from mitos.host.rootfs import RootKind

__all__ = ["FACTS"]

FACTS = Facts(
    title="fake",
    summary="Guests in the server's own memory, for tests and for trying out. It isolates nothing.",
    isolation=Isolation.NONE,
    shares_memory=False,
    root_kinds=(RootKind.FOLDER,),
    differences=(
        Difference("No program runs: a command is one of a handful of shell words."),
        Difference("Cells are Python in the server's process."),
        Difference("The root filesystem is not read: a machine begins without files."),
    ),
)
