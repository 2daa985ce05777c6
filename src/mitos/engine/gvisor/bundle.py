"""The OCI configuration of a sandbox, computed from its spec. `sandbox` writes it to disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mitos.engine.base import MachineSpec, Resources
from mitos.host.rootfs import RootKind

__all__ = ["AGENT", "configure"]

AGENT = "/opt/mitos/agent"
_GUEST = "/opt/mitos"
_HOSTNAME = "sandbox"
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the path inside the sandbox

_ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}

# What container engines give by default, and two the agent needs for itself: SYS_ADMIN to set the
# hostname, SYS_PTRACE to look at processes of other users. It keeps those from its children. All of
# it is power over gVisor's kernel, none over the host's.
_CAPABILITIES = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
]

_CPU_PERIOD_US = 100_000
_OPEN_FILES = 65_536

# A program that does nothing takes 0.6 MiB, so as many as there are MiB of memory have room.
_PROCESSES_PER_MIB = 1
# Tasks of the host for each of the guest's processes, and for the kernel itself: measured with 300
# processes, which took 620.
_TASKS_PER_PROCESS = 2
_KERNEL_TASKS = 512
_MIB = 1 << 20


def configure(spec: MachineSpec, *, cgroup: str, empty: Path) -> dict[str, object]:
    """Computes the content of `config.json`.

    Args:
        spec: the machine.
        cgroup: its control group, from the root of the hierarchy, without a leading slash.
        empty: a folder that stands for the root where the real one is an image.
    """
    is_image = spec.rootfs.kind is RootKind.EROFS_IMAGE
    # The gofer opens no path that leads over a symbolic link.
    root = empty if is_image else spec.rootfs.path.resolve()
    return {
        "ociVersion": "1.0.2",
        "hostname": _HOSTNAME,
        "root": {"path": str(root), "readonly": False},
        "annotations": _image_root(spec) if is_image else {},
        "process": _process(spec),
        "mounts": _mounts(spec),
        "linux": {
            "cgroupsPath": f"/{cgroup}",
            "resources": _resources(spec),
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")],
        },
    }


def _image_root(spec: MachineSpec) -> dict[str, str]:
    # What changes is kept in the sandbox's memory, as `--overlay2` says for a folder.
    hints = {"source": str(spec.rootfs.path), "type": "erofs", "overlay": "memory"}
    return {f"dev.gvisor.spec.rootfs.{name}": value for name, value in hints.items()}


def _process(spec: MachineSpec) -> dict[str, object]:
    environment = {**_ENVIRONMENT, **spec.environment}
    # None is inheritable: what the agent keeps for itself would come to its children that way.
    kinds = ("bounding", "effective", "permitted")
    return {
        "user": {"uid": 0, "gid": 0},
        "args": [AGENT],
        "env": [f"{name}={value}" for name, value in environment.items()],
        "cwd": "/",
        "capabilities": dict.fromkeys(kinds, _CAPABILITIES),
        "rlimits": [
            _limit("RLIMIT_NOFILE", _OPEN_FILES),
            _limit("RLIMIT_NPROC", _processes(spec.resources)),
        ],
        "noNewPrivileges": False,
    }


def _processes(limits: Resources) -> int:
    return min(limits.process_limit, limits.memory_mib * _PROCESSES_PER_MIB)


def _limit(name: str, most: int) -> dict[str, object]:
    return {"type": name, "hard": most, "soft": most}


def _mounts(spec: MachineSpec) -> list[dict[str, object]]:
    return [*_own_mounts(), *_guest_mount(spec)]


def _own_mounts() -> list[dict[str, object]]:
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts"},
        {
            "destination": _SHARED_MEMORY,
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["mode=1777"],
        },
    ]


def _guest_mount(spec: MachineSpec) -> list[dict[str, object]]:
    if spec.rootfs.kind is RootKind.EROFS_IMAGE:
        return []
    options = ["rbind", "ro", "nosuid", "nodev"]
    return [{"destination": _GUEST, "type": "bind", "source": str(spec.guest), "options": options}]


def _resources(spec: MachineSpec) -> dict[str, object]:
    limits = spec.resources
    return {
        "memory": {"limit": limits.memory_mib * _MIB},
        "cpu": {"quota": limits.vcpu_count * _CPU_PERIOD_US, "period": _CPU_PERIOD_US},
        # Beyond the guest's own limit, at which its programs are told: at this one it ends.
        "pids": {"limit": _TASKS_PER_PROCESS * _processes(limits) + _KERNEL_TASKS},
    }
