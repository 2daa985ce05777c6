"""Where the command line finds its state; the only place in `cli` that reads the environment."""

from __future__ import annotations

import os
from pathlib import Path

from mitos.host import service_manager as host_service_manager
from mitos.host.service_manager import ServiceManager

__all__ = ["home", "is_journal", "preview_secret", "server_url", "service_manager"]


def home() -> Path:
    """The Mitos home: binaries, root filesystems, snapshots and the state database.

    `MITOS_HOME` if it is set, `/var/lib/mitos` for root, and the user's data folder otherwise.
    """
    named = os.environ.get("MITOS_HOME")
    if named:
        return Path(named).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/mitos")
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "mitos"


def preview_secret() -> str | None:
    """The key of preview URLs, for servers that must sign alike; None where each has its own."""
    return os.environ.get("MITOS_PREVIEW_SECRET")


def server_url() -> str | None:
    """The server of commands that are told none: this machine's, unless the environment says."""
    return None if os.environ.get("MITOS_BASE_URL") else "http://127.0.0.1:8080"


def service_manager() -> ServiceManager:
    """What started this process as a service, if anything did; to be asked once.

    Raises:
        OSError: it names a descriptor that is no socket.
        ValueError: it says no number where one belongs.
    """
    return ServiceManager.take(os.environ, pid=os.getpid())


def is_journal(descriptor: int) -> bool:
    """True when the journal reads what is written there."""
    return host_service_manager.is_journal(descriptor, os.environ)
