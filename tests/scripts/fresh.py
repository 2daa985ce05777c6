"""Fresh Debian machines: a root filesystem made by mmdebstrap, entered in namespaces of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FreshMachine"]

_MAKE_TIMEOUT_S = 900

# The root is pivoted into, not chrooted: a process in a chroot may not make user namespaces, which
# the engine does.
_ENTER = """
set -eu
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mkdir -p outside
pivot_root . outside
umount -l /outside
cd /root
exec /bin/sh -euc "$2"
"""


@dataclass(frozen=True)
class FreshMachine:
    """A machine that has nothing but Debian, Python and apt; it shares the host's network."""

    root: Path

    @classmethod
    def make(cls, root: Path, suite: str = "bookworm") -> FreshMachine:
        """Installs a small Debian into a folder, with this machine's own apt settings."""
        packages = "python3,python3-venv,mount,ca-certificates,debian-archive-keyring"
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=apt", f"--include={packages}", suite, root],
            timeout=_MAKE_TIMEOUT_S,
            check=True,
        )
        for name in ("sources.list.d", "apt.conf.d"):
            shutil.copytree(f"/etc/apt/{name}", root / "etc/apt" / name, dirs_exist_ok=True)
        (root / "etc/apt/sources.list").unlink(missing_ok=True)
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        return cls(root)

    def run(self, script: str, *, timeout: float) -> subprocess.CompletedProcess[str]:
        """Runs a shell script on it; what the script leaves running ends with it."""
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        return subprocess.run(
            [*unshare, "/bin/sh", "-c", _ENTER, "enter", self.root, script],
            env={"PATH": os.environ["PATH"], "HOME": "/root", "LANG": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
