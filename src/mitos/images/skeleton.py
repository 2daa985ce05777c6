"""What every root filesystem has, whatever it was made from: mount points and a few files."""

from __future__ import annotations

import os
from pathlib import Path

from mitos.images import tree
from mitos.images.image import ImageBuildError

__all__ = ["complete"]

# Folder and permissions. The agent is mounted at /opt/mitos; /workspace is where users work.
_FOLDERS = {
    "dev": 0o755,
    "etc": 0o755,
    "opt/mitos": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "workspace": 0o755,
}

# Written only where the image brings none.
_FILES = {
    "etc/group": "root:x:0:\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/resolv.conf": "",
}


def complete(root: Path) -> None:
    """Adds what is missing and removes device nodes; the engine gives sandboxes their own.

    Raises:
        ImageBuildError: the image has a link or a file where a folder must be, or it is empty.
    """
    if not any(root.iterdir()):
        raise ImageBuildError("the root filesystem is empty")
    tree.strip(root)
    for path, mode in _FOLDERS.items():
        is_new = not os.path.lexists(root / path)
        try:
            with tree.open_directory(root, path) as descriptor:
                if is_new:
                    os.fchmod(descriptor, mode)
        except OSError as exc:
            raise ImageBuildError(f"/{path} must be a folder in the image: {exc}") from exc
    for path, content in _FILES.items():
        if not os.path.lexists(root / path):
            tree.write(root, path, content)
