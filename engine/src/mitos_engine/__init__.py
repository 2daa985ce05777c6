"""Where the engine's program is: in a wheel beside this file, in a checkout not at all."""

from __future__ import annotations

from pathlib import Path

__all__ = ["program"]


def program() -> Path:
    """The path of the program. Nothing is there in a checkout: `scripts/build-engine` builds it."""
    return Path(__file__).parent / "mitos-engine"
