"""What a message asks to run, with the server's defaults filled in."""

from __future__ import annotations

from dataclasses import dataclass

from mitos.agent.command import ExecRequest, Terminal
from mitos.node.refusal import check_timeout
from mitos.node.tenant import Tenant
from mitos.server.settings import ServerSettings
from mitos.wire._generated.sandbox.v1 import sandbox_pb as pb

__all__ = ["Timeouts", "exec_request"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long something may run, in seconds.

    Attributes:
        exec_s: a command that asks for nothing.
        code_s: a cell that asks for nothing.
        ceiling_s: the most that may be asked for.
    """

    exec_s: int
    code_s: int
    ceiling_s: int

    @classmethod
    def of(cls, settings: ServerSettings, tenant: Tenant) -> Timeouts:
        """Those of a server and its node."""
        return cls(
            exec_s=settings.default_exec_timeout_s,
            code_s=settings.default_code_timeout_s,
            ceiling_s=tenant.settings.max_timeout_s,
        )

    def of_code(self, requested_s: int, sandbox_id: str) -> int:
        """The timeout of a cell.

        Raises:
            ApiError: `timeout_too_large`.
        """
        check_timeout(requested_s, self.ceiling_s, sandbox_id)
        return requested_s if requested_s > 0 else self.code_s

    def of_command(self, requested_s: int, sandbox_id: str, *, terminal: bool) -> int | None:
        """The timeout of a command; one on a terminal that asks for nothing has none.

        Raises:
            ApiError: `timeout_too_large`.
        """
        check_timeout(requested_s, self.ceiling_s, sandbox_id)
        if requested_s > 0:
            return requested_s
        return None if terminal else self.exec_s


def exec_request(
    request: pb.ExecOpen | pb.ExecStreamRequest,
    sandbox_id: str,
    timeouts: Timeouts,
    *,
    stdin: bool,
) -> ExecRequest:
    """The command a message asks for.

    Raises:
        ApiError: `timeout_too_large`.
    """
    terminal = _terminal(request.pty) if isinstance(request, pb.ExecOpen) else None
    return ExecRequest(
        argv=_argv(request, terminal),
        env={variable.key: variable.value for variable in request.env},
        cwd=request.cwd,
        timeout_s=timeouts.of_command(
            request.timeout_seconds, sandbox_id, terminal=terminal is not None
        ),
        stdin=stdin,
        terminal=terminal,
    )


def _argv(request: pb.ExecOpen | pb.ExecStreamRequest, terminal: Terminal | None) -> list[str]:
    if request.args:
        return [request.command, *request.args]
    if terminal is not None and not request.command:
        return ["/bin/sh"]
    return ["/bin/sh", "-c", request.command]


def _terminal(pty: pb.PtyOptions | None) -> Terminal | None:
    if pty is None:
        return None
    default = Terminal()
    size = pty.size
    return Terminal(
        term=pty.term or default.term,
        cols=(size.cols if size else 0) or default.cols,
        rows=(size.rows if size else 0) or default.rows,
    )
