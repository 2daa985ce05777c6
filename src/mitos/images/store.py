"""Root filesystems on disk: each image is built once and kept.

    <home>/rootfs/
        <key>/                 a root filesystem; the key is the hash of all that is in it
        <key>-<guest>.erofs    the same as an image, with a version of the guest's files in it
        <recipe>.json          which key the recipe made; written last, so it never lies
        <recipe>.lock          held while the recipe is built, also against other processes
        building-<recipe>-*/   a build in progress; the next builder removes a dead one

A recipe is the hash of what goes in (packages, the archive's bytes, the folder's state); the key is
the hash of what came out. Two builds of the same packages on two days differ in content, so they
differ in key, and a snapshot taken over one is never used over the other.

On a crash nothing but a `building-` or `sealing-` folder is left. On a full disk the build fails
and its folder is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mitos.host import private, process
from mitos.host.rootfs import RootFilesystem, RootKind
from mitos.images import erofs, skeleton, tree
from mitos.images.archive import Limits
from mitos.images.image import Image, ImageBuildError
from mitos.images.maker import maker_of

__all__ = ["BuiltImage", "ImageBuildError", "ImageStore"]

_LOCK_POLL_S = 0.1
# Longer than any build may take, so a waiting caller outlasts the one that builds.
_LOCK_TIMEOUT_S = 4000.0
_LINK_TIMEOUT_S = 600.0
_GUEST = "opt/mitos"


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image that is ready to boot from.

    Attributes:
        rootfs: the root filesystem.
        key: the hash of its content.
    """

    rootfs: RootFilesystem
    key: str

    @property
    def path(self) -> Path:
        """Where the root filesystem lies."""
        return self.rootfs.path


class ImageStore:
    """Makes images into root filesystems.

    Args:
        home: the Mitos home; the store keeps to `rootfs/` in it.
        limits: how large an archive may be.
    """

    def __init__(self, home: Path, *, limits: Limits | None = None) -> None:
        self._directory = home / "rootfs"
        self._limits = limits or Limits()

    async def find(self, image: Image) -> BuiltImage | None:
        """The image's root filesystem if it has been built, without building it.

        Raises:
            ImageBuildError: what the image is made of cannot be read.
        """
        return self._recorded(await self._recipe(image))

    async def ensure(self, image: Image, progress: Callable[[str], None]) -> BuiltImage:
        """The image's root filesystem, built now unless it exists.

        Callers at the same time, in any number of processes, wait for one build.

        Args:
            image: of any kind.
            progress: told each step, as a short line. Called in the event loop's thread.

        Raises:
            ImageBuildError: it cannot be built; nothing of the attempt is left.
        """
        return await self._make(image, progress, fresh=False)

    async def rebuild(self, image: Image, progress: Callable[[str], None]) -> BuiltImage:
        """Builds the image anew, say for Debian's updates; the old one stays for who uses it."""
        return await self._make(image, progress, fresh=True)

    def sealed(self, built: BuiltImage, guest: Path) -> RootFilesystem:
        """The image of a root filesystem and the guest's files, which need not exist yet.

        Args:
            built: the root filesystem.
            guest: the folder of the guest's files, as from `guest.materialize`.
        """
        name = f"{built.key}-{guest.name}.erofs"
        return RootFilesystem(RootKind.EROFS_IMAGE, self._directory / name)

    async def seal(
        self, built: BuiltImage, guest: Path, progress: Callable[[str], None]
    ) -> RootFilesystem:
        """Writes that image, unless it exists. A machine that boots it needs nothing mounted.

        Raises:
            ImageBuildError: it cannot be written; nothing of the attempt is left.
        """
        wanted = self.sealed(built, guest)
        with _translated(built.key):
            async with self._locked(wanted.path.stem, built.key, progress):
                if not wanted.exists():
                    progress("writing the image")
                    await self._seal(built, guest, wanted.path)
        return wanted

    async def _seal(self, built: BuiltImage, guest: Path, target: Path) -> None:
        for dead in self._directory.glob(f"sealing-{target.stem}-*"):
            await asyncio.to_thread(shutil.rmtree, dead, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f"sealing-{target.stem}-", dir=self._directory))
        try:
            root, draft = work / "root", work / "image"
            # The files are linked, not copied: this takes a tenth of a second.
            await process.run(["cp", "-al", "--", built.path, root], timeout_s=_LINK_TIMEOUT_S)
            await asyncio.to_thread(_bring, guest, root / _GUEST)
            key = hashlib.sha256(target.stem.encode()).hexdigest()[:32]
            await erofs.write(root, draft, key=key)
            draft.chmod(0o444)
            await asyncio.to_thread(os.sync)
            draft.rename(target)
        except process.CommandError as exc:
            raise ImageBuildError(f"image {built.key} could not be written: {exc}") from exc
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, work, ignore_errors=True))

    async def _make(
        self, image: Image, progress: Callable[[str], None], *, fresh: bool
    ) -> BuiltImage:
        recipe = await self._recipe(image)
        found = None if fresh else self._recorded(recipe)
        if found is not None:
            return found
        with _translated(image.name):
            private.make_folder(self._directory)
            async with self._locked(recipe, image.name, progress):
                found = None if fresh else self._recorded(recipe)
                return found or await self._build(image, recipe, progress)

    async def _recipe(self, image: Image) -> str:
        """The hash of what the image is made of."""
        with _translated(image.name):
            text = await asyncio.to_thread(maker_of(image, self._limits).fingerprint)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _recorded(self, recipe: str) -> BuiltImage | None:
        try:
            key = json.loads((self._directory / f"{recipe}.json").read_bytes())["key"]
            rootfs = RootFilesystem(RootKind.FOLDER, self._directory / key)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None  # absent, or damaged: building again repairs it
        return BuiltImage(rootfs, key) if rootfs.exists() else None

    @contextlib.asynccontextmanager
    async def _locked(
        self, recipe: str, name: str, progress: Callable[[str], None]
    ) -> AsyncIterator[None]:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._directory / f"{recipe}.lock", flags, 0o644)
        try:
            if not _try_lock(descriptor):
                progress(f"{name}: waiting for the build that is under way")
                await _wait_lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    async def _build(
        self, image: Image, recipe: str, progress: Callable[[str], None]
    ) -> BuiltImage:
        for dead in self._directory.glob(f"building-{recipe}-*"):
            await asyncio.to_thread(shutil.rmtree, dead, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f"building-{recipe}-", dir=self._directory))
        try:
            root = work / "root"
            root.mkdir(mode=0o755)
            maker = maker_of(image, self._limits)
            await maker.fill(root, lambda step: progress(f"{image.name}: {step}"))
            await asyncio.to_thread(skeleton.complete, root)
            if await self._recipe(image) != recipe:
                raise ImageBuildError(f"image {image.name!r} changed while it was read")
            progress(f"{image.name}: checking the content")
            key = (await asyncio.to_thread(tree.digest, root))[:32]
            return await asyncio.to_thread(self._keep, image, recipe, root, key)
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, work, ignore_errors=True))

    def _keep(self, image: Image, recipe: str, root: Path, key: str) -> BuiltImage:
        kept = self._directory / key
        if not kept.is_dir():
            os.sync()  # else a power failure could keep the record and lose files
            root.rename(kept)
        record = {"name": image.name, "key": key, "size_bytes": tree.size_bytes(kept)}
        draft = root.parent / "record.json"
        draft.write_text(json.dumps(record) + "\n")
        draft.replace(self._directory / f"{recipe}.json")
        return BuiltImage(RootFilesystem(RootKind.FOLDER, kept), key)


@contextlib.contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ImageBuildError(f"image {name!r} could not be built: {exc}") from exc


def _bring(guest: Path, place: Path) -> None:
    """Puts the guest's files in place of what is there; the folder above keeps its time."""
    above = place.parent.stat()
    # Fresh, so that nothing of the image's own, say a link, is written through.
    shutil.rmtree(place)
    shutil.copytree(guest, place)
    os.utime(place.parent, ns=(above.st_atime_ns, above.st_mtime_ns))


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _wait_lock(descriptor: int) -> None:
    try:
        async with asyncio.timeout(_LOCK_TIMEOUT_S):
            while True:
                if _try_lock(descriptor):
                    return
                await asyncio.sleep(_LOCK_POLL_S)
    except TimeoutError:
        raise ImageBuildError("another build of the same image does not end") from None
