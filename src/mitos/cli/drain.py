"""`mitos drain`: a running server takes no new work, and is waited for until it can be stopped."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from mitos.cli.connection import Connection, with_connection
from mitos.cli.progress import Steps

__all__ = ["drain"]

LOOK_S = 0.5
SHOWN = 5
"""So many of what is waited for are named in a line."""


@click.command()
@click.option(
    "--hibernate", is_flag=True, help="Hibernate every sandbox once nobody has a call open on it."
)
@click.option(
    "--timeout",
    type=click.IntRange(min=0),
    metavar="SECONDS",
    help="Wait for so long at most; the server is drained on.  [default: as long as it takes]",
)
@click.option("--undo", is_flag=True, help="Have the server take new work again.")
@with_connection
def drain(connection: Connection, timeout: int | None, *, hibernate: bool, undo: bool) -> None:
    """Have a server take no new work, and wait until no call is open.

    Creates, forks and builds are refused from then on; the sandboxes that are there are served.
    Prints what is left when the time is over, and exits 1; exits 0 when nothing is. Draining ends
    with --undo, and with the server.
    """
    server = connection.server()
    if undo:
        server.end_drain()
        click.echo("the server takes new work")
        return
    found = server.drain(hibernate=hibernate)
    deadline = None if timeout is None else time.monotonic() + timeout
    with Steps() as steps:
        shown = ""
        while found["left"] and (deadline is None or time.monotonic() < deadline):
            if (line := _summary(found["left"])) != shown:
                steps(line)
                shown = line
            time.sleep(LOOK_S)
            found = server.drain_status()
            if not found["draining"]:
                raise click.ClickException("draining was ended: the server takes new work")
    for each in found["left"]:
        click.echo(f"{each['kind']} {each['id']} {each['why']}")
    if found["left"]:
        sys.exit(1)
    click.echo("nothing is left: the server can be stopped")


def _summary(left: Sequence[dict[str, Any]]) -> str:
    names = [f"{each['id']} {each['why']}" for each in left[:SHOWN]]
    if len(left) > SHOWN:
        names.append(f"{len(left) - SHOWN} more")
    return f"waiting for {len(left)}: {', '.join(names)}"
