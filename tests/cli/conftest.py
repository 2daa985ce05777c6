"""A real server for the commands that need one, and the command line as a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from mitos.server.settings import ServerSettings
from tests.machine import why_no_real_sandboxes
from tests.server.serving import Server, serving

KEY = "mitos_live_0123456789abcdef"
DEADLINE_S = 60


@dataclass(frozen=True)
class CommandLine:
    """`mitos`, told of one server."""

    server: Server

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "mitos.cli.main", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        found = {name: text for name, text in os.environ.items() if "PROXY" not in name.upper()}
        return {**found, "MITOS_BASE_URL": self.server.url, "MITOS_API_KEY": KEY}

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        return subprocess.run(
            self.argv(*arguments),
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def create(self) -> str:
        """A new sandbox's id."""
        made = self.run("sandbox", "create")
        assert made.returncode == 0, made.stderr
        return made.stdout.strip()

    def sandboxes(self) -> list[dict[str, Any]]:
        """What `ls` says."""
        listed = self.run("sandbox", "ls", "--json")
        return list(json.loads(listed.stdout)["sandboxes"])


@pytest.fixture(scope="session")
def cli_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if why := why_no_real_sandboxes():
        pytest.skip(why)
    with serving(tmp_path_factory.mktemp("cli"), settings=ServerSettings(api_key=KEY)) as running:
        yield running


@pytest.fixture
def mitos(cli_server: Server) -> Iterator[CommandLine]:
    """The command line; a test that leaves sandboxes fails."""
    yield CommandLine(cli_server)
    headers = {"Authorization": f"Bearer {KEY}"}
    rows = httpx.get(f"{cli_server.url}/v1/sandboxes", headers=headers).json()
    cli_server.end_sandboxes()
    assert [row["id"] for row in rows] == []
