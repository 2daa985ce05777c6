"""Sets up what an installation from wheels cannot bring: the system's programs that make images."""

from __future__ import annotations

from collections.abc import Callable

from mitos.host import process
from mitos.images import tools

__all__ = ["set_up"]


async def set_up(say: Callable[[str], None]) -> None:
    """Installs the tools that are missing, where that is possible; else says the command.

    Never fails: a server runs without them, only less well.

    Args:
        say: told what is done, a line each.
    """
    lacking = tools.missing()
    if not lacking:
        return
    packages = " ".join(tool.package for tool in lacking)
    command = tools.install_command(lacking)
    if not tools.can_install():
        say(f"missing on this machine: {packages}. Run as root: {command}")
        return
    say(f"installing {packages}, once (apt-get)")
    try:
        await tools.install(lacking)
    except process.CommandError as exc:
        say(f"{packages} could not be installed: {exc}")
        say(f"run as root: {command}")
