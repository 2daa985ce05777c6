"""What is true of the fake engine."""

from __future__ import annotations

from mitos.engine.facts import Facts, Isolation
from mitos.host.rootfs import RootKind

__all__ = ["FACTS"]

FACTS = Facts(
    title="fake",
    summary="Guests in the server's own memory, for tests and for trying out. It isolates nothing.",
    isolation=Isolation.NONE,
    shares_memory=False,
    root_kinds=(RootKind.FOLDER,),
    differences=(
        "No program runs: a command is one of a handful of shell words.",
        "Cells are Python in the server's process.",
        "The root filesystem is not read: a machine begins without files.",
    ),
)
