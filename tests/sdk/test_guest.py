"""Self-service from inside: the client against a socket that follows the published protocol."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mitos import guest, subagent
from mitos.errors import AgentRunError

INFO = {
    "identity": {"sandboxId": "sb-1", "claim": "c", "pool": "p", "workspace": "w"},
    "budget": {"maxForks": 8, "maxCheckpoints": 2, "forksUsed": 1},
}


class Served:
    """A socket that answers each connection with one line, and remembers what it was asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer: bytes = b""
        self.asked: list[Any] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.path))
            listener.listen()
            listener.settimeout(0.05)
            ended = threading.Event()
            thread = threading.Thread(target=self._serve, args=(listener, ended))
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join(10)

    def _serve(self, listener: socket.socket, ended: threading.Event) -> None:
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection, connection.makefile("rb") as lines:
                connection.settimeout(5)
                self.asked.append(json.loads(lines.readline()))
                connection.sendall(self.answer)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    found = Served(tmp_path / "mitos.sock")
    monkeypatch.setenv("MITOS_SOCKET", str(found.path))
    with found.running():
        yield found


def test_info(served: Served) -> None:
    served.answer = json.dumps({"ok": True, "info": INFO}).encode() + b"\n"

    found = guest.info()

    assert found.identity == guest.identity() == guest.Identity("sb-1", "c", "p", "w")
    assert found.budget == guest.Budget(8, 2, 1)
    assert served.asked == [{"type": "info"}] * 2


def test_fork(served: Served) -> None:
    served.answer = b'{"ok": true, "fork": {"children": ["a", "b"]}}\n'

    assert guest.fork(2, "try") == ["a", "b"]
    assert served.asked == [{"type": "fork", "fork": {"n": 2, "label": "try"}}]


def test_a_subagent_is_a_fork(served: Served) -> None:
    served.answer = b'{"ok": true, "fork": {"children": ["a", "b"]}}\n'

    result = subagent.spawn_subagent(2, label="try")

    assert result
    assert result.first == subagent.SubagentHandle("a", "try")
    assert [child.sandbox_id for child in result.children] == ["a", "b"]


def test_a_subagent_calls_the_module_s_fork(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code that replaces `guest.fork` is asked, and the socket is not."""
    asked: list[tuple[int, str]] = []

    def fork(n: int = 1, label: str = "") -> list[str]:
        asked.append((n, label))
        return ["a"]

    monkeypatch.setattr(guest, "fork", fork)

    assert subagent.SubagentResult(True, (subagent.SubagentHandle("a", "x"),)) == (
        subagent.spawn_subagent(3, label="x")
    )
    assert ([(3, "x")], []) == (asked, served.asked)
    with pytest.raises(dataclasses.FrozenInstanceError):
        subagent.SubagentHandle("a").label = "b"  # type: ignore[misc]


def test_a_refusal_is_raised_with_its_text(served: Served) -> None:
    served.answer = b'{"ok": false, "error": "budgets are off"}\n'

    with pytest.raises(guest.GuestError, match="budgets are off"):
        guest.fork()
    with pytest.raises(guest.GuestError, match="budgets are off"):
        subagent.spawn_subagent()


@pytest.mark.parametrize("answer", [b"", b"nonsense\n", b"[]\n", b"\n", b'{"ok": 1}\n'])
def test_what_is_no_answer_is_an_error(served: Served, answer: bytes) -> None:
    served.answer = answer

    with pytest.raises(guest.GuestError) as caught:
        guest.info()
    assert not isinstance(caught.value, (guest.GuestUnavailableError, AgentRunError))


@pytest.mark.parametrize("value", [None, ""])
def test_outside_of_a_sandbox(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("MITOS_SOCKET", raising=False)
    if value is not None:
        monkeypatch.setenv("MITOS_SOCKET", value)

    with pytest.raises(guest.GuestUnavailableError, match="MITOS_SOCKET"):
        guest.info()
    assert guest.socket_path() is None
    assert not subagent.is_on_mitos()
    assert subagent.current_sandbox() is None
    result = subagent.spawn_subagent(3)
    assert not result
    assert (result.children, result.first) == ((), None)
    assert "MITOS_SOCKET" in result.reason


def test_a_socket_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = str(tmp_path / "no.sock")
    monkeypatch.setenv("MITOS_SOCKET", path)

    with pytest.raises(guest.GuestUnavailableError, match=r"no\.sock"):
        guest.identity()
    assert subagent.is_on_mitos()
