"""The life of the process behind `mitos serve`: make the node, listen, serve until told to stop.

`serve` reads the command line and hands over checked `Options`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import click

from mitos.cli.heartbeat import Heartbeat, beating
from mitos.cli.listener import Place, is_loopback, open_socket
from mitos.cli.setup import set_up
from mitos.engine import select
from mitos.engine.facts import Isolation
from mitos.engine.kind import EngineSettings
from mitos.host import priority
from mitos.host.service_manager import ServiceManager
from mitos.node.node import Node, RunningNode
from mitos.node.principal import LOCAL
from mitos.node.settings import NodeSettings, OnStop
from mitos.server import app
from mitos.server.http import server as http
from mitos.server.settings import PreviewSettings, ServerSettings
from mitos.server.watchdog import watch_loop
from mitos.wire.errors import ApiError

__all__ = ["Options", "run", "say"]


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for, checked."""

    place: Place
    manager: ServiceManager
    home: Path
    scratch: Path
    engine: str
    sets_up: bool
    api_key: str | None = field(repr=False)
    preview_origin: str | None
    idle_timeout_s: int
    guest_forks: int
    on_stop: OnStop
    preview_secret: bytes = field(repr=False)
    allowed_hosts: tuple[str, ...]
    allowed_origins: tuple[str, ...]
    port_file: Path | None
    prepare: tuple[str, ...]


async def run(options: Options) -> None:
    """Serves until Ctrl-C or SIGTERM; sandboxes have ended then, sleep or go on, as was asked.

    Raises:
        ApiError: the address is taken, the engine cannot run here, or a template cannot be made.
        asyncio.CancelledError: told to stop before it was ready.
    """
    this = asyncio.current_task()
    assert this is not None
    _on_stop(this.cancel)
    _raise_file_limit()
    listener = open_socket(options.place)
    workers = ThreadPoolExecutor(thread_name_prefix="worker", initializer=priority.as_usual)
    asyncio.get_running_loop().set_default_executor(workers)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(contextlib.closing(listener))
        stack.enter_context(priority.first())
        stack.enter_context(watch_loop())
        heartbeat = await stack.enter_async_context(beating(options.manager))
        if options.sets_up and select.find(options.engine).facts.isolation is not Isolation.NONE:
            await set_up(say)
        node = await _node(options).start()
        try:
            templates = node.tenant(LOCAL).templates
            for name in options.prepare:
                await templates.create(name, progress=say)
            await _serve_until_told(node, listener, heartbeat, options)
        except BaseException:
            # What ends by itself, or does not even begin, must cost nobody a sandbox.
            await node.close(OnStop.LEAVE)
            raise
        await node.close()


def say(line: str) -> None:
    """Tells who started the server something."""
    click.echo(f"mitos: {line}", err=True)


def _node(options: Options) -> Node:
    settings = EngineSettings(options.home, options.scratch)
    engine = select.find(options.engine).open(settings)
    return Node(
        NodeSettings(
            home=options.home,
            scratch=options.scratch,
            idle_timeout_s=options.idle_timeout_s,
            guest_forks=options.guest_forks,
            on_stop=options.on_stop,
        ),
        engine,
    )


async def _serve_until_told(
    node: RunningNode, listener: socket.socket, heartbeat: Heartbeat, options: Options
) -> None:
    host, port = listener.getsockname()[:2]
    base_url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    server_settings = ServerSettings(
        base_url=base_url,
        api_key=options.api_key,
        is_mock=node.engine.facts.isolation is Isolation.NONE,
        allowed_hosts=options.allowed_hosts,
        allowed_origins=options.allowed_origins,
        preview=_preview_settings(options, port),
    )
    stop = asyncio.Event()
    _on_stop(stop.set)
    listener.listen(http.BACKLOG)
    # What is there now stays. Going through it all again and again would hold up the loop.
    gc.collect()
    gc.freeze()
    if options.port_file is not None:
        _tell_port(options.port_file, port)
    say(f"listening on {base_url}")
    heartbeat.ready(node.count_sandboxes)

    async def end_requests() -> None:
        say("stopping")
        heartbeat.stopping()
        await node.close()

    await http.run(
        app.build(node, server_settings),
        listener,
        max_connections=server_settings.max_connections,
        stop=stop.wait,
        end_requests=end_requests,
    )


def _tell_port(path: Path, port: int) -> None:
    try:
        path.write_text(f"{port}\n")
    except OSError as exc:
        raise ApiError(
            "internal",
            f"the port cannot be written to {path}",
            cause=str(exc),
            remediation="Give another file with --port-file.",
        ) from exc


def _on_stop(action: Callable[[], object]) -> None:
    """What Ctrl-C, SIGTERM and the end of the terminal do from now on."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup(1) has it
        numbers.append(signal.SIGHUP)
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, action)


def _raise_file_limit() -> None:
    """A sandbox takes about five descriptors, a connection one: the usual 1024 are soon gone."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _preview_settings(options: Options, port: int) -> PreviewSettings | None:
    """On loopback previews need no setting: browsers find every name under `localhost` here."""
    origin = options.preview_origin
    if origin is None and is_loopback(options.place.host):
        origin = f"http://localhost:{port}"
    return None if origin is None else PreviewSettings(origin, options.preview_secret)
