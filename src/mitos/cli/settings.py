"""Where the command line finds its state; the only place in `cli` that reads the environment."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["home", "is_service", "preview_secret", "server_url"]


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


def is_service() -> bool:
    """True below a service manager, as systemd.exec(5) says it to what it starts."""
    return "NOTIFY_SOCKET" in os.environ or "INVOCATION_ID" in os.environ
