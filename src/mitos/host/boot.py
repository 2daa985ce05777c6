"""Which time this is that the host has been booted."""

from __future__ import annotations

from pathlib import Path

__all__ = ["boot_id"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Names the time since the host was booted: random(4) gives each another one.

    Raises:
        OSError: the host does not say.
    """
    return _BOOT_ID.read_text().strip()
