"""Puts the built engine into the wheel; `scripts/build-wheels` says where it is by variables."""

import os
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Linked statically, so that it runs under any C library.
_PLATFORMS = {
    "amd64": "manylinux2014_x86_64.musllinux_1_1_x86_64",
    "arm64": "manylinux2014_aarch64.musllinux_1_1_aarch64",
}


class BuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the program, its licences, and the tag of its architecture."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        folder = os.environ.get("MITOS_ENGINE_BUILD")
        if not folder:
            raise RuntimeError("the engine is not built: run scripts/build-wheels")
        architecture = os.environ["MITOS_ENGINE_ARCHITECTURE"]
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_PLATFORMS[architecture]}"
        build_data["force_include"] = {
            f"{folder}/mitos-engine": "mitos_engine/mitos-engine",
            f"{folder}/LICENSES.txt": "mitos_engine/LICENSES.txt",
        }
