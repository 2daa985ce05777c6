"""The decoders in Python, each as a function of bytes that may only refuse them in its own way.

Run as a program this is one of them under atheris, with libFuzzer's arguments:

    python -m tests.fuzz.target NAME CORPUS -runs=1000000 -seed=1

The corpus, a folder, gets the inputs that reached something new. Hostile are: the bytes of a guest,
of a client, and for the SDK those of a server.
"""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import atheris

with (
    contextlib.redirect_stderr(io.StringIO()),  # a line for each module
    atheris.instrument_imports(
        include=["mitos.wire", "mitos._sdk.framing", "mitos.agent", "mitos.server"],
        exclude=["mitos.wire._generated"],
    ),
):
    from tests.fuzz.decoders import client, guest, server

__all__ = ["TARGETS"]

TARGETS = guest.TARGETS | client.TARGETS | server.TARGETS


def main() -> None:
    """One target, from its seeds and what the folder has already."""
    target, corpus = TARGETS[sys.argv[1]], Path(sys.argv[2])
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
