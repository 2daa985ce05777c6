"""What this machine can run: one check per line of `mitos doctor`.

Each check looks, changes nothing, and says what to do about what it found. What an engine needs is
the engine's own knowledge: its probe is asked.
"""

from __future__ import annotations

import enum
import importlib.util
import platform
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mitos.engine import select
from mitos.engine.base import Probe, ProbeCheck
from mitos.engine.facts import Facts, Isolation
from mitos.engine.kind import EngineSettings
from mitos.host import disk
from mitos.images import guest, tools
from mitos.images.store import ImageBuildError, ImageStore
from mitos.images.tools import Tool
from mitos.node.template.catalog import CONFIGURATION_NAME, RecipeCatalog, RecipeNotFoundError

__all__ = ["Check", "Status", "examine"]

_MIB = 1 << 20
_GIB = 1 << 30
# A template takes about 0.3 GiB on disk, and a build as much again while it runs.
_DISK_NEEDED_BYTES = _GIB
_DISK_WANTED_BYTES = 5 * _GIB
# The server and one sandbox of the default size; four of them with room to spare.
_MEMORY_NEEDED_BYTES = 768 * _MIB
_MEMORY_WANTED_BYTES = 3 * _GIB

_SERVER_MODULES = ("connectrpc", "protobuf", "starlette", "uvicorn")
_INSTALL = "Run: scripts/install"


class Status(enum.Enum):
    """How a check came out."""

    PASS = "pass"  # noqa: S105 - not a password
    WARN = "warn"  # Mitos works, but less well or not for everything
    FAIL = "fail"  # the server cannot run sandboxes


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        status: how it came out.
        detail: what was found.
        remediation: the command or action that fixes it, empty when nothing is wrong.
    """

    name: str
    status: Status
    detail: str
    remediation: str = ""


async def examine(home: Path, *, port: int) -> list[Check]:
    """Runs every check.

    Args:
        home: the Mitos home; need not exist.
        port: the one the server would listen on.
    """
    engine = select.find(select.AUTO).open(EngineSettings(home))
    probe = await engine.probe()
    return [
        _check_python(),
        _check_server_modules(),
        _check_agent(),
        *engine_checks(probe),
        _check_kvm(engine.facts),
        check_disk(disk.free_bytes(_existing(home)), home),
        check_memory(Path("/proc/meminfo").read_text()),
        *map(check_tool, tools.TOOLS),
        await check_templates(home),
        check_port(port),
    ]


def engine_checks(probe: Probe) -> list[Check]:
    """An engine's own checks, with its name in front."""
    return [_engine_check(probe.engine, check) for check in probe.checks]


def check_disk(free_bytes: int, home: Path) -> Check:
    """Room for root filesystems and snapshots."""
    detail = f"{free_bytes / _GIB:.1f} GiB free for {home}"
    remediation = "Free some space, or point MITOS_HOME at a larger disk."
    status = _grade(free_bytes, _DISK_NEEDED_BYTES, _DISK_WANTED_BYTES)
    return Check("disk", status, detail, "" if status is Status.PASS else remediation)


def check_memory(meminfo: str) -> Check:
    """Memory that sandboxes could take; `meminfo` is the text of /proc/meminfo."""
    rows = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    words = rows.get("MemAvailable", "").split()
    if not words or not words[0].isdigit():
        return Check("memory", Status.WARN, "the kernel does not say how much is available")
    available = int(words[0]) * 1024
    status = _grade(available, _MEMORY_NEEDED_BYTES, _MEMORY_WANTED_BYTES)
    remediation = "" if status is Status.PASS else "End other programs, or use a larger machine."
    return Check("memory", status, f"{available / _GIB:.1f} GiB available", remediation)


async def check_templates(home: Path) -> Check:
    """Which root filesystems are built."""
    name = "templates"
    catalog, store = RecipeCatalog(home / CONFIGURATION_NAME), ImageStore(home)
    try:
        images = [catalog.find(each).base for each in catalog.names()]
        built = [image.name for image in images if await store.find(image) is not None]
    except (RecipeNotFoundError, ImageBuildError) as exc:
        return Check(name, Status.FAIL, str(exc), f"Correct {CONFIGURATION_NAME}.")
    if not built:
        detail = "none is built yet; the first sandbox would wait for it"
        return Check(name, Status.WARN, detail, "Run: mitos template build python")
    return Check(name, Status.PASS, f"built: {', '.join(built)}")


def check_port(port: int) -> Check:
    """Whether a server could listen on loopback."""
    name = f"port {port}"
    try:
        with socket.create_server(("127.0.0.1", port)):
            return Check(name, Status.PASS, "free on 127.0.0.1")
    except OSError as exc:
        remediation = "If that is not your Mitos server, use: mitos serve --addr 127.0.0.1:PORT"
        return Check(name, Status.WARN, f"cannot listen on 127.0.0.1: {exc}", remediation)


def check_tool(tool: Tool) -> Check:
    """Whether the system has a program that images are made with."""
    name, found = Path(tool.name).name, tool.find()
    if found:
        return Check(name, Status.PASS, found)
    remediation = f"Run: {tools.install_command([tool])}"
    return Check(name, Status.WARN, f"missing: {tool.without}", remediation)


def _engine_check(engine: str, check: ProbeCheck) -> Check:
    status = Status.PASS
    if not check.passed:
        status = Status.FAIL if check.required else Status.WARN
    return Check(f"{engine}: {check.name}", status, check.detail, check.remediation)


def _check_python() -> Check:
    version = platform.python_version()
    if sys.version_info >= (3, 11):  # noqa: UP036 - the SDK alone installs on 3.10
        return Check("python", Status.PASS, version)
    return Check("python", Status.FAIL, version, "The server needs Python 3.11 or later.")


def _check_server_modules() -> Check:
    missing = [name for name in _SERVER_MODULES if not _is_installed(name)]
    if not missing:
        return Check("server packages", Status.PASS, "installed")
    detail = f"missing: {', '.join(missing)}"
    return Check("server packages", Status.FAIL, detail, "Run: pip install 'mitos-run[server]'")


def _check_agent() -> Check:
    with tempfile.TemporaryDirectory(prefix="mitos-doctor-") as work:
        try:
            guest.materialize(Path(work))
        except (OSError, RuntimeError) as exc:
            return Check("guest agent", Status.FAIL, str(exc), "Run: scripts/build-agent")
    return Check("guest agent", Status.PASS, f"built for {platform.machine()}")


def _check_kvm(facts: Facts) -> Check:
    """Says whether it is there. An engine that needs it looks for itself whether it works."""
    detail = "present" if Path("/dev/kvm").exists() else "absent"
    if facts.isolation is not Isolation.VIRTUAL_MACHINE:
        detail += f"; the {facts.title} engine does not need it"
    return Check("/dev/kvm", Status.PASS, detail)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _grade(amount: int, needed: int, wanted: int) -> Status:
    if amount < needed:
        return Status.FAIL
    return Status.PASS if amount >= wanted else Status.WARN


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(folder for folder in [path, *path.parents] if folder.is_dir())
