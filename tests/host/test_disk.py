"""Reserving space; what runs out of it is a small file system, never the machine's own."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mitos.host import disk

_SMALL_BYTES = 16 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """The mount point of a 16 MiB ext4 file system, the kind that fills up before it refuses."""
    mkfs = shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if os.geteuid() != 0 or mkfs is None:
        pytest.skip("a file system of its own needs root and mkfs.ext4")
    image, point = tmp_path / "image", tmp_path / "mnt"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(_SMALL_BYTES)
    subprocess.run([mkfs, "-q", "-m", "0", image], check=True, capture_output=True)
    mount = ["mount", "-o", "loop", str(image), str(point)]
    mounted = subprocess.run(mount, check=False, capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no loop device can be mounted here: {mounted.stderr.decode()[:100]}")
    yield point
    subprocess.run(["umount", point], check=True)


def test_reserved_space_does_not_change_the_length(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        disk.reserve(file.fileno(), 1 << 20)
        file.write(b"abc")
        file.flush()
        held = os.fstat(file.fileno()).st_blocks * 512
        disk.release(file.fileno())

        assert os.fstat(file.fileno()).st_size == 3
        assert held >= 1 << 20
        assert os.fstat(file.fileno()).st_blocks * 512 < 1 << 20


def test_space_that_is_not_there_is_refused_before_it_is_taken(small: Path) -> None:
    free_before = disk.free_bytes(small)
    with (small / "file").open("wb") as file:
        with pytest.raises(OSError, match="No space") as caught:
            disk.reserve(file.fileno(), 2 * _SMALL_BYTES)

        assert caught.value.errno == errno.ENOSPC
        assert os.fstat(file.fileno()).st_blocks == 0
        assert disk.free_bytes(small) == free_before


def test_reserving_nothing_is_fine(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        disk.reserve(file.fileno(), 0)

        assert os.fstat(file.fileno()).st_blocks == 0


def test_a_file_that_is_not_open_is_an_error() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        disk.reserve(-1, 10)


def test_a_disk_says_why_nothing_can_be_written(small: Path) -> None:
    assert disk.fault(small) is None

    made = 0
    with contextlib.suppress(OSError):
        while True:
            (small / f"file-{made}").touch()
            made += 1
    assert errno.ENOSPC == disk.fault(small)
    (small / "file-0").unlink()
    assert disk.fault(small) is None

    with contextlib.suppress(OSError):
        (small / "large").write_bytes(bytes(_SMALL_BYTES))
    assert errno.ENOSPC == disk.fault(small)
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    assert errno.EROFS == disk.fault(small)


def test_a_file_in_memory_takes_no_more_than_the_host_can_spare(tmp_path: Path) -> None:
    """A tmpfs promises more than that: half the memory there is, used or not."""
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        with pytest.raises(OSError, match="No space") as caught:
            disk.reserve(file.fileno(), 1 << 20, available=lambda: (1 << 20) - 1)

        assert caught.value.errno == errno.ENOSPC
        assert os.fstat(file.fileno()).st_blocks == 0
        disk.reserve(file.fileno(), 1 << 20, available=lambda: 1 << 20)
    with (tmp_path / "file").open("wb") as file:
        disk.reserve(file.fileno(), 1 << 20, available=lambda: 0)
