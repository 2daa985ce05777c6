"""File operations of the real agent."""

from __future__ import annotations

import os
import stat
import time

import pytest

from mitos.wire.link import Fields, Operation, Status, Tag, decode_entries

from .client import AgentClient, Stream

ENOENT, EACCES, EBUSY, EEXIST, ENOTDIR, EISDIR, EINVAL, ENOTEMPTY, ELOOP = (
    *(2, 13, 16, 17),
    *(20, 21, 22, 39, 40),
)


def error_of(result: Stream) -> int:
    assert result.status is Status.FAILED
    assert result.fields.get_text(Tag.MESSAGE)
    return result.fields.get_uint(Tag.ERRNO)


def entries(client: AgentClient, path: str) -> list[Fields]:
    return list(decode_entries(client.on_path(Operation.LIST, path).stdout))


def names(client: AgentClient, path: str) -> list[str]:
    return [entry.get_text(Tag.NAME) for entry in entries(client, path)]


def mode_of(client: AgentClient, path: str) -> int:
    return client.on_path(Operation.STAT, path).fields.get_uint(Tag.MODE)


# ---- reading and writing ----


@pytest.mark.parametrize("size", [0, 1, 65536, 262144, 262145, 5_000_000])
def test_what_is_written_is_read(client: AgentClient, size: int) -> None:
    data = os.urandom(size)
    written = client.write_file("/tmp/new/folders/file", data)
    read = client.read_file("/tmp/new/folders/file")

    assert (written.status, written.fields.get_uint(Tag.SIZE)) == (Status.OK, size)
    assert (read.status, read.fields.get_uint(Tag.SIZE)) == (Status.OK, size)
    assert read.stdout == data


def test_part_of_a_file_can_be_read(client: AgentClient) -> None:
    client.write_file("file", b"0123456789")

    assert client.read_file("file", offset=3).stdout == b"3456789"
    assert client.read_file("file", offset=3, size=4).stdout == b"3456"
    assert client.read_file("file", offset=20).stdout == b""


def test_relative_paths_are_beneath_the_workspace(client: AgentClient) -> None:
    client.write_file("sub/file", b"x")

    assert client.read_file("/workspace/sub/file").stdout == b"x"


def test_files_whose_size_says_nothing_are_read_to_the_end(client: AgentClient) -> None:
    assert client.read_file("/proc/self/status").stdout.startswith(b"Name:\tagent")


def test_reading_what_cannot_be_read_is_an_error(client: AgentClient) -> None:
    assert error_of(client.read_file("/no/such/file")) == ENOENT
    assert error_of(client.read_file("/etc")) == EISDIR
    assert error_of(client.read_file("/etc/hostname/below")) in (ENOENT, ENOTDIR)


def test_an_endless_file_can_be_canceled(client: AgentClient) -> None:
    stream = client.open(Operation.READ_FILE, Fields().text(Tag.PATH, "/dev/zero"))
    client.wait_until(lambda: len(stream.stdout) > 2 << 20)
    client.cancel(stream)

    assert client.finish(stream).status is Status.CANCELED


def test_a_pipe_is_read_as_it_is_written(client: AgentClient) -> None:
    script = (
        "mkfifo pipe; exec 3<>pipe; echo one >&3; echo ready; sleep 0.3; echo two >&3; sleep 0.3"
    )
    writer = client.start_shell(script)
    client.wait_until(lambda: b"ready" in writer.stdout)
    reader = client.open(Operation.READ_FILE, Fields().text(Tag.PATH, "pipe"))

    client.finish(writer)
    assert client.finish(reader).stdout == b"one\ntwo\n"


def test_the_mode_holds_for_new_files_only(client: AgentClient) -> None:
    client.write_file("plain", b"")
    client.write_file("script", b"", mode=0o750)
    client.write_file("script", b"more", mode=0o600)

    assert mode_of(client, "plain") == stat.S_IFREG | 0o644
    assert mode_of(client, "script") == stat.S_IFREG | 0o750


def test_a_replaced_file_keeps_its_owner(client: AgentClient) -> None:
    client.shell("echo old > file; chown 1000:1001 file; chmod 4711 file")
    client.write_file("file", b"new")

    assert client.shell("stat -c '%u:%g %a' file").stdout == b"1000:1001 4711\n"


def test_a_link_is_followed_and_stays(client: AgentClient) -> None:
    client.shell("mkdir far; ln -s far/target here; ln -s /workspace/here again")
    client.write_file("again", b"content")

    assert client.shell("cat far/target; readlink here again").stdout == (
        b"contentfar/target\n/workspace/here\n"
    )


def test_links_in_a_circle_are_an_error(client: AgentClient) -> None:
    client.shell("ln -s b a; ln -s a b")

    assert error_of(client.write_file("a", b"")) == ELOOP


def test_a_directory_is_not_written(client: AgentClient) -> None:
    client.shell("mkdir folder")

    assert error_of(client.write_file("folder", b"x")) == EISDIR
    assert error_of(client.write_file("folder/", b"x")) == EISDIR
    assert error_of(client.write_file("new/", b"x")) == EISDIR


def test_a_device_is_written_in_place(client: AgentClient) -> None:
    assert client.write_file("/dev/null", b"x" * 100_000).status is Status.OK
    assert stat.S_ISCHR(mode_of(client, "/dev/null"))
    assert error_of(client.write_file("/dev/full", b"x")) == 28


def test_readers_see_the_old_file_until_the_new_one_is_complete(client: AgentClient) -> None:
    client.write_file("file", b"old")
    stream = client.open(Operation.WRITE_FILE, Fields().text(Tag.PATH, "file"))
    client.write(stream, b"half of the new")
    client.ping()

    assert client.read_file("file").stdout == b"old"
    client.end_input(stream)
    client.finish(stream)
    assert client.read_file("file").stdout == b"half of the new"


def test_a_canceled_write_leaves_the_old_file_and_no_litter(client: AgentClient) -> None:
    client.write_file("file", b"old")
    stream = client.open(Operation.WRITE_FILE, Fields().text(Tag.PATH, "file"))
    client.write(stream, bytes(500_000))
    client.cancel(stream)

    assert client.finish(stream).status is Status.CANCELED
    assert client.shell("ls -A; cat file").stdout == b"file\nold"


def test_failed_writes_leave_no_litter(client: AgentClient) -> None:
    client.shell("touch blocker")

    assert error_of(client.write_file("blocker/below", b"x")) == ENOTDIR
    assert client.shell("ls -A").stdout == b"blocker\n"


# ---- looking ----


def test_entries_are_sorted_and_complete(client: AgentClient) -> None:
    client.shell(
        "mkdir -p d/sub; printf abc > d/b; ln -s nowhere d/link; touch d/.hidden d/Z 'd/\u00fc'"
    )
    listed = {entry.get_text(Tag.NAME): entry for entry in entries(client, "d")}

    assert list(listed) == [".hidden", "Z", "b", "link", "sub", "\u00fc"]
    assert listed["b"].get_uint(Tag.SIZE) == 3
    assert listed["b"].get_text(Tag.PATH) == "/workspace/d/b"
    assert abs(listed["b"].get_int(Tag.MTIME) - time.time()) < 60
    assert stat.S_ISDIR(listed["sub"].get_uint(Tag.MODE))
    assert stat.S_ISLNK(listed["link"].get_uint(Tag.MODE))
    assert listed["link"].get_text(Tag.LINK_TARGET) == "nowhere"


def test_a_big_directory_is_listed(client: AgentClient) -> None:
    client.shell("mkdir d; cd d; seq -f 'file-with-a-rather-long-name-%06g' 20000 | xargs touch")

    assert names(client, "d") == [f"file-with-a-rather-long-name-{i:06}" for i in range(1, 20001)]


def test_names_that_are_not_text_survive(client: AgentClient) -> None:
    client.shell("mkdir d; touch \"d/$(printf '\\377\\376')\"")
    (entry,) = entries(client, "d")

    assert entry.get_raw(Tag.NAME) == b"\xff\xfe"
    path = Fields().raw(Tag.PATH, b"/workspace/d/\xff\xfe")
    assert client.call(Operation.STAT, path).status is Status.OK


def test_listing_a_file_gives_that_file(client: AgentClient) -> None:
    client.write_file("file", b"abc")

    (entry,) = entries(client, "file")
    assert (entry.get_text(Tag.NAME), entry.get_uint(Tag.SIZE)) == ("file", 3)
    assert entry.get_text(Tag.PATH) == "/workspace/file"


def test_listing_the_root_gives_plain_paths(client: AgentClient) -> None:
    assert "/workspace" in [entry.get_text(Tag.PATH) for entry in entries(client, "/")]


def test_what_is_not_there_is_neither_listed_nor_looked_at(client: AgentClient) -> None:
    assert error_of(client.on_path(Operation.LIST, "/no/such")) == ENOENT
    assert error_of(client.on_path(Operation.STAT, "/no/such")) == ENOENT


def test_stat_does_not_follow_links(client: AgentClient) -> None:
    client.shell("ln -s /etc link")
    fields = client.on_path(Operation.STAT, "link").fields

    assert stat.S_ISLNK(fields.get_uint(Tag.MODE))
    assert fields.get_text(Tag.LINK_TARGET) == "/etc"
    assert fields.get_text(Tag.PATH) == "/workspace/link"


# ---- making and removing ----


def test_directories_are_made_with_their_parents(client: AgentClient) -> None:
    assert client.on_path(Operation.MKDIR, "a/b/c").status is Status.OK
    assert client.on_path(Operation.MKDIR, "a/b/c/").status is Status.OK
    assert client.on_path(Operation.MKDIR, "secret", mode=0o700).status is Status.OK
    assert mode_of(client, "a/b") == stat.S_IFDIR | 0o755
    assert mode_of(client, "secret") == stat.S_IFDIR | 0o700


def test_a_file_in_the_way_of_a_directory_is_an_error(client: AgentClient) -> None:
    client.write_file("file", b"")

    assert error_of(client.on_path(Operation.MKDIR, "file")) == EEXIST
    assert error_of(client.on_path(Operation.MKDIR, "file/below")) in (EEXIST, ENOTDIR)


def test_files_links_and_trees_are_removed(client: AgentClient) -> None:
    client.shell(
        "mkdir -p t/a/b t/c far; touch t/x t/a/y t/a/b/z far/kept; ln -s far l; ln -s ../far t/l"
    )
    for path in ("t", "l"):
        assert client.on_path(Operation.REMOVE, path, recursive=1).status is Status.OK

    assert client.shell("ls; ls far").stdout == b"far\nkept\n"


def test_removing_what_is_not_there_is_fine(client: AgentClient) -> None:
    assert client.on_path(Operation.REMOVE, "/no/such", recursive=1).status is Status.OK


def test_a_directory_with_content_needs_the_recursive_flag(client: AgentClient) -> None:
    client.shell("mkdir empty full; touch full/file")

    assert client.on_path(Operation.REMOVE, "empty").status is Status.OK
    assert error_of(client.on_path(Operation.REMOVE, "full")) == ENOTEMPTY
    assert names(client, "full") == ["file"]


@pytest.mark.parametrize("path", ["/", "//", "/workspace/..", "/proc", "/sys", "/dev", "/dev/"])
def test_the_system_s_own_folders_stay(client: AgentClient, path: str) -> None:
    assert error_of(client.on_path(Operation.REMOVE, path, recursive=1)) == EBUSY
    assert client.shell("echo fine").stdout == b"fine\n"


def test_a_deep_tree_is_removed(client: AgentClient) -> None:
    script = "import os\nfor _ in range(3000): os.mkdir('deeper'); os.chdir('deeper')"
    client.exec("python3", "-c", script)

    assert client.on_path(Operation.REMOVE, "deeper", recursive=1).status is Status.OK
    assert names(client, "/workspace") == []


def test_a_big_tree_does_not_hold_up_others(client: AgentClient) -> None:
    client.shell(
        "mkdir d; cd d; for i in $(seq 20); do mkdir $i; (cd $i; seq 1500 | xargs touch); done"
    )
    fields = Fields().text(Tag.PATH, "d").uint(Tag.RECURSIVE, 1)
    removal = client.open(Operation.REMOVE, fields)
    pings = 0
    while not removal.closed:
        client.ping()
        pings += 1

    assert removal.status is Status.OK
    assert pings > 5


def test_what_cannot_be_removed_is_an_error(client: AgentClient) -> None:
    assert error_of(client.on_path(Operation.REMOVE, "/opt/mitos", recursive=1)) == EBUSY


@pytest.mark.parametrize(
    "operation",
    [
        *(Operation.READ_FILE, Operation.WRITE_FILE, Operation.LIST),
        *(Operation.STAT, Operation.MKDIR, Operation.REMOVE),
    ],
)
@pytest.mark.parametrize(
    "fields", [Fields(), Fields().text(Tag.PATH, ""), Fields().raw(Tag.PATH, b"/tmp\0/x")]
)
def test_an_invalid_path_is_refused(
    client: AgentClient, operation: Operation, fields: Fields
) -> None:
    assert client.call(operation, fields).status is Status.INVALID
