"""The executables in /etc/mitos/after-fork.d: when they run, and what their failure means."""

from __future__ import annotations

import errno

import pytest

from mitos.wire.link import Status, Tag

from .client import AgentClient, Stream, identity_fields

DIRECTORY = "/etc/mitos/after-fork.d"


def install(client: AgentClient, name: str, script: str, *, mode: int = 0o755) -> None:
    content = f"#!/bin/sh\n{script}\n".encode()
    assert client.write_file(f"{DIRECTORY}/{name}", content, mode=mode).status is Status.OK


def runs(client: AgentClient) -> bytes:
    return client.shell("cat /tmp/runs 2>/dev/null").stdout


def failure(identity: Stream) -> tuple[str, str]:
    """Which executable failed, and how."""
    assert identity.status is Status.FAILED
    assert identity.fields.get_uint(Tag.ERRNO) == errno.ECANCELED
    return identity.fields.get_text(Tag.PATH), identity.fields.get_text(Tag.MESSAGE)


def test_they_run_in_a_fork_sorted_by_name(client: AgentClient) -> None:
    for name in ("20-b", "10-a", "B"):
        install(client, name, f"echo {name} >> /tmp/runs")

    assert client.identify().status is Status.OK
    assert runs(client) == b""
    assert client.identify(forked=True).status is Status.OK
    assert runs(client) == b"10-a\n20-b\nB\n"


def test_they_see_the_new_sandbox(client: AgentClient) -> None:
    install(
        client,
        "show",
        "pwd > /tmp/runs; hostname >> /tmp/runs; echo $NEW >> /tmp/runs; cat >> /tmp/runs",
    )
    client.identify(identity_fields(forked=True, hostname="child", env={"NEW": "value"}))

    assert runs(client) == b"/workspace\nchild\nvalue\n"


def test_what_is_no_executable_is_left_alone(client: AgentClient) -> None:
    install(client, "plain", "echo plain >> /tmp/runs", mode=0o644)
    install(client, ".hidden", "echo hidden >> /tmp/runs")
    install(client, "backup~", "echo backup >> /tmp/runs")
    client.shell(f"mkdir {DIRECTORY}/folder; ln -s /nowhere {DIRECTORY}/broken")

    assert client.identify(forked=True).status is Status.OK
    assert runs(client) == b""


def test_one_that_fails_fails_the_identity_and_ends_the_run(client: AgentClient) -> None:
    install(client, "10-bad", "echo said something; printf '\\377\\n' >&2; exit 3")
    install(client, "20-after", "echo after >> /tmp/runs")

    path, message = failure(client.identify(forked=True))
    assert path == f"{DIRECTORY}/10-bad"
    assert message == "it ended with exit code 3: said something ? "
    assert runs(client) == b""


@pytest.mark.parametrize(
    ("script", "reason"),
    [("kill -9 $$", "it was ended by signal 9"), ("exec /nowhere", "it ended with exit code 127")],
)
def test_the_message_says_how_it_ended(client: AgentClient, script: str, reason: str) -> None:
    install(client, "bad", script)

    assert reason in failure(client.identify(forked=True))[1]


def test_one_that_cannot_be_started_fails_the_identity(client: AgentClient) -> None:
    client.write_file(f"{DIRECTORY}/bad", b"#!/nowhere\n", mode=0o755)

    assert "No such file" in failure(client.identify(forked=True))[1]


@pytest.mark.timeout(40)
def test_one_that_does_not_end_is_killed_with_all_it_started(client: AgentClient) -> None:
    install(client, "slow", "setsid sleep 4321 & sleep 4321")

    assert "did not end within 8 s" in failure(client.identify(forked=True))[1]
    client.shell("until ! pgrep -f '[s]leep 4321'; do sleep 0.05; done", timeout_ms=10_000)
    assert client.shell("pgrep -f '[s]leep 4321'").stdout == b""


def test_what_it_starts_in_the_background_lives_on(client: AgentClient) -> None:
    install(client, "start", "sleep 4321 >/dev/null 2>&1 & echo $! > /tmp/runs")

    assert client.identify(forked=True).status is Status.OK
    assert (
        client.shell("kill -0 $(cat /tmp/runs) && kill $(cat /tmp/runs)").fields.get_int(
            Tag.EXIT_CODE
        )
        == 0
    )


def test_much_output_does_not_stop_it(client: AgentClient) -> None:
    install(client, "loud", "seq 100000; exit 1")

    message = failure(client.identify(forked=True))[1]
    assert message.endswith("99999 100000 ")
    assert len(message) < 400


def test_after_a_failure_a_later_identity_is_taken(client: AgentClient) -> None:
    install(client, "bad", "exit 1")
    assert client.identify(forked=True).status is Status.FAILED

    assert client.identify().status is Status.OK
    client.shell(f"rm {DIRECTORY}/bad")
    assert client.identify(forked=True).status is Status.OK


def test_there_may_be_only_so_many(client: AgentClient) -> None:
    client.shell(
        f"mkdir -p {DIRECTORY}; cd {DIRECTORY}; for i in $(seq 65); do ln -s /bin/true $i; done"
    )

    assert "more than 64" in failure(client.identify(forked=True))[1]
