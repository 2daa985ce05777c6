"""Can this machine run gVisor sandboxes? Each check says what was found and what to do about it."""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mitos.engine.base import (
    EngineError,
    EngineFault,
    MachineSpec,
    Probe,
    ProbeCheck,
    Resources,
)
from mitos.engine.gvisor import version
from mitos.engine.gvisor.runsc import Runsc
from mitos.engine.gvisor.sandbox import Place, Sandbox, finish
from mitos.engine.gvisor.settings import GvisorSettings
from mitos.engine.gvisor.version import Version
from mitos.host import cgroup, process
from mitos.host.cgroup import Hierarchy
from mitos.host.rootfs import RootFilesystem, RootKind

__all__ = ["Findings", "examine", "unavailable"]

_VERSION_TIMEOUT_S = 10.0
_INSTALL = "Run scripts/install: it puts a runsc that works under the Mitos home."


@dataclass(frozen=True, slots=True)
class Findings:
    """What the engine needs to know about this machine.

    Attributes:
        probe: the checks, for people.
        version: of runsc, None when there is none.
        hierarchy: the control groups, None when there are none.
    """

    probe: Probe
    version: Version | None
    hierarchy: Hierarchy | None


async def examine(settings: GvisorSettings) -> Findings:
    """Runs every check that makes sense after the ones before it; leaves nothing behind."""
    checks = [_check_root()]
    found, check = await _check_runsc(settings)
    checks.append(check)
    hierarchy, check = _check_groups()
    checks.append(check)
    if found is not None:
        checks.append(_check_socket(found))
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


async def _check_runsc(settings: GvisorSettings) -> tuple[Version | None, ProbeCheck]:
    argv = Runsc(settings.runsc, settings.state).version()
    try:
        said = await process.run(argv, timeout_s=_VERSION_TIMEOUT_S)
    except process.CommandError as exc:
        return None, ProbeCheck("runsc", False, str(exc), _INSTALL)
    found = version.parse(said.stdout.decode("utf-8", "replace"))
    if found is None:
        detail = f"{settings.runsc} does not say which release it is"
        return None, ProbeCheck("runsc", False, detail, _INSTALL)
    if not found.is_supported:
        detail = f"runsc {found} is too old; {version.MINIMUM} or later is needed"
        return None, ProbeCheck("runsc", False, detail, _INSTALL)
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


def _check_socket(found: Version) -> ProbeCheck:
    if found.has_tested_socket:
        return ProbeCheck("runsc control socket", True, "tested for this release", required=False)
    return ProbeCheck(
        "runsc control socket",
        False,
        f"not tested for {found}: orders go over the command line, about 20 ms slower each",
        _INSTALL,
        required=False,
    )


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
            hierarchy=hierarchy,
            group=top.name,
        )
        resources = Resources(vcpu_count=1, memory_mib=128, process_limit=256)
        rootfs = RootFilesystem(RootKind.FOLDER, top / "rootfs")
        spec = MachineSpec(rootfs, top / "guest", resources)
        try:
            await finish(_make_and_remove(spec, place))
        except EngineError as exc:
            return ProbeCheck(name, False, str(exc), _INSTALL)
        finally:
            with contextlib.suppress(OSError):
                hierarchy.remove(place.group)
    return ProbeCheck(name, True, "its kernel started and ended")


async def _make_and_remove(spec: MachineSpec, place: Place) -> None:
    made = await Sandbox.create("probe", spec, place)
    await made.destroy()
