from __future__ import annotations

from mitos.wire.link import Status, Tag

from .client import AgentClient


def test_output_and_exit_code_come_back(client: AgentClient) -> None:
    result = client.shell("echo out; echo err >&2; exit 7")

    assert result.status is Status.OK
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    assert result.fields.get_int(Tag.EXIT_CODE) == 7
    assert result.fields.get_uint(Tag.DURATION) > 0
