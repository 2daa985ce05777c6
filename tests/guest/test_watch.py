"""Changes in directories, as the real agent reports them: none is left out in silence."""

from __future__ import annotations

import errno
from pathlib import Path

from mitos.wire.link import EntryDecoder, Fields, Operation, Status, Tag

from .client import AgentClient, Stream

READY, CREATE, DELETE = 0, 1, 3
DIRECTORY_LIMIT = 8192


def watch(client: AgentClient, path: str, *, recursive: bool = False) -> Stream:
    fields = Fields().text(Tag.PATH, path).uint(Tag.RECURSIVE, int(recursive))
    return client.open(Operation.WATCH, fields)


def changes(stream: Stream) -> list[tuple[int, str]]:
    decoded = EntryDecoder().feed(stream.stdout)
    return [(each.get_uint(Tag.CHANGE), each.get_text(Tag.PATH)) for each in decoded]


def test_the_first_thing_said_is_that_nothing_will_be_missed(client: AgentClient) -> None:
    client.shell("mkdir /w")
    stream = watch(client, "/w/")
    client.wait_until(lambda: bool(changes(stream)))
    client.shell("touch /w/a; rmdir /w/none; rm /w/a")
    client.wait_until(lambda: len(changes(stream)) == 3)

    assert changes(stream) == [(READY, "/w"), (CREATE, "/w/a"), (DELETE, "/w/a")]


def test_more_than_the_queue_holds_is_an_error(client: AgentClient) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    client.shell("mkdir /w")
    client.gives_credit = False
    stream = watch(client, "/w")
    client.wait_until(lambda: bool(changes(stream)))
    # What the stream's credit and the agent's own buffer take comes on top of the kernel's queue.
    make = (
        f"import os\nfor n in range({limit + 20_000}): os.close(os.open(f'/w/{{n}}', os.O_CREAT))"
    )
    made = client.exec("python3", "-c", make)
    client.gives_credit = True
    client.give_credit(stream)
    client.finish(stream)

    assert made.fields.get_int(Tag.EXIT_CODE) == 0
    assert stream.status is Status.FAILED
    assert stream.fields.get_uint(Tag.ERRNO) == errno.ENOBUFS
    assert client.shell("echo on").stdout == b"on\n"


def test_directories_are_bounded_over_all_watches(client: AgentClient) -> None:
    make = f"""
import os
for number in range({DIRECTORY_LIMIT - 10}):
    os.makedirs(f"/many/{{number}}")
os.makedirs("/few/a")
os.mkdir("/other")
for number in range(20):
    os.mkdir(f"/other/{{number}}")
"""
    assert client.exec("python3", "-c", make).fields.get_int(Tag.EXIT_CODE) == 0
    many = watch(client, "/many", recursive=True)
    few = watch(client, "/few", recursive=True)
    client.wait_until(lambda: bool(changes(many)) and bool(changes(few)))
    other = client.finish(watch(client, "/other", recursive=True))

    assert other.status is Status.FAILED
    assert other.fields.get_uint(Tag.ERRNO) == errno.ENOSPC
    assert not many.closed
    assert not few.closed

    client.cancel(many)
    client.finish(many)
    again = watch(client, "/other", recursive=True)
    client.wait_until(lambda: bool(changes(again)))
    assert changes(again) == [(READY, "/other")]


def test_a_watch_does_not_outlive_a_fork(client: AgentClient) -> None:
    client.shell("mkdir /w")
    stream = watch(client, "/w")
    client.wait_until(lambda: bool(changes(stream)))
    before = client.descriptor_count()
    child = client.restored_child()
    assert child.identify(forked=True).status is Status.OK
    child.shell("touch /w/a")

    assert child.descriptor_count() < before
