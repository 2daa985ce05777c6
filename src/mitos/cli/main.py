"""The `mitos` command: finds the subcommand, runs it, renders its failure."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

import click

from mitos.cli.connection import Connection
from mitos.errors import AgentRunError, NotFoundError
from mitos.wire.errors import ApiError

__all__ = ["main"]

_COMMANDS = {
    "doctor": ("mitos.cli.doctor", "Say what this machine can run."),
    "download": ("mitos.cli.transfer", "Copy a file or a folder out of a sandbox."),
    "drain": ("mitos.cli.drain", "Have a server take no new work, and wait until it may stop."),
    "fork": ("mitos.cli.sandbox", "Copy a sandbox while it runs."),
    "run": ("mitos.cli.sandbox", "Run a command in a fresh sandbox."),
    "sandbox": ("mitos.cli.sandbox", "Create, use, fork and end sandboxes of a running server."),
    "serve": ("mitos.cli.serve", "Run sandboxes on this machine and serve them over HTTP."),
    "service": ("mitos.cli.service", "Run the server as a service of this machine (systemd)."),
    "template": ("mitos.cli.template", "List templates and build their root filesystems."),
    "upload": ("mitos.cli.transfer", "Copy a file or a folder into a sandbox."),
}
"""Each command's module, which has it under its name, and what `mitos --help` says of it."""

NOT_FOUND_EXIT_CODE = 3
INTERRUPTED_EXIT_CODE = 130


class _LazyGroup(click.Group):
    """Imports a subcommand's module only when it is used: `mitos --help` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return sorted(_COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002  click's signature
        cmd_name: str,
    ) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _ = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002  click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mitos-run", prog_name="mitos")
@click.option(
    "--server",
    metavar="URL",
    help="The server of the sandboxes.  [default: MITOS_BASE_URL, or http://127.0.0.1:8080]",
)
@click.option(
    "--api-key",
    metavar="KEY",
    help="Its key.  [default: MITOS_API_KEY, or the credential file's]",
)
@click.option("--pool", default="python", help="The template of new sandboxes.  [default: python]")
@click.pass_context
def _mitos(context: click.Context, server: str | None, api_key: str | None, pool: str) -> None:
    """Forkable computers for AI agents."""
    context.obj = Connection(server, api_key, pool)


def main() -> None:
    """Runs the command line.

    Exits 1 on failure, 2 on wrong usage, 3 when there is no such sandbox or file, 130 on Ctrl-C.
    """
    try:
        sys.exit(_mitos.main(standalone_mode=False))
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED_EXIT_CODE)
    except ApiError as exc:
        _fail(exc.message, exc.cause, exc.remediation, 1)
    except AgentRunError as exc:
        code = NOT_FOUND_EXIT_CODE if isinstance(exc, NotFoundError) else 1
        _fail(f"{exc.args[0]} [{exc.code}]", exc.cause, exc.remediation, code)


def _fail(message: str, cause: str, remediation: str, exit_code: int) -> NoReturn:
    click.echo(f"mitos: {message}", err=True)
    if cause:
        click.echo(f"  cause: {cause}", err=True)
    if remediation:
        click.echo(f"  what to do: {remediation}", err=True)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
