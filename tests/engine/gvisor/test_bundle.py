from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mitos.engine.base import MachineSpec, Resources
from mitos.engine.gvisor import bundle
from mitos.host.rootfs import RootFilesystem, RootKind


def _configure(process_limit: int = 77, **environment: str) -> Any:
    rootfs = RootFilesystem(RootKind.FOLDER, Path("/images/python"))
    spec = MachineSpec(rootfs, Path("/guest"), Resources(2, 300, process_limit), environment)
    return json.loads(json.dumps(bundle.configure(spec, cgroup="top/box", empty=Path("/empty"))))


def test_limits_are_those_of_the_spec() -> None:
    linux = _configure()["linux"]

    assert linux["cgroupsPath"] == "/top/box"
    assert linux["resources"] == {
        "memory": {"limit": 300 << 20},
        "cpu": {"quota": 200_000, "period": 100_000},
        "pids": {"limit": 2 * 77 + 512},
    }


def test_programs_reach_their_own_limit_of_processes_before_the_sandboxs() -> None:
    limits = _configure()["process"]["rlimits"]

    assert {"type": "RLIMIT_NPROC", "hard": 77, "soft": 77} in limits


def test_small_memory_has_room_for_fewer_processes() -> None:
    config = _configure(process_limit=1024)

    assert {"type": "RLIMIT_NPROC", "hard": 300, "soft": 300} in config["process"]["rlimits"]
    assert config["linux"]["resources"]["pids"] == {"limit": 2 * 300 + 512}


def test_the_agent_is_pid_1_from_a_read_only_mount() -> None:
    config = _configure()

    mounts = {mount["destination"]: mount for mount in config["mounts"]}
    assert config["process"]["args"] == ["/opt/mitos/agent"]
    assert mounts["/opt/mitos"]["source"] == "/guest"
    assert "ro" in mounts["/opt/mitos"]["options"]
    assert [m["source"] for m in config["mounts"] if m["type"] == "bind"] == ["/guest"]


def test_the_environment_has_defaults_that_the_spec_overrides() -> None:
    environment = dict(
        item.split("=", 1) for item in _configure(HOME="/h", A="b=c")["process"]["env"]
    )

    assert environment["HOME"] == "/h"
    assert environment["A"] == "b=c"
    assert environment["LANG"] == "C.UTF-8"
    assert "/usr/bin" in environment["PATH"].split(":")


def test_pid_1_may_set_the_hostname_but_not_load_modules() -> None:
    capabilities = _configure()["process"]["capabilities"]

    assert set(capabilities) == {"bounding", "effective", "permitted"}
    assert "CAP_SYS_ADMIN" in capabilities["effective"]
    assert "CAP_SYS_MODULE" not in capabilities["bounding"]


def test_nothing_of_the_host_shows_in_the_configuration_but_the_two_folders() -> None:
    config = _configure()

    assert config["hostname"] == "sandbox"
    assert config["root"] == {"path": "/images/python", "readonly": False}
    assert {"type": "network"} in config["linux"]["namespaces"]


def test_an_image_is_the_root_by_annotation_and_brings_the_agent() -> None:
    rootfs = RootFilesystem(RootKind.EROFS_IMAGE, Path("/images/python.erofs"))
    spec = MachineSpec(rootfs, Path("/guest"), Resources())
    config: Any = bundle.configure(spec, cgroup="top/box", empty=Path("/empty"))

    assert config["root"]["path"] == "/empty"
    assert config["annotations"] == {
        "dev.gvisor.spec.rootfs.source": "/images/python.erofs",
        "dev.gvisor.spec.rootfs.type": "erofs",
        "dev.gvisor.spec.rootfs.overlay": "memory",
    }
    assert not [mount for mount in config["mounts"] if mount["destination"] == "/opt/mitos"]
