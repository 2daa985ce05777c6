"""What every operation under test is made of."""

from __future__ import annotations

import random
from typing import Any, ClassVar

from tests.crash.living import Living, Reading
from tests.crash.world import World

__all__ = ["Operation"]


class Operation:
    """An operation that is cut short: prepared, run, and looked at when the next server is there.

    It is done or it has not begun, never between; done it must be when it was answered. It works on
    a sandbox of its own, and ends all it made.

    Args:
        world: where the server comes and goes.
        chance: draws what is left to chance.
        label: begins the ids of all that it makes.
    """

    has_subject: ClassVar[bool] = True
    """False for one that needs no sandbox."""

    is_killed_again: ClassVar[bool] = False
    """True for one whose machine the next server may have replaced: another one finds it too."""

    def __init__(self, world: World, chance: random.Random, label: str) -> None:
        self.world = world
        self.chance = chance
        self.label = label
        self.answer: Any = None
        """What the operation brought, where it did."""
        self.subject: Living
        self._read: Reading

    def prepare(self) -> None:
        """Makes what the operation works on."""
        if self.has_subject:
            self.subject = Living.create(self.world, self.label)
            self.subject.keep_job()
            self.begin()
            self._read = self.subject.read()
            self.begin_last()

    def begin(self) -> None:
        """Prepares further."""

    def begin_last(self) -> None:
        """Prepares what comes after the last look at the subject."""

    def run(self) -> Any:
        """The operation itself, beside the test.

        Raises:
            AgentRunError, httpx.HTTPError: it was cut short.
        """
        raise NotImplementedError

    def check(self, listing: dict[str, dict[str, Any]]) -> None:
        """Holds if it is done or has not begun.

        Args:
            listing: the sandboxes that there are, by id.
        """
        raise NotImplementedError

    def finish(self) -> None:
        """Ends all that it made."""
        for sandbox_id in self.world.listing():
            if sandbox_id.startswith(self.label):
                self.world.client.connect(sandbox_id).terminate()

    @property
    def is_answered(self) -> bool:
        """True when its caller was told that it is done."""
        return self.answer is not None

    def phase(self) -> str:
        """Of the subject."""
        return str(self.world.listing()[self.label]["phase"])

    def check_subject(self) -> None:
        """Holds if nothing of the subject is lost. Wakes it."""
        self.subject.check_goes_on(self._read)
        self.subject.check_job()
