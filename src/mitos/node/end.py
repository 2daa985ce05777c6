"""Why sandboxes end: one table of reasons, each with its text, used in flight and afterwards."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from mitos.engine.base import MachineEnd
from mitos.wire.errors import ApiError

__all__ = ["EndReason", "EndText", "ended", "reason_of", "text_of", "unknown_sandbox"]


class EndReason(str, enum.Enum):
    """Why a sandbox is no more."""

    TERMINATED = "terminated"  # its user ended it
    DEADLINE = "deadline"  # its deadline passed, or it was idle for too long
    OUT_OF_MEMORY = "out_of_memory"
    HOST_MEMORY = "host_memory"  # the host had no memory left, and it had grown most
    PROCESS_LIMIT = "process_limit"
    EXITED = "exited"
    LOST = "lost"
    FILES_LOST = "files_lost"
    PROTOCOL = "protocol"  # what came from its agent broke the document of the link
    UNRESPONSIVE = "unresponsive"  # its machine is there, but its agent cannot be used any more
    SERVER_STOPPED = "server_stopped"
    HOST_RESTARTED = "host_restarted"
    UNREADABLE = "unreadable"  # hibernated by a server whose snapshots this one cannot read


@dataclass(frozen=True, slots=True)
class EndText:
    """What users are told of an end.

    Attributes:
        cause: what happened, after "because".
        remediation: what to do.
    """

    cause: str
    remediation: str = "Create a new sandbox."


_TEXTS = {
    EndReason.TERMINATED: EndText("it was terminated"),
    EndReason.OUT_OF_MEMORY: EndText(
        "it reached its memory limit of {memory_mib} MiB and was killed",
        "Create the template with a larger resources.mem_size_mib; files count as memory too.",
    ),
    EndReason.HOST_MEMORY: EndText(
        "its host had no memory left, and of all sandboxes it had grown most",
        "Run fewer sandboxes at the same time, or hibernate those that wait.",
    ),
    EndReason.PROCESS_LIMIT: EndText(
        "its processes and threads together went over the limit for the whole sandbox",
        "Start fewer at the same time, or spread them over several sandboxes.",
    ),
    EndReason.EXITED: EndText(
        "its first process ended",
        "Create a new sandbox; do not kill process 1.",
    ),
    EndReason.LOST: EndText(
        "the process that ran it on the host was killed or crashed",
        "Create a new sandbox and look at the logs of the server and the host.",
    ),
    EndReason.FILES_LOST: EndText(
        "the process that served its files on the host was killed or crashed",
        "Create a new sandbox and look at the logs of the server and the host.",
    ),
    EndReason.PROTOCOL: EndText(
        "what came from its agent was not what an agent says",
        "Create a new sandbox; do not write to the standard output of process 1.",
    ),
    EndReason.UNRESPONSIVE: EndText(
        "its agent ended its link to the server",
        "Create a new sandbox and look at the server's log.",
    ),
    EndReason.SERVER_STOPPED: EndText("its server was stopped"),
    EndReason.HOST_RESTARTED: EndText(
        "its host was restarted while it ran",
        "Create a new sandbox. Those that are hibernated outlive a restart of their host.",
    ),
    EndReason.UNREADABLE: EndText("it was hibernated, and this server cannot read its snapshot"),
}

_OF_MACHINE = {
    MachineEnd.OUT_OF_MEMORY: EndReason.OUT_OF_MEMORY,
    MachineEnd.PROCESS_LIMIT: EndReason.PROCESS_LIMIT,
    MachineEnd.EXITED: EndReason.EXITED,
    MachineEnd.LOST: EndReason.LOST,
    MachineEnd.FILES_LOST: EndReason.FILES_LOST,
    MachineEnd.HOST_RESTARTED: EndReason.HOST_RESTARTED,
    MachineEnd.DESTROYED: EndReason.TERMINATED,
}


def reason_of(end: MachineEnd) -> EndReason:
    """The reason of a sandbox whose machine ended so."""
    return _OF_MACHINE[end]


def text_of(reason: EndReason, *, memory_mib: int) -> EndText:
    """What users are told of an end other than `DEADLINE`, which has an error of its own.

    Args:
        reason: why it ended.
        memory_mib: the memory limit it had.
    """
    text = _TEXTS[reason]
    return replace(text, cause=text.cause.format(memory_mib=memory_mib))


def ended(sandbox_id: str, reason: EndReason, *, memory_mib: int) -> ApiError:
    """The error for a sandbox that has ended.

    Args:
        sandbox_id: its id.
        reason: why it ended.
        memory_mib: its memory limit.
    """
    context = {"sandbox": sandbox_id}
    if reason is EndReason.DEADLINE:
        message = f"sandbox {sandbox_id} ended at its deadline"
        return ApiError("idle_timeout", message, context=context)
    text = text_of(reason, memory_mib=memory_mib)
    return ApiError(
        "not_found",
        f"sandbox {sandbox_id} has ended",
        cause=text.cause,
        remediation=text.remediation,
        context=context,
    )


def unknown_sandbox(sandbox_id: str) -> ApiError:
    """The error for an id that no sandbox has, or had lately."""
    return ApiError(
        "not_found", f"no sandbox named {sandbox_id!r}", context={"sandbox": sandbox_id}
    )
