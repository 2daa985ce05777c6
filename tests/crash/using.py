"""Operations that use a running sandbox: exec, upload, pause, resume; and none."""

from __future__ import annotations

from typing import Any, ClassVar

from tests.crash.subject import Operation
from tests.crash.world import until

__all__ = ["Exec", "Idle", "Pause", "Resume", "Upload"]

OUTPUT = "head -c 40M /dev/zero | tr '\\0' 'x'; sleep 0.2; echo done"
UPLOAD_BYTES = 24 << 20

FILE = "/workspace/uploaded"


class Exec(Operation):
    """A command with much output that ends with its caller's connection."""

    def run(self) -> Any:
        return self.subject.sandbox.exec(OUTPUT, timeout=60).exit_code == 0

    def check(self, listing: dict[str, dict[str, Any]]) -> None:
        assert listing[self.label]["phase"] == "Ready"
        until(lambda: "tr" not in self._programs(), "what nobody waits for any more ends")
        self.check_subject()

    def _programs(self) -> list[str]:
        return self.subject.sandbox.exec("ps axo comm").stdout.split()


class Upload(Operation):
    """A file that replaces another one."""

    def begin(self) -> None:
        self._old = "old"
        self._new = bytes([self.chance.randrange(256)]) * UPLOAD_BYTES
        self.subject.sandbox.files.write(FILE, self._old)

    def run(self) -> Any:
        self.subject.sandbox.files.write(FILE, self._new)
        return True

    def check(self, listing: dict[str, dict[str, Any]]) -> None:
        assert listing[self.label]["phase"] == "Ready"
        found = self.subject.sandbox.files.read_bytes(FILE)
        assert found == self._new or (found == self._old.encode() and not self.is_answered)
        until(lambda: self._beside() == ["count", "uploaded"], "no half file is left")
        self.check_subject()

    def _beside(self) -> list[str]:
        return self.subject.sandbox.exec("ls -A /workspace").stdout.split()


class Pause(Operation):
    """A sandbox that is told to stand still."""

    is_killed_again: ClassVar[bool] = True

    def run(self) -> Any:
        self.subject.sandbox.pause()
        return True

    def check(self, listing: dict[str, dict[str, Any]]) -> None:
        phase = listing[self.label]["phase"]
        assert phase in (("Paused",) if self.is_answered else ("Paused", "Ready"))
        if phase == "Paused":
            self.subject.sandbox.resume()
        self.check_subject()


class Resume(Operation):
    """A paused sandbox that is told to go on."""

    is_killed_again: ClassVar[bool] = True

    def begin_last(self) -> None:
        self.subject.sandbox.pause()

    def run(self) -> Any:
        self.subject.sandbox.resume()
        return True

    def check(self, listing: dict[str, dict[str, Any]]) -> None:
        phase = listing[self.label]["phase"]
        assert phase in (("Ready",) if self.is_answered else ("Paused", "Ready"))
        if phase == "Paused":
            self.subject.sandbox.resume()
        self.check_subject()


class Idle(Operation):
    """Nothing: only what was there before."""

    has_subject = False

    def run(self) -> Any:
        return True

    def check(self, listing: dict[str, dict[str, Any]]) -> None:
        assert not [name for name in listing if name.startswith(self.label)]
