"""How the agent's answers become results: the fields of a `CLOSE`, or the error it stands for."""

from __future__ import annotations

import errno

from mitos.agent.stream import Closed, UnresponsiveError
from mitos.engine.base import HostProcess
from mitos.wire.errors import ApiError, ConnectCode
from mitos.wire.link import Fields, Status, Tag

__all__ = ["check", "check_identified", "overdue", "shown", "signal_error", "unresponsive"]

_CONNECT_OF_ERRNO = {
    errno.EACCES: ConnectCode.PERMISSION_DENIED,
    errno.EPERM: ConnectCode.PERMISSION_DENIED,
    errno.EROFS: ConnectCode.PERMISSION_DENIED,
    errno.ENOTDIR: ConnectCode.FAILED_PRECONDITION,
    errno.EISDIR: ConnectCode.FAILED_PRECONDITION,
    errno.ENOTEMPTY: ConnectCode.FAILED_PRECONDITION,
    errno.EEXIST: ConnectCode.FAILED_PRECONDITION,
    errno.ELOOP: ConnectCode.FAILED_PRECONDITION,
    errno.EBUSY: ConnectCode.FAILED_PRECONDITION,
    errno.ENXIO: ConnectCode.FAILED_PRECONDITION,
    errno.ENAMETOOLONG: ConnectCode.INVALID_ARGUMENT,
    errno.ENOSPC: ConnectCode.RESOURCE_EXHAUSTED,
    errno.EDQUOT: ConnectCode.RESOURCE_EXHAUSTED,
    errno.ENOBUFS: ConnectCode.RESOURCE_EXHAUSTED,
    errno.ENOMEM: ConnectCode.RESOURCE_EXHAUSTED,
    errno.EFBIG: ConnectCode.RESOURCE_EXHAUSTED,
}
"""What the errno of a file operation means on the wire; anything else is internal."""

_CAUSE_OF_SILENCE = {
    None: "its agent is stopped, or kept from running",
    HostProcess.KERNEL: "the process that runs it on the host is stopped",
    HostProcess.FILES: "the process that serves its files on the host is stopped",
}


def check(closed: Closed, path: str) -> Fields:
    """The fields of a stream that ended well; `path` is for error texts.

    Raises:
        ApiError: it did not.
    """
    if closed.status is Status.OK:
        return closed.fields
    if closed.status is Status.INVALID:
        raise _invalid(closed)
    if closed.status is Status.CANCELED:
        raise ApiError("canceled", "the operation was canceled")
    message = closed.fields.get_text(Tag.MESSAGE) or "the operation failed"
    number = closed.fields.get_uint(Tag.ERRNO)
    if closed.status is Status.UNAVAILABLE:
        raise ApiError("too_many_streams", message)
    if number == errno.ENOENT:
        raise ApiError(
            "not_found",
            f"no such file or directory: {path!r}",
            cause=message,
            remediation="Check the path; list its folder with files.list.",
            context={"path": path},
        )
    raise ApiError(
        "file_failed",
        f"the file operation on {path!r} failed",
        cause=message,
        context={"path": path},
        connect=_CONNECT_OF_ERRNO.get(number, ConnectCode.INTERNAL),
    )


def check_identified(closed: Closed) -> Fields:
    """The fields of an `IDENTIFY` that was applied.

    Raises:
        ApiError: it was not; the machine must not be served.
    """
    if closed.status is not Status.FAILED:
        return check(closed, "")
    cause = shown(closed.fields.get_text(Tag.MESSAGE))
    if hook := shown(closed.fields.get_text(Tag.PATH)):
        raise ApiError(
            "exec_failed",
            f"{hook} failed in the forked sandbox, which was destroyed",
            cause=cause,
            remediation="Correct or remove that executable in the sandbox, then fork again.",
        )
    raise ApiError(
        "internal",
        "the sandbox did not take its new identity and was destroyed",
        cause=cause,
        remediation="Read the cause: what the sandbox it came from does stands in the way.",
    )


def signal_error(number: int, pid: int) -> ApiError:
    """The error for a signal that the agent did not send; `number` is its errno."""
    if number == errno.ESRCH:
        return ApiError(
            "not_found",
            f"no process {pid} in this sandbox",
            remediation="Look the id up with Processes; the process may have ended.",
            context={"pid": str(pid)},
        )
    return ApiError(
        "invalid_input",
        f"process {pid} belongs to the agent and cannot be signalled",
        remediation="Signal the command it watches over: the process whose parent it is.",
        context={"pid": str(pid)},
        connect=ConnectCode.PERMISSION_DENIED,
    )


def unresponsive(error: UnresponsiveError, sandbox_id: str = "") -> ApiError:
    """The error for a sandbox that is there and does not answer."""
    return ApiError(
        "canceled",
        f"sandbox {sandbox_id} does not answer" if sandbox_id else "the sandbox does not answer",
        cause=_CAUSE_OF_SILENCE[error.stopped],
        remediation="It is kept and answers again when it runs. Try again, or terminate it.",
        context={"sandbox": sandbox_id} if sandbox_id else None,
        status=503,
        connect=ConnectCode.UNAVAILABLE,
    )


def overdue() -> ApiError:
    """The error for work whose agent did not end it at its deadline."""
    return ApiError(
        "exec_timeout",
        "the deadline has passed, and the sandbox's agent did not end the work",
        remediation="Look at what the sandbox does: something keeps its agent from running.",
    )


def shown(name: str) -> str:
    """A name as protobuf can carry it: bytes that are not UTF-8 become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _invalid(closed: Closed) -> ApiError:
    return ApiError(
        "invalid_input",
        "the sandbox refused the request",
        cause=closed.fields.get_text(Tag.MESSAGE),
    )
