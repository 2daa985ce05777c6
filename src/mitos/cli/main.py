"""The `mitos` command: finds the subcommand, runs it, renders its failure."""

from __future__ import annotations

import importlib
import sys

import click

from mitos.wire.errors import ApiError

__all__ = ["main"]

_COMMANDS = {
    "doctor": "mitos.cli.doctor",
    "serve": "mitos.cli.serve",
    "template": "mitos.cli.template",
}


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
        command = getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mitos-run", prog_name="mitos")
def _mitos() -> None:
    """Forkable computers for AI agents."""


def main() -> None:
    """Runs the command line; exits 1 on failure, 2 on wrong usage."""
    try:
        _mitos()
    except ApiError as exc:
        click.echo(f"mitos: {exc.message}", err=True)
        if exc.cause:
            click.echo(f"  cause: {exc.cause}", err=True)
        click.echo(f"  what to do: {exc.remediation}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
