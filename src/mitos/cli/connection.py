"""The server that commands about sandboxes talk to; the options come before the command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import update_wrapper
from typing import TYPE_CHECKING, Any

import click

from mitos.cli import settings

if TYPE_CHECKING:
    from mitos import DirectSandbox, SandboxServer

__all__ = ["Connection", "sandbox_path", "with_connection"]


@dataclass(frozen=True, slots=True)
class Connection:
    """What the command line said about the server.

    Attributes:
        url: None for `MITOS_BASE_URL`, or this machine's own server.
        api_key: None for `MITOS_API_KEY`, or the credential file's.
        pool: the template that `run` and `sandbox create` start from.
    """

    url: str | None = None
    api_key: str | None = None
    pool: str = "python"

    def server(self) -> SandboxServer:
        """The server; nothing is sent yet.

        Raises:
            AgentRunError: the URL or the key cannot be used.
        """
        from mitos import SandboxServer  # noqa: PLC0415  keeps `mitos --help` fast

        return SandboxServer.from_auth(self.api_key, self.url or settings.server_url())

    def sandbox(self, sandbox_id: str) -> DirectSandbox:
        """A sandbox that runs there.

        Raises:
            AgentRunError: `not_found`, or the server cannot be reached.
        """
        return self.server().connect(sandbox_id)


def with_connection(command: Callable[..., Any]) -> Callable[..., Any]:
    """Passes the `Connection` as the command's first argument."""

    @click.pass_context
    def call(context: click.Context, /, *args: Any, **options: Any) -> Any:
        connection = context.find_object(Connection) or Connection()
        return context.invoke(command, connection, *args, **options)

    return update_wrapper(call, command)


def sandbox_path(text: str) -> tuple[str, str]:
    """The two halves of `ID:PATH`.

    Raises:
        click.BadParameter: one of them is missing.
    """
    sandbox_id, _, path = text.partition(":")
    if not sandbox_id or not path:
        raise click.BadParameter(f"{text!r} is not of the form ID:PATH")
    return sandbox_id, path
