"""The values that calls return and take."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from mitos.background import BackgroundProcess
    from mitos.errors import AgentRunError

_Sandbox = TypeVar("_Sandbox")

__all__ = [
    "BackgroundProcess",
    "Checkpoint",
    "CommandInfo",
    "ExecResult",
    "Execution",
    "ExecutionError",
    "FileDiff",
    "FileEvent",
    "FileInfo",
    "ForkInfo",
    "ForkPolicy",
    "Forked",
    "Kin",
    "Network",
    "PoolStatus",
    "Result",
    "SandboxInfo",
    "SandboxPhase",
]


class ForkPolicy(str, enum.Enum):
    """What a child of a fork does with something its source has.

    Example:
        >>> ForkPolicy.FRESH == "Fresh"
        True
    """

    FRESH = "Fresh"
    SHARE = "Share"
    CLONE = "Clone"
    SNAPSHOT = "Snapshot"


class SandboxPhase(str, enum.Enum):
    """Where a sandbox is in its life.

    Example:
        >>> SandboxPhase("Ready") is SandboxPhase.READY
        True
    """

    PENDING = "Pending"
    RESTORING = "Restoring"
    READY = "Ready"
    TERMINATING = "Terminating"
    FAILED = "Failed"


@dataclass
class ExecResult:
    """A command that ended.

    Attributes:
        exit_code: the program's; -1 when a signal killed it.
        stdout: its output, decoded as UTF-8 with replacement.
        stderr: its error output, likewise.
        exec_time_ms: wall time in milliseconds, measured by the server.

    Example:
        >>> sb.exec("echo hello; exit 3").exit_code
        3
    """

    exit_code: int
    stdout: str
    stderr: str
    exec_time_ms: float = 0.0


@dataclass
class ExecutionError:
    """An exception that a cell raised; `traceback` is its formatted lines.

    Example:
        >>> sb.run_code("1/0").error.name
        'ZeroDivisionError'
    """

    name: str
    value: str
    traceback: list[str] = field(default_factory=list)


@dataclass
class Result:
    """One thing a cell showed: MIME types to payloads. Images are base64 text.

    Example:
        >>> sb.run_code("6 * 7").results[0].text
        '42'
    """

    data: dict[str, str] = field(default_factory=dict)
    is_main_result: bool = False

    @property
    def text(self) -> str | None:
        """`text/plain`."""
        return self.data.get("text/plain")

    @property
    def png(self) -> str | None:
        """`image/png`, base64."""
        return self.data.get("image/png")

    @property
    def svg(self) -> str | None:
        """`image/svg+xml`."""
        return self.data.get("image/svg+xml")

    @property
    def html(self) -> str | None:
        """`text/html`."""
        return self.data.get("text/html")

    @property
    def markdown(self) -> str | None:
        """`text/markdown`."""
        return self.data.get("text/markdown")

    @property
    def latex(self) -> str | None:
        """`text/latex`."""
        return self.data.get("text/latex")

    @property
    def json(self) -> str | None:
        """`application/json`, as text."""
        return self.data.get("application/json")

    @property
    def chart(self) -> str | None:
        """A Vega-Lite chart's JSON text, else a Vega chart's."""
        return self.data.get("application/vnd.vegalite.v5+json") or self.data.get(
            "application/vnd.vega.v5+json"
        )


def _empty_logs() -> dict[str, list[str]]:
    return {"stdout": [], "stderr": []}


@dataclass
class Execution:
    r"""A cell that ended.

    Attributes:
        text: the last expression's value as text, or None.
        logs: what was printed, in pieces, under `stdout` and `stderr`.
        results: everything shown, in order.
        error: the exception the cell raised, or None.

    Example:
        >>> found = sb.run_code("print('working'); 6 * 7")
        >>> found.text, found.logs["stdout"]
        ('42', ['working\n'])
    """

    text: str | None = None
    logs: dict[str, list[str]] = field(default_factory=_empty_logs)
    results: list[Result] = field(default_factory=list)
    error: ExecutionError | None = None


@dataclass
class FileEvent:
    """Something that changed in a watched folder.

    Attributes:
        kind: `CREATE`, `MODIFY`, `DELETE` or `RENAME`.
        path: what changed.
        new_path: its new name, for `RENAME` only.

    Example:
        >>> with sb.files.watch("/workspace") as changes:
        ...     sb.files.remove("/workspace/plan.txt")
        ...     next(changes).kind
        'DELETE'
    """

    kind: str
    path: str
    new_path: str = ""


@dataclass
class FileInfo:
    """An entry of a directory.

    Attributes:
        name: base name.
        is_dir: True for a directory.
        size: bytes.
        mode: `st_mode`; mask with 0o777 for the permissions.
        modified_at: seconds since 1970 as the server wrote them, usually decimal text.

    Example:
        >>> sb.files.list("/workspace")[0].size
        5
    """

    name: str
    is_dir: bool
    size: int
    mode: int = 0
    modified_at: Any = None


@dataclass
class CommandInfo:
    """A command of a sandbox that can be found again by its id.

    Attributes:
        id: its id.
        command: its arguments, cut when long.
        running: False once it has ended.
        kept: it lives on when nobody reads it.
        output_start: offset of the first byte of output that the sandbox still has.
        output_end: how many bytes of output it has given, both channels together.
        exec_time_ms: how long it has run, or ran.
        exit_code: as in `ExecResult`; None while it runs.
        pid: its process inside the sandbox; 0 once it has ended.
        error: why it never ran, else empty.

    Example:
        >>> job = sb.exec_background("sleep 60")
        >>> sb.commands()[0].running
        True
    """

    id: str
    command: str
    running: bool
    kept: bool
    output_start: int
    output_end: int
    exec_time_ms: float
    exit_code: int | None = None
    pid: int = 0
    error: str = ""


@dataclass
class Network:
    """What a template's sandboxes may reach. Anything left out means deny.

    Attributes:
        block: no egress at all, whatever the rest says.
        egress: `deny` or `allow`, for what nothing else matches.
        allow_domains: `host:port` entries; the host may be `*.suffix`.
        allow_cidrs: address blocks.
        inbound: `deny` or `allow`.
        inbound_cidrs: narrows an inbound `allow`.

    Example:
        >>> Network(allow_domains=["pypi.org:443"]).to_dict()
        {'allow_domains': ['pypi.org:443']}
    """

    block: bool = False
    egress: str = "deny"
    allow_domains: list[str] = field(default_factory=list)
    allow_cidrs: list[str] = field(default_factory=list)
    inbound: str = "deny"
    inbound_cidrs: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The wire form: members that differ from their defaults.

        Example:
            >>> Network().to_dict()
            {}
        """
        members: dict[str, Any] = {}
        if self.block:
            members["block"] = True
        for name in ("egress", "inbound"):
            verdict = getattr(self, name)
            if verdict and verdict != "deny":
                members[name] = verdict
        for name in ("allow_domains", "allow_cidrs", "inbound_cidrs"):
            if entries := getattr(self, name):
                members[name] = list(entries)
        return members


class Forked(list[_Sandbox]):
    """The children of a fork, in the order of their ids.

    Attributes:
        errors: of a partial fork, why an id did not come up; otherwise empty.

    Example:
        >>> children = sb.fork(2, partial=True)
        >>> len(children), children.errors
        (2, {})
    """

    def __init__(
        self, children: Iterable[_Sandbox] = (), errors: dict[str, AgentRunError] | None = None
    ) -> None:
        super().__init__(children)
        self.errors = errors or {}


@dataclass(frozen=True)
class Kin:
    """One life in the family of forks that a sandbox belongs to. Times are unix seconds.

    Attributes:
        uid: names this life; an `id` can be used again.
        parent_uid: the `uid` it was forked from; None for the first.
        phase: as the sandbox's own, or `Ended`.
        ended_at_unix: None while it lives.
        reason: why it ended; None while it lives.

    Example:
        >>> sb.tree()[0].id == sb.id
        True
    """

    uid: str
    id: str
    parent_uid: str | None
    template: str
    created_at_unix: float
    phase: str
    ended_at_unix: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class FileDiff:
    """Absolute paths that differ between two sandboxes, sorted.

    Example:
        >>> (child,) = sb.fork()
        >>> child.files.write("/workspace/new", "")
        >>> sb.diff(child)
        FileDiff(added=['/workspace/new'], removed=[], modified=[])
    """

    added: list[str]
    removed: list[str]
    modified: list[str]


@dataclass(frozen=True)
class Checkpoint:
    """A snapshot kept of a sandbox.

    Attributes:
        id: for `restore`.
        name: the label it was given; may be empty.
        size_bytes: what it takes on the server's disk.

    Example:
        >>> sb.checkpoint("before").name
        'before'
    """

    id: str
    name: str
    created_at: datetime
    size_bytes: int


@dataclass
class SandboxInfo:
    """A sandbox of a cluster, as its object says."""

    name: str
    phase: SandboxPhase
    endpoint: str
    node: str
    sandbox_id: str
    fork_time_ms: float
    pool: str


@dataclass
class ForkInfo:
    """A child of a fork in a cluster."""

    name: str
    sandbox_id: str
    endpoint: str
    node: str
    phase: SandboxPhase
    fork_time_ms: float = 0.0


@dataclass
class PoolStatus:
    """A pool of a cluster: how many snapshots are ready, wanted, and on which node."""

    name: str
    ready_snapshots: int
    desired: int
    node_distribution: dict[str, int] = field(default_factory=dict)


def __getattr__(name: str) -> Any:
    """`BackgroundProcess` is published here, and lives where what it needs can be imported."""
    if name == "BackgroundProcess":
        from mitos.background import BackgroundProcess  # noqa: PLC0415  it imports this module

        return BackgroundProcess
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
