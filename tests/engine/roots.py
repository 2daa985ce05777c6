"""Root filesystems of nothing but the agent, of every kind."""

from __future__ import annotations

from pathlib import Path

from mitos.host.rootfs import RootFilesystem, RootKind
from mitos.images.store import BuiltImage, ImageStore

__all__ = ["bare_root"]


async def bare_root(kind: RootKind, folder: Path, guest: Path) -> RootFilesystem:
    """Makes one below a folder.

    Args:
        kind: folder or image.
        folder: it may use `<folder>/rootfs`.
        guest: the folder of the guest's files.
    """
    root = folder / "rootfs" / "bare"
    (root / "opt" / "mitos").mkdir(parents=True)
    built = BuiltImage(RootFilesystem(RootKind.FOLDER, root), "bare")
    if kind is RootKind.FOLDER:
        return built.rootfs
    return await ImageStore(folder).seal(built, guest, lambda _: None)
