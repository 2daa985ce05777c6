"""`mitos serve`: one machine's sandboxes behind one port."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import logging
import os
import resource
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click

from mitos.cli import settings
from mitos.engine.base import Engine
from mitos.engine.fake import FakeEngine
from mitos.engine.gvisor import GvisorEngine, GvisorSettings
from mitos.host import install
from mitos.images.catalog import CONFIGURATION_NAME, ImageCatalog
from mitos.images.store import ImageStore
from mitos.node.node import Node
from mitos.node.settings import NodeSettings
from mitos.server import app, http
from mitos.server.settings import PreviewSettings, ServerSettings
from mitos.wire.errors import ApiError
from mitos.wire.preview import MIN_SECRET_BYTES

__all__ = ["serve"]

_log = logging.getLogger(__name__)

_MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108  snapshots of live forks: memory-backed, ours by name


@dataclass(frozen=True, slots=True)
class _Options:
    """What the command line asked for, checked."""

    host: str
    port: int
    home: Path
    scratch: Path
    engine: str
    api_key: str | None
    preview_origin: str | None
    idle_timeout_s: int
    guest_forks: int
    preview_secret: bytes
    port_file: Path | None
    prepare: tuple[str, ...]


@click.command()
@click.option(
    "--addr", default="127.0.0.1:8080", show_default=True, help="HOST:PORT; port 0: a free one."
)
@click.option("--home", type=click.Path(path_type=Path), help="The Mitos home; holds all state.")
@click.option(
    "--engine", type=click.Choice(["auto", "gvisor", "fake"]), default="auto", show_default=True
)
@click.option(
    "--api-key-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with the bearer key that callers need.",
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
    "--preview-origin",
    metavar="URL",
    help="Where preview URLs point, such as https://preview.example.com, whose names must all lead"
    " here.  [default on loopback: http://localhost:PORT]",
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
def serve(
    addr: str,
    home: Path | None,
    engine: str,
    api_key_file: Path | None,
    preview_origin: str | None,
    idle_timeout: int,
    guest_forks: int,
    prepare: tuple[str, ...],
    port_file: Path | None,
    scratch: Path | None,
    *,
    allow_unauthenticated: bool,
) -> None:
    """Run sandboxes on this machine and serve them over HTTP.

    On a loopback address no key is needed. Ctrl-C or SIGTERM ends all sandboxes and the server.
    """
    host, port = _address(addr)
    api_key = _key(api_key_file)
    if api_key is None and not allow_unauthenticated and not _is_loopback(host):
        raise click.UsageError(
            f"{host} can be reached by other machines, and no key is set: anybody could run"
            " commands here. Give --api-key-file, or say --allow-unauthenticated."
        )
    home = (home or settings.home()).absolute()
    options = _Options(
        host=host,
        port=port,
        home=home,
        scratch=(scratch or _default_scratch(home)).absolute(),
        engine=engine,
        api_key=api_key,
        preview_origin=_origin(preview_origin),
        idle_timeout_s=idle_timeout,
        guest_forks=guest_forks,
        preview_secret=_preview_secret(home),
        port_file=port_file,
        prepare=prepare,
    )
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="time=%(asctime)s level=%(levelname)s logger=%(name)s %(message)s",
    )
    try:
        asyncio.run(_run(options))
    except asyncio.CancelledError:
        _say("stopped before it was ready")
        sys.exit(1)


async def _run(options: _Options) -> None:
    this = asyncio.current_task()
    assert this is not None
    _on_stop(this.cancel)
    try:
        listener = http.bind(options.host, options.port)
    except OSError as exc:
        raise ApiError(
            "internal",
            f"cannot listen on {options.host}:{options.port}",
            cause=str(exc),
            remediation="Stop what listens there, or choose another address with --addr.",
        ) from exc
    with contextlib.closing(listener):
        node = _node(options)
        await node.start()
        try:
            for name in options.prepare:
                await node.templates.create(name, progress=_say)
            await _serve_until_told(node, listener, options)
        finally:
            await node.close()


async def _serve_until_told(node: Node, listener: socket.socket, options: _Options) -> None:
    host, port = listener.getsockname()[:2]
    base_url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    server_settings = ServerSettings(
        base_url=base_url,
        api_key=options.api_key,
        is_mock=node.engine.name == FakeEngine.name,
        preview=_preview_settings(options, port),
    )
    stop = asyncio.Event()
    _on_stop(stop.set)
    _raise_file_limit()
    listener.listen(http.BACKLOG)
    if options.port_file is not None:
        options.port_file.write_text(f"{port}\n")
    _say(f"listening on {base_url}")

    async def end_requests() -> None:
        _say("stopping")
        await node.close()

    await http.run(
        app.build(node, server_settings), listener, stop=stop.wait, end_requests=end_requests
    )


def _on_stop(action: Callable[[], object]) -> None:
    """What Ctrl-C and SIGTERM do from now on."""
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, action)


def _raise_file_limit() -> None:
    """A sandbox takes about five descriptors, a connection one: the usual 1024 are soon gone."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _node(options: _Options) -> Node:
    engine: Engine
    if options.engine == "fake":
        engine = FakeEngine()
    else:
        engine = GvisorEngine(
            GvisorSettings(runsc=install.runsc_path(options.home), state=options.home / "run")
        )
    images = ImageStore(options.home, ImageCatalog(options.home / CONFIGURATION_NAME))
    settings = NodeSettings(
        home=options.home,
        scratch=options.scratch,
        idle_timeout_s=options.idle_timeout_s,
        guest_forks=options.guest_forks,
    )
    return Node(settings, engine, images)


def _preview_settings(options: _Options, port: int) -> PreviewSettings | None:
    """On loopback previews need no setting: browsers find every name under `localhost` here."""
    origin = options.preview_origin
    if origin is None and _is_loopback(options.host):
        origin = f"http://localhost:{port}"
    return None if origin is None else PreviewSettings(origin, options.preview_secret)


def _preview_secret(home: Path) -> bytes:
    """The key of preview URLs: the environment's, or one of this home's own that is made once."""
    given = os.environ.get("MITOS_PREVIEW_SECRET")
    if given is not None:
        if len(given.encode()) < MIN_SECRET_BYTES:
            raise click.UsageError(
                f"MITOS_PREVIEW_SECRET needs at least {MIN_SECRET_BYTES} bytes; unset it, and the"
                " server makes its own."
            )
        return given.encode()
    home.mkdir(parents=True, exist_ok=True)
    path = home / "preview-secret"
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(32).encode())
    return path.read_bytes()


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


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65_535:
        raise click.BadParameter("must be HOST:PORT, such as 127.0.0.1:8080", param_hint="--addr")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104  ":8080" means every address


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _key(path: Path | None) -> str | None:
    if path is None:
        return None
    key = path.read_text().strip()
    if not key:
        raise click.BadParameter("the file is empty", param_hint="--api-key-file")
    return key


def _default_scratch(home: Path) -> Path:
    """A folder in memory, one for each home: two servers must not empty each other's."""
    if not _MEMORY_FOLDER.is_dir():
        return home / "scratch"
    return _MEMORY_FOLDER / f"mitos-{hashlib.sha256(bytes(home)).hexdigest()[:12]}"


def _say(line: str) -> None:
    click.echo(f"mitos: {line}", err=True)
