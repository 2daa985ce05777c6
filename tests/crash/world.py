"""A home whose server is killed and started again, on one port."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

import mitos
from tests.crash.point import IDLE, Point
from tests.integration.conftest import stop, wait_for_port

__all__ = ["World", "until"]

SETTLE_S = 20.0
"""How long what must come to be may take; a bound against hanging."""

CALL_S = 60.0

_SERVE = ("mitos.cli.main", "serve")


class World:
    """A home and its server, which comes and goes.

    Args:
        home: the server's; it may have files already.
        folder: for logs.
        options: further ones of every start.
        starter: a program in front of each server, such as one that sets limits.

    Attributes:
        starter: of the next server.
        url: the same for all servers.
        log: what all of them said.
        started_s: what the last start took.
    """

    def __init__(
        self, home: Path, folder: Path, *options: str, starter: tuple[str, ...] = ()
    ) -> None:
        self.home = home
        self._folder = folder
        self._options = ("--engine", "gvisor", *options)
        self.starter = starter
        self._address = f"127.0.0.1:{_free_port()}"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://{self._address}"
        self.log = folder / "server.log"
        self.started_s = 0.0
        self.client = mitos.SandboxServer(self.url)
        # A connection each: those of a server that is gone are of no use.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._http = httpx.Client(base_url=self.url, timeout=CALL_S, limits=limits)

    @property
    def is_running(self) -> bool:
        """True while there is a server."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Of the server that runs."""
        assert self._process is not None
        return self._process.pid

    def start(self, point: Point = IDLE, *options: str) -> None:
        """Starts a server, one that dies at the point once it is armed."""
        assert self._process is None
        began = time.monotonic()
        self._armed.unlink(missing_ok=True)
        program = _SERVE
        if point != IDLE:
            program = ("tests.crash.server", point.name, str(self._armed), "--", "serve")
        argv = [*self.starter, sys.executable, "-m", *program, "--addr", self._address]
        port_file = self._folder / "port"
        port_file.unlink(missing_ok=True)
        argv += ["--home", str(self.home), "--port-file", str(port_file)]
        with self.log.open("ab") as sink:
            self._process = subprocess.Popen([*argv, *self._options, *options], stderr=sink)
        wait_for_port(self._process, port_file, self.log)
        self.started_s = time.monotonic() - began

    def arm(self) -> None:
        """The server's point counts from now on."""
        self._armed.touch()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends the server, if one runs."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
            self._process.wait(SETTLE_S)
            self._process = None

    def has_died(self, within_s: float) -> bool:
        """True when the server has killed itself by then."""
        assert self._process is not None
        try:
            code = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return False
        assert code == -signal.SIGKILL, self.said()
        self._process = None
        return True

    def stop(self) -> None:
        """Ends the server as a person would, for good."""
        if self._process is not None:
            process, self._process = self._process, None
            stop(process)
        self._http.close()
        mitos.close_http_pools()

    def end_all(self) -> None:
        """Ends every sandbox."""
        for sandbox_id in self.listing():
            self.delete(f"/v1/sandboxes/{sandbox_id}")

    def listing(self) -> dict[str, dict[str, Any]]:
        """The sandboxes, by id, as a client sees them."""
        return {row["id"]: row for row in self.get("/v1/sandboxes")}

    def get(self, path: str) -> Any:
        """What a route answers."""
        return self._http.get(path).raise_for_status().json()

    def post(self, path: str, body: Mapping[str, Any], key: str = "") -> Any:
        """What a route answers; the key makes a repetition of it one request."""
        headers = {"Idempotency-Key": key} if key else {}
        return self._http.post(path, json=body, headers=headers).raise_for_status().json()

    def delete(self, path: str) -> None:
        """Removes what a route names."""
        self._http.delete(path).raise_for_status()

    def entries(self, name: str) -> set[str]:
        """What lies in a folder of the home."""
        folder = self.home / name
        return {entry.name for entry in folder.iterdir()} if folder.exists() else set()

    def said(self) -> str:
        """The end of the log, but for the requests that went well."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join([line for line in lines if " status=200 " not in line][-60:])

    @property
    def _armed(self) -> Path:
        return self._folder / "armed"


def until(holds: Callable[[], object], what: str, within_s: float = SETTLE_S) -> None:
    """Waits for something."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
