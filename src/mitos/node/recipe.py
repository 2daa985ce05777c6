"""What a template is made of: a base image, build steps, and a warm-up. Values only.

A recipe has a content key, chained: the base's content, then each step over the key before it, then
the warm-up with all else that a snapshot depends on. A changed part makes a new key for itself and
for what comes after it, an unchanged beginning keeps its keys.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from mitos.engine.base import MachineSpec
from mitos.host.rootfs import RootKind
from mitos.images.image import Image
from mitos.wire.workload import Workload

__all__ = ["Recipe", "Step", "WarmUp", "layer_key", "snapshot_key"]


@dataclass(frozen=True, slots=True)
class Step:
    """A shell command that changes the base's files, run as root in `/workspace`."""

    run: str


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What is done in the booted machine before it is snapshotted, after the steps.

    Attributes:
        kernels: languages whose code kernel is started, where the image has it.
        preload: Python modules that the code kernel imports.
        workload: a program that is started, or None.
    """

    kernels: tuple[str, ...] = ("python",)
    preload: tuple[str, ...] = ()
    workload: Workload | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a template's snapshot is made.

    Attributes:
        base: the image that the root filesystem comes from.
        steps: run in this order.
        warm_up: the state that every sandbox starts from.
    """

    base: Image
    steps: tuple[Step, ...] = ()
    warm_up: WarmUp = WarmUp()


def layer_key(base_key: str, steps: Sequence[Step]) -> str:
    """The key of the base's content after the steps; without steps the base's own key.

    Args:
        base_key: hash of the root filesystem's content.
        steps: each is hashed with the key before it.
    """
    key = base_key
    for step in steps:
        key = hashlib.sha256(f"{key}\0run\0{step.run}".encode()).hexdigest()[:32]
    return key


def snapshot_key(layer: str, spec: MachineSpec, warm_up: WarmUp, snapshot_format: str) -> str:
    """The key of a snapshot: everything it depends on.

    Args:
        layer: the key of the files, as from `layer_key`.
        spec: what the machine is made of.
        warm_up: what was done in it.
        snapshot_format: names the engine and version that can read it.
    """
    warm = asdict(warm_up)
    if warm_up.kernels == WarmUp().kernels:
        del warm["kernels"]  # the key from before recipes named their kernels
    kind = spec.rootfs.kind
    parts = {
        **({} if kind is RootKind.FOLDER else {"rootfs_kind": kind.value}),
        "rootfs": layer,
        "guest": spec.guest.name,
        "resources": asdict(spec.resources),
        "environment": dict(spec.environment),
        "warm_up": warm,
        "format": snapshot_format,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
