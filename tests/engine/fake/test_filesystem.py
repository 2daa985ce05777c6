"""The fake file system says what a kernel would."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable

import pytest

from mitos.engine.fake.filesystem import FileSystem


@pytest.fixture
def files() -> FileSystem:
    made = FileSystem(limit_bytes=1000)
    made.make_directory("d/e")
    made.write("d/f", b"content")
    made.make_link("d", "link")
    made.make_link("nowhere", "dangling")
    made.make_link("/workspace/loop", "loop")
    return made


def content(files: FileSystem, path: str) -> bytes:
    return b"".join(files.read(path))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("d/f", "/workspace/d/f"),
        ("/workspace//d/./e/../f", "/workspace/d/f"),
        ("link/f", "/workspace/d/f"),
        ("link", "/workspace/d"),
        ("link/..", "/workspace"),
        ("/../../etc", "/etc"),
        ("dangling", "/workspace/nowhere"),
        ("new", "/workspace/new"),
    ],
)
def test_a_path_is_found(files: FileSystem, path: str, expected: str) -> None:
    assert expected == files.locate(path)


@pytest.mark.parametrize(
    ("act", "number"),
    [
        (lambda f: f.stat("nosuch"), errno.ENOENT),
        (lambda f: f.stat("nosuch/f"), errno.ENOENT),
        (lambda f: f.stat("d/f/x"), errno.ENOTDIR),
        (lambda f: f.stat("loop/x"), errno.ELOOP),
        (lambda f: f.stat("x" * 256), errno.ENAMETOOLONG),
        (lambda f: f.read("d"), errno.EISDIR),
        (lambda f: f.read("dangling"), errno.ENOENT),
        (lambda f: f.write("d", b""), errno.EISDIR),
        (lambda f: f.write("nosuch/f", b""), errno.ENOENT),
        (lambda f: f.write("big", bytes(2000)), errno.ENOSPC),
        (lambda f: f.write("d/f", bytes(995), append=True), errno.ENOSPC),
        (lambda f: f.make_directory("d/f"), errno.EEXIST),
        (lambda f: f.make_directory("d/f/x"), errno.ENOTDIR),
        (lambda f: f.make_directory("d", parents=False), errno.EEXIST),
        (lambda f: f.make_directory("a/b", parents=False), errno.ENOENT),
        (lambda f: f.make_link("x", "d"), errno.EEXIST),
        (lambda f: f.remove("d", recursive=False), errno.ENOTEMPTY),
        (lambda f: f.remove("/proc", recursive=True), errno.EBUSY),
        (lambda f: f.remove("/", recursive=True), errno.EBUSY),
        (lambda f: f.move("d", "d/e/x"), errno.EINVAL),
        (lambda f: f.move("nosuch", "x"), errno.ENOENT),
        (lambda f: f.entries("nosuch"), errno.ENOENT),
    ],
)
def test_an_error_has_its_number(
    files: FileSystem, act: Callable[[FileSystem], object], number: int
) -> None:
    with pytest.raises(OSError, match=r"Errno") as caught:
        act(files)

    assert number == caught.value.errno


def test_a_replaced_file_keeps_its_mode(files: FileSystem) -> None:
    files.write("new", b"1", mode=0o600)
    files.write("new", b"2", mode=0o755)

    assert (stat.S_IFREG | 0o600, b"2") == (files.stat("new").mode, content(files, "new"))


def test_a_write_follows_a_link(files: FileSystem) -> None:
    files.write("dangling", b"1")

    assert b"1" == content(files, "nowhere")
    assert files.stat("dangling").is_link


def test_a_link_is_removed_and_not_followed(files: FileSystem) -> None:
    files.remove("link", recursive=True)

    assert not files.exists("link")
    assert b"content" == content(files, "d/f")


def test_removing_what_is_not_there_is_fine(files: FileSystem) -> None:
    files.remove("nosuch", recursive=False)
    files.remove("nosuch/deeper", recursive=True)


def test_a_tree_is_moved_with_what_is_in_it(files: FileSystem) -> None:
    files.move("d", "moved")

    assert b"content" == content(files, "moved/f")
    assert not files.exists("d")


def test_a_listing_is_sorted_and_of_one_level(files: FileSystem) -> None:
    names = [path for path, _ in files.entries("/workspace")]

    expected = ["d", "dangling", "link", "loop"]
    assert [f"/workspace/{name}" for name in expected] == names
    assert ["/workspace/d/f"] == [path for path, _ in files.entries("d/f")]
    assert ["/workspace/dangling"] == [path for path, _ in files.entries("dangling")]


def test_random_bytes_never_repeat_and_never_end(files: FileSystem) -> None:
    pieces = files.read("/dev/urandom")

    assert next(pieces) != next(pieces)
    assert b"" == content(files, "/dev/null")


def test_a_device_takes_everything_and_keeps_nothing(files: FileSystem) -> None:
    files.write("/dev/null", bytes(5000))

    assert b"" == content(files, "/dev/null")
    assert files.stat("/dev/null").is_device
