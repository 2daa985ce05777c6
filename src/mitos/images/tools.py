"""The programs of the system that images are made with, and getting them on Debian and Ubuntu."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from mitos.host import apt, process
from mitos.images import erofs

__all__ = ["TOOLS", "Tool", "can_install", "install", "install_command", "missing"]

_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True)
class Tool:
    """A program or file of the system.

    Attributes:
        name: a program on PATH, or the path of a file.
        package: what brings it on Debian and Ubuntu.
        without: what is worse when it is missing.
    """

    name: str
    package: str
    without: str

    def find(self) -> str | None:
        """Where it is; None when it is missing."""
        if self.name.startswith("/"):
            return self.name if Path(self.name).exists() else None
        return shutil.which(self.name)


TOOLS = (
    Tool("mmdebstrap", "mmdebstrap", "templates cannot be built from Debian packages"),
    Tool(
        str(apt.KEYRING),
        "debian-archive-keyring",
        "templates cannot be built from Debian packages",
    ),
    Tool(erofs.TOOL, erofs.PACKAGE, "sandboxes use a folder as root, which is slower"),
)


def missing() -> list[Tool]:
    """The tools that this machine lacks."""
    return [tool for tool in TOOLS if tool.find() is None]


def can_install() -> bool:
    """True where `install` may work: as root on a system with apt."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install_command(tools: list[Tool]) -> str:
    """The command that brings them, for a person."""
    return f"apt-get install -y {' '.join(tool.package for tool in tools)}"


async def install(tools: list[Tool]) -> None:
    """Installs their packages.

    Raises:
        CommandError: apt failed.
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    packages = [tool.package for tool in tools]
    options = ["-y", "-q", "--no-install-recommends"]
    for argv in (["apt-get", "update", "-q"], ["apt-get", "install", *options, *packages]):
        await process.run(argv, timeout_s=_TIMEOUT_S, environment=environment)
