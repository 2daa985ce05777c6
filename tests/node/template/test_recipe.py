"""The content key of a recipe, link by link."""

from __future__ import annotations

from pathlib import Path

import pytest

from mitos.engine.base import MachineSpec, Resources
from mitos.host.rootfs import RootFilesystem, RootKind
from mitos.node.recipe import Step, WarmUp, layer_key, snapshot_key
from mitos.wire.workload import Workload

ROOT = RootFilesystem(RootKind.FOLDER, Path("/rootfs"))
SPEC = MachineSpec(ROOT, Path("/guest/abc"), Resources(1, 512))
A, B, C = Step("a"), Step("b"), Step("c")


def key(layer: str = "base", spec: MachineSpec = SPEC, warm_up: WarmUp = WarmUp()) -> str:  # noqa: B008
    return snapshot_key(layer, spec, warm_up, "fake-1")


def test_without_steps_the_key_is_the_bases_own() -> None:
    assert "base" == layer_key("base", [])


def test_each_step_is_chained_over_the_one_before() -> None:
    assert layer_key("base", [A, B]) == layer_key(layer_key("base", [A]), [B])
    assert 5 == len({layer_key("base", steps) for steps in ([], [A], [A, B], [B, A], [A, C])})
    assert layer_key("base", [A]) != layer_key("other", [A])


def test_the_key_of_a_snapshot_from_before_is_unchanged() -> None:
    """Snapshots that a server without recipes made are found again."""
    assert "a654a55cc069fa782b1955aba4411e26" == key()


@pytest.mark.parametrize(
    "other",
    [
        key("other"),
        key(
            spec=MachineSpec(
                RootFilesystem(RootKind.EROFS_IMAGE, ROOT.path), SPEC.guest, SPEC.resources
            )
        ),
        key(spec=MachineSpec(SPEC.rootfs, Path("/guest/def"), SPEC.resources)),
        key(spec=MachineSpec(SPEC.rootfs, SPEC.guest, Resources(1, 1024))),
        key(spec=MachineSpec(SPEC.rootfs, SPEC.guest, SPEC.resources, {"A": "b"})),
        key(warm_up=WarmUp(kernels=("python", "bash"))),
        key(warm_up=WarmUp(preload=("json",))),
        key(warm_up=WarmUp(workload=Workload(("serve",), (), None, 5))),
        snapshot_key("base", SPEC, WarmUp(), "fake-2"),
    ],
)
def test_whatever_a_snapshot_depends_on_is_in_its_key(other: str) -> None:
    assert key() != other
