"""`mitos serve`: one machine's sandboxes behind one port. Reads and checks the command line.

`daemon` runs the server.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from pathlib import Path
from urllib.parse import urlsplit

import click

from mitos.cli import daemon, listener, log, secret, settings
from mitos.engine import select
from mitos.host.service_manager import ServiceManager
from mitos.node.settings import OnStop
from mitos.server.gate import host as gate_host
from mitos.server.gate import origin as gate_origin

__all__ = ["serve"]

_MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108  snapshots of live forks: memory-backed, ours by name


@click.command()
@click.option(
    "--addr",
    metavar="HOST:PORT",
    help=f"Where to listen; port 0: a free one.  [default: {listener.DEFAULT}, or the socket that a"
    " service manager gives]",
)
@click.option("--home", type=click.Path(path_type=Path), help="The Mitos home; holds all state.")
@click.option(
    "--engine",
    type=click.Choice([select.AUTO, *select.names()]),
    default=select.AUTO,
    show_default=True,
)
@click.option(
    "--api-key-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with the bearer key that callers need; only you may be able to read it.",
)
@click.option(
    "--allow-unauthenticated",
    is_flag=True,
    help="Serve without a key on an address other machines can reach.",
)
@click.option(
    "--idle-timeout",
    type=click.IntRange(min=0),
    default=0,
    metavar="SECONDS",
    help="End a sandbox without a deadline when nobody used it for so long; 0 means never.",
)
@click.option(
    "--guest-forks",
    type=click.IntRange(min=0),
    default=16,
    show_default=True,
    help="Forks that a sandbox may make from inside, with those it made so; 0 forbids them.",
)
@click.option(
    "--on-stop",
    type=click.Choice([each.value for each in OnStop]),
    help="What becomes of running sandboxes when the server is stopped: they go on until the next"
    " server of this home takes them over, are hibernated, or end.  [default: end; leave under a"
    " service manager]",
)
@click.option(
    "--preview-origin",
    metavar="URL",
    help="Where preview URLs point, such as https://preview.example.com, whose names must all lead"
    " here.  [default on loopback: http://localhost:PORT]",
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Without a key: serve requests under this host name too, beside localhost and addresses.",
)
@click.option(
    "--allow-origin",
    multiple=True,
    metavar="ORIGIN",
    help="Let web pages of this origin call the server, such as https://console.example.com.",
)
@click.option(
    "--prepare", multiple=True, metavar="TEMPLATE", help="Make a template ready before listening."
)
@click.option(
    "--port-file", type=click.Path(path_type=Path), help="Write the port here once listening."
)
@click.option(
    "--scratch",
    type=click.Path(path_type=Path),
    help="Folder for snapshots of live forks; emptied at start.  [default: in /dev/shm]",
)
@click.option(
    "--setup/--no-setup",
    default=True,
    show_default=True,
    help="Install the system's packages that build templates, where they are missing (Debian,"
    " Ubuntu; as root).",
)
def serve(
    addr: str | None,
    home: Path | None,
    engine: str,
    api_key_file: Path | None,
    preview_origin: str | None,
    idle_timeout: int,
    guest_forks: int,
    on_stop: str | None,
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
    prepare: tuple[str, ...],
    port_file: Path | None,
    scratch: Path | None,
    *,
    allow_unauthenticated: bool,
    setup: bool,
) -> None:
    """Run sandboxes on this machine and serve them over HTTP.

    On a loopback address no key is needed. Ctrl-C or SIGTERM stops the server, and does with the
    sandboxes what --on-stop says. If it is killed they go on, and the next one takes them over.
    """
    manager = _service_manager()
    place = listener.choose(addr, manager.given)
    api_key = None if api_key_file is None else secret.api_key(api_key_file)
    listener.refuse_open(place.host, has_key=api_key is not None, allow=allow_unauthenticated)
    home = (home or settings.home()).absolute()
    options = daemon.Options(
        place=place,
        manager=manager,
        home=home,
        scratch=(scratch or _default_scratch(home)).absolute(),
        engine=engine,
        sets_up=setup,
        api_key=api_key,
        preview_origin=_origin(preview_origin),
        idle_timeout_s=idle_timeout,
        guest_forks=guest_forks,
        on_stop=_on_stop(on_stop, manager),
        preview_secret=secret.preview_secret(home),
        allowed_hosts=(place.host, *map(_host_name, allow_host)),
        allowed_origins=tuple(map(_page_origin, allow_origin)),
        port_file=port_file,
        prepare=prepare,
    )
    log.configure()
    try:
        asyncio.run(daemon.run(options))
    except asyncio.CancelledError:
        daemon.say("stopped before it was ready")
        sys.exit(1)


def _service_manager() -> ServiceManager:
    try:
        return settings.service_manager()
    except (OSError, ValueError) as exc:
        raise click.UsageError(f"the service manager's variables cannot be used: {exc}") from exc


def _on_stop(asked: str | None, manager: ServiceManager) -> OnStop:
    if asked is not None:
        return OnStop(asked)
    # A terminal may itself be below a service, whose variables it has.
    is_service = manager.is_present and not sys.stderr.isatty()
    return OnStop.LEAVE if is_service else OnStop.END


def _origin(text: str | None) -> str | None:
    if text is None:
        return None
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise click.BadParameter(
            "must be SCHEME://DOMAIN[:PORT], such as https://preview.example.com",
            param_hint="--preview-origin",
        )
    return f"{parts.scheme}://{parts.netloc}"


def _host_name(text: str) -> str:
    host = gate_host.parse(text)
    if host is None or host.port is not None:
        raise click.BadParameter(
            "must be a host name without a port, such as box.example.com", param_hint="--allow-host"
        )
    return host.name


def _page_origin(text: str) -> str:
    if gate_origin.parse(text) is None:
        raise click.BadParameter(
            "must be SCHEME://HOST[:PORT], such as https://console.example.com",
            param_hint="--allow-origin",
        )
    return text


def _default_scratch(home: Path) -> Path:
    """A folder in memory, one for each home: two servers must not empty each other's."""
    if not _MEMORY_FOLDER.is_dir():
        return home / "scratch"
    return _MEMORY_FOLDER / f"mitos-{hashlib.sha256(bytes(home)).hexdigest()[:12]}"
