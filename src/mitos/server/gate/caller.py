"""The caller of the request that is being served: set by the gate, read by everything behind it.

It lives in a context variable, because a runtime call's handler never sees the ASGI scope. Each
request runs in a task of its own, so no request sees another one's caller.
"""

from __future__ import annotations

import contextvars
from dataclasses import dataclass

from mitos.node.principal import Principal
from mitos.wire.errors import ApiError
from mitos.wire.preview import Grant

__all__ = ["Caller", "admit", "caller", "other_reach", "principal", "refusal", "refuse"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody whom the gate let in.

    Attributes:
        principal: whose sandboxes the request may see and change.
        grant: the one port that a preview's token or session opens; None for a full caller.
        has_session: the grant is a browser's session, which needs no token any more.
    """

    principal: Principal
    grant: Grant | None = None
    has_session: bool = False

    def check_reach(self, sandbox_id: str, port: int, *, uid: str) -> None:
        """Refuses a port that the caller's grant is not for.

        Args:
            sandbox_id: under which the sandbox is asked for.
            port: what is asked for.
            uid: of the sandbox that has the id now. It may not be the one the grant was made for:
                an ended one's id can be used again, and a promoted child takes its parent's.

        Raises:
            ApiError: `forbidden`.
        """
        grant = self.grant
        if grant is None:
            return
        if (grant.sandbox_id, grant.port) != (sandbox_id, port):
            raise other_reach("it is for another sandbox or port")
        if grant.uid != uid:
            raise other_reach("the sandbox it was made for has ended; another one has its id now")


def other_reach(cause: str) -> ApiError:
    """The refusal of a valid grant for something else."""
    return ApiError(
        "forbidden",
        "the token does not open this port",
        cause=cause,
        remediation="Ask for a new preview URL with get_host.",
    )


_current: contextvars.ContextVar[Caller | ApiError | None] = contextvars.ContextVar("mitos-caller")


def admit(found: Caller | None) -> None:
    """Notes who calls; None for what is open to everybody."""
    _current.set(found)


def refuse(error: ApiError) -> None:
    """Notes that the request is refused, for a front that tells its clients so in its own form."""
    _current.set(error)


def refusal() -> ApiError | None:
    """Why the current request is refused; None when it is not."""
    found = _current.get()
    return found if isinstance(found, ApiError) else None


def caller() -> Caller:
    """Who sent the current request.

    Raises:
        LookupError: nobody was let in: a bug, since what is open to everybody must not ask.
    """
    found = _current.get()
    if not isinstance(found, Caller):
        raise LookupError("the current request has no caller")
    return found


def principal() -> Principal:
    """The principal of a caller that no grant limits.

    Raises:
        LookupError: there is none: a bug, as for `caller`.
    """
    found = caller()
    if found.grant is not None:
        raise LookupError("the current request may only reach a port")
    return found.principal
