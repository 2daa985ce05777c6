"""What the runtime writes down about a sandbox: the one file of its own that we read."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["files", "read"]

_LIMIT_BYTES = 1 << 20


def files(sandbox_id: str) -> tuple[str, str]:
    """The names of its files in the runtime's folder: the record, and its lock."""
    stem = f"{sandbox_id}_sandbox:{sandbox_id}"
    return f"{stem}.state", f"{stem}.lock"


def read(root: Path, sandbox_id: str) -> tuple[int, int, Path]:
    """Reads the ids of the kernel and the gofer (0: there is none), and the socket's path.

    Raises:
        OSError: there is no state.
        ValueError: it is not what we know.
    """
    with (root / files(sandbox_id)[0]).open("rb") as file:
        state = json.loads(file.read(_LIMIT_BYTES))
    try:
        inner = state["sandbox"]
        return int(inner["pid"]), int(state["goferPid"]), Path(inner["controlSocketPath"])
    except (KeyError, TypeError) as exc:
        raise ValueError(f"the runtime's state of {sandbox_id} lacks {exc}") from exc
