"""`mitos doctor`: what this machine can run, what is missing, and the command that fixes it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mitos.cli import examination, settings
from mitos.cli.examination import Check, Status

__all__ = ["doctor"]

_STYLES = {Status.PASS: "green", Status.WARN: "yellow", Status.FAIL: "bold red"}


@click.command()
@click.option("--home", type=click.Path(path_type=Path), help="The Mitos home.")
@click.option("--port", default=8080, show_default=True, help="The server's port.")
@click.option("--output", type=click.Choice(["table", "json"]), default="table")
def doctor(home: Path | None, port: int, output: str) -> None:
    """Say what this machine can run. Exit code 1 if a server could not run sandboxes."""
    checks = asyncio.run(examination.examine(home or settings.home(), port=port))
    if output == "json":
        click.echo(json.dumps([_to_json(check) for check in checks], indent=2))
    else:
        Console(highlight=False, markup=False).print(_render(checks))
    if any(check.status is Status.FAIL for check in checks):
        sys.exit(1)


def _to_json(check: Check) -> dict[str, str]:
    return {
        "name": check.name,
        "status": check.status.value,
        "detail": check.detail,
        "remediation": check.remediation,
    }


def _render(checks: list[Check]) -> Table:
    table = Table(box=None, show_header=False)
    for check in checks:
        told = Text(check.detail)
        if check.remediation and check.status is not Status.PASS:
            told.append(f"\n{check.remediation}", style="bold")
        table.add_row(Text(check.status.value, style=_STYLES[check.status]), check.name, told)
    return table
