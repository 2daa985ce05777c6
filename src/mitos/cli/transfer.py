"""`mitos upload` and `mitos download`: files and folders, with a progress bar."""

from __future__ import annotations

import contextlib
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from mitos.cli.connection import Connection, sandbox_path, with_connection

if TYPE_CHECKING:
    from mitos import DirectSandbox

__all__ = ["download", "upload"]


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.argument("target", metavar="ID:PATH")
@with_connection
def upload(connection: Connection, source: Path, target: str) -> None:
    """Copy a local file or folder into a sandbox.

    A PATH that ends with / is the folder to put it in; other missing folders are made too. Folders
    go below /workspace, without their links.
    """
    sandbox_id, path = sandbox_path(target)
    if path.endswith("/"):
        path = str(PurePosixPath(path, source.absolute().name))
    files = connection.sandbox(sandbox_id).files
    with _progress(f"{source} -> {sandbox_id}:{path}", _size(source)) as advance:
        if source.is_dir():
            files.upload_dir(source, path, on_progress=advance)
        else:
            mode = stat.S_IMODE(source.stat().st_mode)
            files.upload(source, path, mode, on_progress=advance)


@click.command()
@click.argument("source", metavar="ID:PATH")
@click.argument("target", type=click.Path(path_type=Path))
@with_connection
def download(connection: Connection, source: str, target: Path) -> None:
    """Copy a file or a folder of /workspace out of a sandbox.

    A file goes into TARGET if that is a folder; a folder becomes TARGET.
    """
    sandbox_id, path = sandbox_path(source)
    sandbox = connection.sandbox(sandbox_id)
    size = _size_inside(sandbox, path)
    if size is not None and target.is_dir():
        target = target / PurePosixPath(path).name
    with _progress(f"{sandbox_id}:{path} -> {target}", size) as advance:
        if size is None:
            sandbox.files.download_dir(path, target, on_progress=advance)
        else:
            sandbox.files.download(path, target, on_progress=advance)


def _size(source: Path) -> int:
    """Bytes that an upload sends."""
    from mitos._sdk.local_tree import local_files  # noqa: PLC0415  keeps `mitos --help` fast

    if source.is_dir():
        return sum(path.stat().st_size for path in local_files(source) if path.is_file())
    return source.stat().st_size


def _size_inside(sandbox: DirectSandbox, path: str) -> int | None:
    """The size of a file; None for a folder."""
    parent, name = str(PurePosixPath(path).parent), PurePosixPath(path).name
    found = next((each for each in sandbox.files.list(parent) if each.name == name), None)
    return None if found is None or found.is_dir else found.size


@contextlib.contextmanager
def _progress(title: str, total_bytes: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, one line afterwards elsewhere; gives what is told the bytes so far."""
    console = Console(stderr=True, highlight=False, markup=False)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task(title, total=total_bytes)
    done_bytes, started = 0, time.monotonic()

    def advance(so_far_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes = so_far_bytes
        bar.update(task, completed=so_far_bytes)

    with bar:
        yield advance
    if not console.is_terminal:
        took_s = time.monotonic() - started
        console.print(f"{title}: {decimal(done_bytes)} in {took_s:.1f} s", soft_wrap=True)
