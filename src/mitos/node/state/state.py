"""Everything a node keeps, opened together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mitos.node.clock import Clock
from mitos.node.state.boot import LastBoot
from mitos.node.state.checkpoint import Checkpoints
from mitos.node.state.database import Database
from mitos.node.state.event import EventFeed
from mitos.node.state.hibernation import Hibernations
from mitos.node.state.idempotency import IdempotencyKeys
from mitos.node.state.sandbox import SandboxTable
from mitos.node.state.template import TemplateTable
from mitos.node.state.warm import WarmTable

__all__ = ["State"]


@dataclass(frozen=True, slots=True)
class State:
    """The parts of one home's state; `close` closes the database they share."""

    database: Database
    events: EventFeed
    sandboxes: SandboxTable
    templates: TemplateTable
    checkpoints: Checkpoints
    hibernations: Hibernations
    keys: IdempotencyKeys
    last_boot: LastBoot
    warm: WarmTable

    @classmethod
    def open(cls, home: Path, clock: Clock) -> State:
        """Opens the state of a home, made if absent.

        Raises:
            ApiError: it cannot be opened, or a later server wrote it.
        """
        database = Database(home / "state.db")
        try:
            events = EventFeed(database, clock)
            return cls(
                database=database,
                events=events,
                sandboxes=SandboxTable(database, events, clock),
                templates=TemplateTable(database, events),
                checkpoints=Checkpoints(home / "checkpoints", database),
                hibernations=Hibernations(home / "hibernated"),
                keys=IdempotencyKeys(database, clock),
                last_boot=LastBoot(database),
                warm=WarmTable(database),
            )
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Closes the database. Idempotent."""
        self.database.close()
