"""Local folders as tar archives, to upload or download many files at once. Local disk only.

What comes from a server is hostile: it is unpacked with the standard library's `data` filter, which
writes nothing outside the target folder.
"""

from __future__ import annotations

import contextlib
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from mitos._sdk.folding import ExecFold
from mitos._sdk.framing import decode_bytes, encode_bytes
from mitos.errors import AgentRunError

__all__ = [
    "LARGE_BYTES",
    "MAX_TREE_BYTES",
    "PartSink",
    "Progress",
    "TarSink",
    "file_pieces",
    "local_files",
    "opened",
    "replaced",
    "spooled",
    "tars",
    "unpack",
    "upload_messages",
    "write_messages",
]

TAR_IS_WHOLE = (0, 1)
"""Exit codes of `tar`: 1 says that a file changed while it was read."""

PIECE_BYTES = 256 << 10
LARGE_BYTES = 16 << 20
"""Files over this size are sent alone; all others in archives."""

TAR_BYTES = 32 << 20
"""About the size of one tar; servers take 64 MiB."""

MAX_TREE_BYTES = 4 << 30
"""Of a tree that is downloaded: a sandbox that sends for ever must not fill the disk here."""

MEMORY_BYTES = 4 << 20
"""Of a tar that is kept in memory; the rest is in a temporary file."""

Progress = Callable[[int], None]


def local_files(source: Path) -> list[Path]:
    """Every regular file and folder below `source`, sorted; no links or special files."""
    found = []
    for folder, folders, names in os.walk(source):
        for name in (*folders, *names):
            path = Path(folder, name)
            if not path.is_symlink() and (path.is_dir() or path.is_file()):
                found.append(path)
    return sorted(found)


@contextlib.contextmanager
def spooled() -> Iterator[IO[bytes]]:
    """A temporary file, in memory while it is small."""
    with tempfile.SpooledTemporaryFile(MEMORY_BYTES) as spool:
        yield spool


def tars(source: Path, paths: list[Path]) -> Iterator[tuple[list[Path], Iterator[bytes]]]:
    """The files as tars of a bounded size, one at least: what is in each, and its pieces."""
    left = list(reversed(paths))
    while True:
        names: list[Path] = []
        with spooled() as spool:
            with tarfile.open(fileobj=spool, mode="w", format=tarfile.PAX_FORMAT) as archive:
                while left and spool.tell() < TAR_BYTES:
                    path = left.pop()
                    names.append(path)
                    archive.add(path, str(path.relative_to(source)), recursive=False)
            spool.seek(0)
            yield names, file_pieces(spool, None)
        if not left:
            return


def opened(source: Path) -> IO[bytes]:
    """A local file for reading; the caller closes it."""
    return source.open("rb")


def file_pieces(content: IO[bytes], on_progress: Progress | None) -> Iterator[bytes]:
    """A file's content in pieces; tells after each how many bytes have gone."""
    sent = 0
    while piece := content.read(PIECE_BYTES):
        yield piece
        sent += len(piece)
        if on_progress:
            on_progress(sent)


def write_messages(path: str, mode: int, pieces: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """The messages that write a file piece by piece."""
    yield {"open": {"path": path, "mode": mode}}
    for piece in pieces:
        yield {"data": encode_bytes(piece)}


def upload_messages(dest: str, pieces: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """The messages that upload a tar piece by piece."""
    yield {"open": {"dest": dest}}
    for piece in pieces:
        yield {"chunk": encode_bytes(piece)}


class PartSink:
    """Takes the messages of a file that comes in and writes them on.

    Args:
        target: what is written to.
        on_progress: called with the bytes received so far.
        limit_bytes: more are refused; None takes any number.
    """

    def __init__(
        self,
        target: IO[bytes],
        on_progress: Progress | None = None,
        limit_bytes: int | None = None,
    ) -> None:
        self._target = target
        self._on_progress = on_progress
        self._limit_bytes = limit_bytes
        self.received_bytes = 0

    def take(self, message: dict[str, Any], member: str = "data") -> None:
        """Takes the next message, whose bytes are in `member`.

        Raises:
            AgentRunError: `internal_error` for one that is not readable, `request_too_large` over
                the limit.
        """
        try:
            piece = decode_bytes(message.get(member, ""))
        except (ValueError, AttributeError) as exc:
            raise AgentRunError(
                "the server sent a piece that is not readable", "internal_error", status=500
            ) from exc
        self.received_bytes += len(piece)
        if self._limit_bytes is not None and self.received_bytes > self._limit_bytes:
            raise AgentRunError(
                f"more than {self._limit_bytes} bytes came",
                "request_too_large",
                remediation="Ask for a smaller part, or raise max_bytes.",
            )
        self._target.write(piece)
        if self._on_progress and piece:
            self._on_progress(self.received_bytes)


class TarSink:
    """Takes the output of a `tar` that runs in the sandbox.

    Args:
        fold: of the command; gets all but the archive.
        archive: takes the archive.
    """

    def __init__(self, fold: ExecFold, archive: PartSink) -> None:
        self._fold = fold
        self._archive = archive

    def take(self, message: dict[str, Any]) -> None:
        """Takes the next message; errors as those of `PartSink` and `ExecFold`."""
        if "stdout" in message:
            self._archive.take(message, "stdout")
        else:
            self._fold.take(message)

    def check(self, refusal: AgentRunError) -> None:
        """Makes sure that the archive is whole.

        Raises:
            AgentRunError: `tar` failed; `refusal` is why it was tried.
        """
        ended = self._fold.result()
        if ended.exit_code not in TAR_IS_WHOLE:
            raise AgentRunError(
                "the tree cannot be archived in the sandbox",
                "file_failed",
                cause=ended.stderr.strip() or f"tar ended with exit code {ended.exit_code}",
                remediation="Look at the cause; a tree of up to 64 MiB needs no tar there.",
            ) from refusal


@contextlib.contextmanager
def replaced(target: Path) -> Iterator[IO[bytes]]:
    """A file that takes the target's place when the block ends well, and is gone otherwise."""
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as partial:
        try:
            yield partial
            partial.flush()
            Path(partial.name).chmod(target.stat().st_mode & 0o777 if target.exists() else 0o644)
            Path(partial.name).replace(target)
        except BaseException:
            Path(partial.name).unlink(missing_ok=True)
            raise


def unpack(archive: IO[bytes], target: Path) -> None:
    """Unpacks an archive of a server below `target`, which is made if it is not there.

    Raises:
        AgentRunError: `internal_error` when it is not an archive, or a member of it would be
            outside the folder; members before that one have been written.
        OSError: the local disk is full, or a file is in the way.
    """
    target.mkdir(parents=True, exist_ok=True)
    archive.seek(0)
    try:
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            tar.extractall(target, filter="data")
    except (tarfile.TarError, ValueError, OverflowError) as exc:  # names and numbers of no file
        raise AgentRunError(
            "the tree that the server sent cannot be unpacked safely",
            "internal_error",
            cause=str(exc),
            remediation="Download single files with files.download.",
            status=500,
        ) from exc
