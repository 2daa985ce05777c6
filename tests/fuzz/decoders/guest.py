"""Decoders of what a guest sends."""

from __future__ import annotations

import json
from collections.abc import Iterator

from mitos.agent import command, file, process
from mitos.server.runtime import messages
from mitos.wire import link
from mitos.wire.errors import ApiError
from mitos.wire.link import Tag
from tests.fuzz.decoders.base import VECTORS, Target, halves, outcome

__all__ = ["TARGETS"]


def _link(*groups: str) -> Iterator[bytes]:
    """Vectors of the guest link, as bytes."""
    found = json.loads((VECTORS / "guest-link.json").read_text())
    for group in groups:
        yield from (bytes.fromhex(vector["bytes"]) for vector in found[group])


def frames(data: bytes) -> None:
    """However they are cut; and what was read is written as it was."""
    whole = outcome(link.FrameDecoder().feed, (data,))
    assert whole == outcome(link.FrameDecoder().feed, halves(data))
    read = b"".join(each.encode() for each in whole if each != "refused")
    assert data.startswith(read)


def fields(data: bytes) -> None:
    """Written as they were read; as an answer they are a value, or refused."""
    try:
        found = link.Fields.decode(data)
    except link.LinkError:
        return
    assert data == found.encode()
    for read in (file.FileEntry.of, file.Change.of, process.ProcessEntry.of):
        try:
            value = read(found)
        except link.LinkError:
            continue
        if isinstance(value, file.FileEntry):
            messages.file_info(value).to_binary()
    try:
        ended = command.command_info(found).exit
    except (link.LinkError, ApiError):
        return
    if ended is not None:
        messages.exec_exit(ended).to_binary()


def _answered() -> Iterator[bytes]:
    yield from _link("fields", "invalid_fields")
    numbers = (Tag.MODE, Tag.SIZE, Tag.MTIME, Tag.CHANGE, Tag.PID, Tag.DURATION, Tag.EXIT_CODE)
    for last in (Tag.ENDED, Tag.TIMED_OUT, Tag.SIGNAL, Tag.ERRNO, Tag.CPU_TIME, Tag.KEEP):
        answer = link.Fields().text(Tag.NAME, "a").text(Tag.PATH, "/a").text(Tag.COMMAND_ID, "a")
        for number in (*numbers, Tag.ENDED, last):
            answer.uint(number, 1)
        yield answer.encode()


def entries(data: bytes) -> None:
    """A listing and an endless one are read alike, but for what is missing at the end."""
    endless = link.EntryDecoder()
    whole = outcome(endless.feed, (data,))
    assert whole == outcome(link.EntryDecoder().feed, halves(data))
    listing = outcome(link.decode_entries, (data,))
    assert listing in (whole, [*whole, "refused"])


def kernel_events(data: bytes) -> None:
    """However they are cut; each is a message that can be sent."""
    whole = outcome(link.KernelEventDecoder(1 << 16).feed, (data,))
    assert whole == outcome(link.KernelEventDecoder(1 << 16).feed, halves(data))
    for event in whole:
        if event != "refused":
            for message in messages.code_messages(event):
                message.to_binary()


TARGETS = {
    "frames": Target(frames, (link,), lambda: _link("frames", "cut_frames", "invalid_frames")),
    "fields": Target(fields, (link, file, process, command), _answered),
    "entries": Target(entries, (link,), lambda: _link("entries", "invalid_entries")),
    "kernel_events": Target(
        kernel_events, (link, messages), lambda: _link("kernel_events", "invalid_kernel_events")
    ),
}
