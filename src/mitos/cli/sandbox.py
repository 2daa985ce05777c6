"""`mitos sandbox`, `mitos run`, `mitos fork`: sandboxes of a running server."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from mitos.cli.connection import Connection, with_connection
from mitos.cli.progress import Steps

if TYPE_CHECKING:
    from mitos import DirectSandbox
    from mitos.types import Relative

__all__ = ["fork", "run", "sandbox"]

DEADLINE_EXIT_CODE = 124
EXEC_TIMEOUT_S = 86_400

_WORDS = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""What follows the first word belongs to the command that runs inside."""


@click.group()
def sandbox() -> None:
    """Create, use, fork and end sandboxes of a running server."""


@sandbox.command()
@click.option("--pool", help="The template it starts from.  [default: python]")
@click.option("--id", "sandbox_id", help="Its id.  [default: sandbox- and 8 digits]")
@with_connection
def create(connection: Connection, pool: str | None, sandbox_id: str | None) -> None:
    """Start a sandbox and print its id. The first one of a template may take minutes."""
    click.echo(_create(connection, pool, sandbox_id).id)


@sandbox.command("ls")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@click.option("--json", "as_json", is_flag=True, help="The same as --output json.")
@with_connection
def list_sandboxes(connection: Connection, output: str, *, as_json: bool) -> None:
    """List the sandboxes that run."""
    server = connection.server()
    node = urlsplit(server.url).netloc
    rows = [_row(found, node) for found in server.list_sandboxes()]
    if as_json or output == "json":
        click.echo(json.dumps({"sandboxes": rows}, indent=2))
        return
    if not rows:
        click.echo("no sandboxes; start one with: mitos sandbox create")
        return
    table = Table("NAME", "POOL", "PHASE", "NODE", "ENDPOINT", "AGE", box=None)
    for row in rows:
        *texts, age_s = row.values()
        table.add_row(*texts, _age(age_s))
    _plain().print(table, soft_wrap=True)


@sandbox.command("exec", context_settings=_WORDS)
@click.argument("sandbox_id", metavar="ID")
@click.argument("words", metavar="COMMAND...", nargs=-1, required=True)
@click.option("--timeout", default=EXEC_TIMEOUT_S, help="Seconds.  [default: a day]")
@with_connection
def run_in(
    connection: Connection, sandbox_id: str, words: tuple[str, ...], timeout: int
) -> NoReturn:
    """Run a shell command; its output and exit code are this command's.

    Options go before the id. Example: mitos sandbox exec sandbox-1a2b3c4d ls -l
    """
    _exit_as(connection.sandbox(sandbox_id), words, timeout)


@click.command("fork")
@click.argument("sandbox_id", metavar="ID")
@click.option("--count", "--replicas", default=1, show_default=True, help="How many children.")
@with_connection
def fork(connection: Connection, sandbox_id: str, count: int) -> None:
    """Copy a sandbox while it runs: memory, processes, files. Prints the children's ids."""
    for child in connection.sandbox(sandbox_id).fork(count):
        click.echo(child.id)


@sandbox.command("terminate")
@click.argument("sandbox_id", metavar="ID")
@click.option("--subtree", is_flag=True, help="Also end all that were forked from it.")
@with_connection
def terminate(connection: Connection, sandbox_id: str, *, subtree: bool) -> None:
    """End a sandbox."""
    connection.sandbox(sandbox_id).terminate(subtree=subtree)
    click.echo(f"terminated {sandbox_id}")


@sandbox.command("tree")
@click.argument("sandbox_id", metavar="ID")
@with_connection
def show_tree(connection: Connection, sandbox_id: str) -> None:
    """Show who was forked from whom, the ended included."""
    for root in _trees(connection.sandbox(sandbox_id).tree()):
        _plain().print(root)


@click.command("run", context_settings=_WORDS)
@click.argument("words", metavar="COMMAND...", nargs=-1, required=True)
@click.option("--pool", help="The template it runs in.  [default: python]")
@click.option("--timeout", default=EXEC_TIMEOUT_S, help="Seconds.  [default: a day]")
@with_connection
def run(connection: Connection, words: tuple[str, ...], pool: str | None, timeout: int) -> NoReturn:
    """Run a command in a fresh sandbox, which is ended afterwards, also by Ctrl-C.

    Options go before the command. Example: mitos run 'python3 --version; pip --version'
    """
    with _signals_end_it(), _create(connection, pool) as created:
        _exit_as(created, words, timeout)


sandbox.add_command(fork)


def _create(
    connection: Connection, pool: str | None, sandbox_id: str | None = None
) -> DirectSandbox:
    server, template = connection.server(), pool or connection.pool
    with Steps() as steps:
        if template not in {found.get("id") for found in server.list_templates()}:
            steps(f"building the template {template}")
        server.ensure_template(template)
    return server.fork(template, sandbox_id)


def _exit_as(found: DirectSandbox, words: Sequence[str], timeout_s: int) -> NoReturn:
    """Runs the words, joined by spaces, as one command line; exits as it does."""
    from mitos.errors import ExecutionDeadlineError  # noqa: PLC0415  keeps `mitos --help` fast

    try:
        result = found.exec(
            " ".join(words),
            timeout_s,
            on_stdout=_writer(sys.stdout.buffer),
            on_stderr=_writer(sys.stderr.buffer),
        )
    except ExecutionDeadlineError as exc:
        click.echo(f"mitos: {exc.args[0]}", err=True)
        sys.exit(DEADLINE_EXIT_CODE)
    sys.exit(result.exit_code & 0xFF)


def _writer(stream: IO[bytes]) -> Callable[[bytes], None]:
    def write(piece: bytes) -> None:
        stream.write(piece)
        stream.flush()

    return write


@contextlib.contextmanager
def _signals_end_it() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP leave the block as Ctrl-C does, so that what it holds is freed."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _row(found: dict[str, Any], node: str) -> dict[str, Any]:
    created = datetime.fromisoformat(str(found["created_at"]))
    return {
        "name": str(found["id"]),
        "pool": str(found["template_id"]),
        "phase": str(found.get("phase", "Ready")),
        "node": node,
        "endpoint": str(found["endpoint"]),
        "ageSeconds": max(0, int(time.time() - created.timestamp())),
    }


def _age(seconds: int) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _trees(family: Sequence[Relative]) -> list[Tree]:
    """The family as trees: more than one where the oldest are forgotten."""
    nodes = {kin.uid: Tree(f"{kin.id}  {kin.phase}") for kin in family}
    roots = []
    for kin in family:
        parent = nodes.get(kin.parent_uid or "")
        if parent is None:
            roots.append(nodes[kin.uid])
        else:
            parent.children.append(nodes[kin.uid])
    return roots


def _plain() -> Console:
    return Console(highlight=False, markup=False)
