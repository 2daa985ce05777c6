"""Can this machine run gVisor sandboxes? Each check says what was found and what to do about it."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from mitos.engine.base import (
    EngineError,
    EngineFault,
    MachineSpec,
    Probe,
    ProbeCheck,
    Resources,
)
from mitos.engine.gvisor import making, program, release
from mitos.engine.gvisor.place import Place
from mitos.engine.gvisor.release import Release
from mitos.engine.gvisor.runsc import Runsc
from mitos.engine.gvisor.settings import GvisorSettings
from mitos.host import cgroup, process
from mitos.host.cgroup import Hierarchy
from mitos.host.finish import finish
from mitos.host.rootfs import RootFilesystem, RootKind

__all__ = ["Findings", "examine", "unavailable"]

_VERSION_TIMEOUT_S = 10.0
_DAYS_A_MONTH = 30.44

# With 256 the kernel ends before it can say why, with 400 it starts.
_OPEN_FILES = 512


@dataclass(frozen=True, slots=True)
class Findings:
    """What the engine needs to know about this machine.

    Attributes:
        probe: the checks, for people.
        release: of runsc, None when there is none.
        hierarchy: the control groups, None when there are none.
    """

    probe: Probe
    release: Release | None
    hierarchy: Hierarchy | None


async def examine(settings: GvisorSettings) -> Findings:
    """Runs every check that makes sense after the ones before it; leaves nothing behind."""
    checks = [_check_root()]
    found, check = await _check_runsc(settings)
    checks.append(check)
    hierarchy, check = _check_groups()
    checks.append(check)
    if found is not None:
        checks.append(_check_release(found, date.today()))
    checks.append(_check_files())
    if hierarchy is not None and all(item.passed for item in checks if item.required):
        checks.append(await _check_sandbox(settings, hierarchy))
    return Findings(Probe("gvisor", tuple(checks)), found, hierarchy)


def unavailable(probe: Probe) -> EngineError:
    """Makes the error that says why the engine cannot run here."""
    failed = [check for check in probe.checks if check.required and not check.passed]
    return EngineError(
        "gVisor cannot run here: " + "; ".join(check.detail for check in failed),
        fault=EngineFault.UNAVAILABLE,
        remediation=" ".join(check.remediation for check in failed if check.remediation),
    )


def _check_root() -> ProbeCheck:
    is_root, system = os.geteuid() == 0, platform.system()
    if system != "Linux":
        return ProbeCheck("linux as root", False, f"this is {system}", "Use a Linux machine.")
    detail = "running as root" if is_root else f"running as user {os.geteuid()}, not as root"
    remediation = "" if is_root else "Run the server as root: sudo mitos serve"
    return ProbeCheck("linux as root", is_root, detail, remediation)


async def _check_runsc(settings: GvisorSettings) -> tuple[Release | None, ProbeCheck]:
    argv = Runsc(settings.runsc, settings.state).version()
    try:
        said = await process.run(argv, timeout_s=_VERSION_TIMEOUT_S)
    except process.CommandError as exc:
        return None, ProbeCheck("runsc", False, str(exc), program.INSTALL)
    found = release.parse(said.stdout.decode("utf-8", "replace"))
    if found is None:
        detail = f"{settings.runsc} does not say which release it is"
        return None, ProbeCheck("runsc", False, detail, program.INSTALL)
    if not found.is_supported:
        detail = f"runsc {found} is too old; {release.MINIMUM} or later is needed"
        return None, ProbeCheck("runsc", False, detail, program.INSTALL)
    return found, ProbeCheck("runsc", True, f"{settings.runsc} is release {found}")


def _check_groups() -> tuple[Hierarchy | None, ProbeCheck]:
    name, remediation = "control groups", "Mount control groups writable for the server."
    hierarchy = cgroup.detect(Path("/proc/self/mountinfo").read_text())
    if hierarchy is None:
        return None, ProbeCheck(name, False, "no control groups are mounted", remediation)
    missing = hierarchy.missing()
    if missing:
        detail = f"not available to us: {', '.join(missing)}"
        return None, ProbeCheck(name, False, detail, remediation)
    kind = type(hierarchy).__name__.removeprefix("Hierarchy").lower()
    return hierarchy, ProbeCheck(name, True, f"{kind}, with memory, cpu and pids limits")


def _check_files() -> ProbeCheck:
    name, (_, most) = "open files", resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY or most >= _OPEN_FILES:
        return ProbeCheck(name, True, f"a process may have {most}")
    detail = f"a process may have {most} open files, and a sandbox's kernel needs {_OPEN_FILES}"
    remediation = f"Raise the hard limit before you start the server: ulimit -Hn {_OPEN_FILES}."
    return ProbeCheck(name, False, detail, remediation)


def _check_release(found: Release, today: date) -> ProbeCheck:
    """Says which release it is, how old, and what a newer one would give."""
    name, age = "release", f"{found}, {_months(found, today)} months old"
    if not found.is_known:
        detail = f"{age}; not tested with this version of Mitos: a server tries it out first"
        return ProbeCheck(name, False, detail, program.INSTALL, required=False)
    if found.traits.loses:
        detail = f"{age}; with the engine that comes with Mitos, {found.traits.loses}"
        return ProbeCheck(name, False, detail, "Unset MITOS_RUNSC.", required=False)
    return ProbeCheck(name, True, f"{age}, the newest that Mitos was tested with", required=False)


def _months(found: Release, today: date) -> int:
    days = (today - date.fromisoformat(str(found.date))).days
    return max(0, round(days / _DAYS_A_MONTH))


async def _check_sandbox(settings: GvisorSettings, hierarchy: Hierarchy) -> ProbeCheck:
    """Makes a sandbox with an empty root file system and removes it again."""
    name = "a sandbox starts"
    with tempfile.TemporaryDirectory(prefix="mitos-probe-") as folder:
        top = Path(folder)
        for part in ("runsc", "machines", "rootfs", "guest"):
            (top / part).mkdir()
        place = Place(
            settings=settings,
            runsc=Runsc(settings.runsc.resolve(), top / "runsc"),
            machines=top / "machines",
            copies=top / "copies",
            hierarchy=hierarchy,
            group=top.name,
        )
        resources = Resources(vcpu_count=1, memory_mib=128, process_limit=256)
        rootfs = RootFilesystem(RootKind.FOLDER, top / "rootfs")
        spec = MachineSpec(rootfs, top / "guest", resources)
        try:
            await finish(_make_and_remove(spec, place))
        except EngineError as exc:
            return ProbeCheck(name, False, str(exc), program.INSTALL)
        finally:
            with contextlib.suppress(OSError):
                hierarchy.remove(place.group)
    return ProbeCheck(name, True, "its kernel started and ended")


async def _make_and_remove(spec: MachineSpec, place: Place) -> None:
    made = await making.create("probe", spec, place, snapshot_format="")
    await made.destroy()
