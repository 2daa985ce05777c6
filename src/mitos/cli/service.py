"""`mitos service`: runs the server under systemd, which starts it anew and holds its port.

Reads and checks the command line; `installation` does it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import click
from click.core import ParameterSource

from mitos.cli import installation, listener, secret, settings, unit
from mitos.cli.daemon import say
from mitos.cli.serve import serve
from mitos.cli.setup import set_up
from mitos.cli.unit import SERVICE, SOCKET, Service
from mitos.host import systemd
from mitos.wire.errors import ApiError

__all__ = ["service"]

_OURS = ("addr", "home", "api_key_file", "setup")
"""Options of `serve` that `install` sets itself."""


@click.group()
def service() -> None:
    """Run the server as a service of this machine (systemd)."""


@service.command(context_settings={"ignore_unknown_options": False})
@click.option("--home", type=click.Path(path_type=Path), help="The Mitos home; holds all state.")
@click.option(
    "--addr",
    default=listener.DEFAULT,
    show_default=True,
    metavar="HOST:PORT",
    help="Where systemd listens for the server.",
)
@click.option(
    "--api-key-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with the bearer key that callers need; only root may be able to read it.",
)
@click.option(
    "--now/--no-now", default=True, show_default=True, help="Start it at once, not only at boot."
)
@click.option(
    "--setup/--no-setup",
    default=True,
    show_default=True,
    help="Install the system's packages that build templates, where they are missing.",
)
@click.option("--print", "only_print", is_flag=True, help="Only say what would be written.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[-- SERVE_OPTION...]")
def install(
    home: Path | None,
    addr: str,
    api_key_file: Path | None,
    options: tuple[str, ...],
    *,
    now: bool,
    setup: bool,
    only_print: bool,
) -> None:
    """Write mitos.service and mitos.socket, and start them.

    What stands after -- goes to `mitos serve`. Run it again to change something: sandboxes go on.
    """
    wanted = _wanted(home, addr, api_key_file, options)
    if only_print:
        for name, text in (
            (SERVICE, unit.service_text(wanted)),
            (SOCKET, unit.socket_text(wanted)),
        ):
            click.echo(f"# {systemd.UNITS / name}\n{text}")
        return
    _need_systemd("install a service")
    asyncio.run(_install(wanted, now=now, setup=setup))


@service.command()
@click.option("--output", type=click.Choice(["table", "json"]), default="table")
def status(output: str) -> None:
    """Say how the service is. Exit code 1 if it does not serve."""
    found = _installed("ask for a service")
    report = asyncio.run(installation.report(found))
    if output == "json":
        click.echo(json.dumps(asdict(report), indent=2))
    else:
        boot = "starts with the machine" if report.starts_with_machine else "not started at boot"
        click.echo(f"{SERVICE}  {report.service}, {boot}; {report.told or 'has told nothing'}")
        click.echo(f"{SOCKET}   {report.socket}")
        click.echo(f"process        {report.pid or '-'}; restarts: {report.restarts}")
        click.echo(f"address        {report.url}")
        click.echo(f"health         {report.health}")
        count = "unknown" if report.sandboxes is None else report.sandboxes
        click.echo(f"sandboxes      {count}")
    if report.sandboxes is None:
        sys.exit(1)


@service.command()
@click.option("--end", "fate", flag_value="end", help="End the sandboxes that live.")
@click.option(
    "--leave", "fate", flag_value="leave", help="Leave them to the next server of this home."
)
def uninstall(fate: str | None) -> None:
    """Stop the service and remove its units. The home stays as it is.

    Refuses while sandboxes live, unless you say what becomes of them.
    """
    _need_systemd("remove a service")
    found = installation.find()
    asyncio.run(_uninstall(found, fate))


async def _install(wanted: Service, *, now: bool, setup: bool) -> None:
    if setup:
        await set_up(say)
    await installation.install(wanted, now=now, say=say)


async def _uninstall(found: Service | None, fate: str | None) -> None:
    if found is not None and fate != "leave":
        # Only a server knows: one that was stopped may have left sandboxes.
        await installation.start()
        count = await installation.count_sandboxes(found)
        if count and fate is None:
            raise ApiError(
                "invalid_input",
                f"the service has {count} sandbox{'' if count == 1 else 'es'}",
                cause="nobody but a server of its home can reach them",
                remediation="Say what becomes of them: --end ends them, --leave leaves them to the"
                " next server of this home.",
            )
        if count:
            await asyncio.to_thread(_end_sandboxes, found)
    await installation.remove()
    say("removed" if found is not None else "no service was installed")
    if found is not None:
        say(f"the home stays: {found.home}")


def _end_sandboxes(found: Service) -> None:
    from mitos import SandboxServer  # noqa: PLC0415  only needed here

    key = None if found.api_key_file is None else secret.api_key(found.api_key_file)
    for sandbox in SandboxServer(found.url, key).sandboxes():
        sandbox.terminate()


def _wanted(
    home: Path | None, addr: str, api_key_file: Path | None, options: tuple[str, ...]
) -> Service:
    place = listener.parse(addr)
    if place.port == 0:
        raise click.BadParameter("a service needs a port that stays", param_hint="--addr")
    given = serve.make_context("mitos serve", list(options))
    for name in _OURS:
        if given.get_parameter_source(name) is not ParameterSource.DEFAULT:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"give {option} to `mitos service install`, before --")
    if api_key_file is not None:
        secret.api_key(api_key_file)
        api_key_file = api_key_file.absolute()
    listener.refuse_open(
        place.host,
        has_key=api_key_file is not None,
        allow=bool(given.params["allow_unauthenticated"]),
    )
    wanted = Service(
        program=_program(),
        home=(home or settings.home()).absolute(),
        place=place,
        api_key_file=api_key_file,
        options=options,
    )
    try:
        unit.service_text(wanted)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
    return wanted


def _program() -> tuple[str, ...]:
    """The words that start this `mitos`, of this environment."""
    script = Path(sys.executable).parent / "mitos"
    return (str(script),) if script.exists() else (sys.executable, "-m", "mitos.cli.main")


def _installed(purpose: str) -> Service:
    _need_systemd(purpose, root=False)
    found = installation.find()
    if found is None:
        raise ApiError(
            "not_found",
            "no service is installed",
            remediation="Install one: mitos service install",
        )
    return found


def _need_systemd(purpose: str, *, root: bool = True) -> None:
    if not systemd.is_running():
        raise ApiError(
            "internal",
            f"cannot {purpose} here",
            cause="systemd does not run this machine",
            remediation="Have your service manager run `mitos serve --on-stop leave`, or see with"
            " --print what systemd would be given.",
        )
    if root and os.geteuid() != 0:
        raise ApiError(
            "forbidden",
            f"only root may {purpose}",
            remediation="Run it again with sudo.",
        )
