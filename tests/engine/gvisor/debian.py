"""Debian's `runsc`, the oldest that the engine drives, for the tests of `scripts/test --matrix`.

    python -m tests.engine.gvisor.debian     prints its path; fetches it the first time

It comes from backports by apt with state folders of its own, so the machine's sources stay as they
are, and is kept in `<home>/cache`.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from pathlib import Path

from mitos.host import apt
from tests.machine import mitos_home

__all__ = ["debian_runsc"]

_SUITE = "bookworm-backports"
_TIMEOUT_S = 600


def debian_runsc() -> Path:
    """The program's path.

    Raises:
        subprocess.SubprocessError: apt cannot fetch it.
    """
    kept = mitos_home() / "cache" / "debian-runsc" / "runsc"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as work:
            _fetch(Path(work)).replace(kept)
    return kept


def _fetch(work: Path) -> Path:
    for part in ("state/lists/partial", "cache/archives/partial"):
        (work / part).mkdir(parents=True)
    mirror = asyncio.run(apt.mirrors()).main
    (work / "sources.list").write_text(f"deb [signed-by={apt.KEYRING}] {mirror} {_SUITE} main\n")
    settings = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State": work / "state",
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": work / "cache",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
    }
    get = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in settings.items())]
    for command in (["update"], ["download", f"runsc/{_SUITE}"]):
        argv = [*get, *command]
        subprocess.run(argv, cwd=work, capture_output=True, timeout=_TIMEOUT_S, check=True)
    (package,) = work.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, work / "tree"], timeout=_TIMEOUT_S, check=True)
    return work / "tree" / "usr" / "bin" / "runsc"


if __name__ == "__main__":
    print(debian_runsc())
