"""Operations over snapshots: checkpoint, restore, hibernate, wake; and promote."""

from __future__ import annotations

from typing import Any

from tests.crash.subject import Operation
from tests.crash.world import until

__all__ = ["Checkpoint", "Hibernate", "Promote", "Restore", "Wake"]

MARK = "/workspace/after"


class Checkpoint(Operation):
    """A snapshot that is kept."""

    def run(self) -> Any:
        return self.subject.sandbox.checkpoint("kept").id

    def check(self, listing: dict[str, dict[str, Any]]) -> None:
        assert listing[self.label]["phase"] == "Ready"
        kept = self.subject.sandbox.checkpoints()
        assert [each.name for each in kept] in ([["kept"]] if self.is_answered else [[], ["kept"]])
        known = {each["id"] for row in listing for each in self._checkpoints(row)}
        assert self.world.entries("checkpoints") == known
        self.check_subject()
        for each in kept:
            self.subject.sandbox.restore(each)
            self.subject.check_goes_on(self._read)

    def _checkpoints(self, sandbox_id: str) -> Any:
        return self.world.get(f"/v1/sandboxes/{sandbox_id}/checkpoints")


class Restore(Operation):
    """A sandbox that goes back."""

    def begin(self) -> None:
        sandbox = self.subject.sandbox
        self._then = self.subject.read()
        self._kept = sandbox.checkpoint("kept")

    def begin_last(self) -> None:
        self.subject.sandbox.files.write(MARK, "")

    def run(self) -> Any:
        self.subject.sandbox.restore(self._kept)
        return True

    def check(self, listing: dict[str, dict[str, Any]]) -> None:
        sandbox = self.subject.sandbox
        assert listing[self.label]["phase"] == "Ready"
        assert [each.id for each in sandbox.checkpoints()] == [self._kept.id]
        if not sandbox.files.exists(MARK):
            self._read = self._then
        else:
            assert not self.is_answered
        self.check_subject()


class Hibernate(Operation):
    """A sandbox that goes to disk."""

    def run(self) -> Any:
        self.subject.sandbox.hibernate()
        return True

    def check(self, listing: dict[str, dict[str, Any]]) -> None:
        phase = listing[self.label]["phase"]
        assert phase in (("Hibernated",) if self.is_answered else ("Hibernated", "Ready"))
        assert len(self.world.entries("hibernated")) == (phase == "Hibernated")
        self.check_subject()
        assert self.phase() == "Ready"
        assert self.world.entries("hibernated") == set()


class Wake(Operation):
    """A call to a sandbox that is on disk."""

    def begin_last(self) -> None:
        self.subject.sandbox.hibernate()

    def run(self) -> Any:
        return self.subject.sandbox.exec("true").exit_code == 0

    def check(self, listing: dict[str, dict[str, Any]]) -> None:
        phase = listing[self.label]["phase"]
        assert phase in (("Ready",) if self.is_answered else ("Hibernated", "Ready"))
        self.check_subject()
        assert self.phase() == "Ready"
        assert self.world.entries("hibernated") == set()


class Promote(Operation):
    """A child that takes its parent's place."""

    def begin_last(self) -> None:
        self._child = self.subject.fork(f"{self.label}-child")
        parent, child = self.subject.record(), self._child.record()
        self._uids = parent["relatives"][0]["uid"], child["relatives"][0]["uid"]

    def run(self) -> Any:
        self._child.sandbox.promote()
        return True

    def check(self, listing: dict[str, dict[str, Any]]) -> None:
        (living,) = [
            node["uid"]
            for node in self.subject.record()["relatives"]
            if node["phase"] != "Ended" and node["id"] == self.label
        ]
        is_done = living == self._uids[1]
        assert is_done or not self.is_answered
        mine = {name for name in listing if name.startswith(self.label)}
        assert mine == ({self.label} if is_done else {self.label, f"{self.label}-child"})
        for name in sorted(mine):
            sandbox = self.world.client.connect(name)
            until(
                lambda sandbox=sandbox, name=name: (  # type: ignore[misc]
                    sandbox.exec("echo $MITOS_SANDBOX_ID").stdout.strip() == name
                ),
                f"{name} is told who it is",
            )
        self.check_subject()
