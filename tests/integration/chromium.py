"""A headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket

__all__ = ["Page", "browser"]

DEADLINE_S = 60


class Page:
    """One tab."""

    def __init__(self, url: str) -> None:
        self._socket = websocket.create_connection(url, timeout=DEADLINE_S, suppress_origin=True)
        self._numbers = itertools.count(1)

    def close(self) -> None:
        """Lets go of the tab."""
        self._socket.close()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                found: dict[str, Any] = answer["result"]
                return found

    def open(self, url: str) -> None:
        """Shows a page."""
        self.call("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """What an expression is in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def result(self, expression: str) -> Any:
        """What the promise that an expression is comes to; fails when it is rejected."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str, expected: object) -> None:
        """Waits until an expression has a value."""
        deadline = time.monotonic() + DEADLINE_S
        while (found := self.value(expression)) != expected:
            if time.monotonic() > deadline:
                text = self.value("document.documentElement.outerHTML")
                pytest.fail(f"{expression} is {found!r}, not {expected!r}, in:\n{text}")
            time.sleep(0.1)


@contextlib.contextmanager
def browser(profile: Path, *options: str) -> Iterator[Page]:
    """Starts Chromium with a profile of its own, and ends it."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    process = subprocess.Popen(
        [
            *(program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-dev-shm-usage", "--remote-debugging-port=0"),
            *(f"--user-data-dir={profile}", *options, "about:blank"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        page = Page(_tab(process, profile / "DevToolsActivePort"))
        with contextlib.closing(page):
            yield page
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(DEADLINE_S)


def _tab(process: subprocess.Popen[bytes], port_file: Path) -> str:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "chromium ended"
        if port_file.exists() and (lines := port_file.read_text().split()):
            address = f"http://127.0.0.1:{lines[0]}/json/list"
            with urllib.request.urlopen(address, timeout=DEADLINE_S) as answer:
                tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
            if tabs:
                return str(tabs[0]["webSocketDebuggerUrl"])
        time.sleep(0.1)
    pytest.fail("chromium did not start in time")
