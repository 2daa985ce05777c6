"""The images a node knows by name: the built-in ones and those of its configuration file.

`<home>/templates.toml` adds images, or replaces built-in ones:

    [templates.my-tools]
    rootfs = "/srv/my-tools"            # a folder with a root filesystem
    [templates.alpine]
    rootfs = "images/alpine.tar.gz"     # or a tar archive; relative to the file
    [templates.science]
    packages = ["python3", "python3-scipy"]   # or Debian packages
    preload = ["scipy.stats"]           # with any of them: what `run_code` has imported already

The file is read at every look-up, so an edit counts for the next template.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from mitos.images.image import ArchiveImage, DebianImage, DirectoryImage, Image

__all__ = ["BUILT_IN", "CONFIGURATION_NAME", "ImageCatalog", "ImageNotFoundError"]

CONFIGURATION_NAME = "templates.toml"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_CONFIGURATION_LIMIT_BYTES = 1 << 20

# ca-certificates and curl everywhere, since fetching something is what people try first; procps for
# ps and kill.
_EVERYWHERE = ("ca-certificates", "curl", "procps")

_PYTHON = (*_EVERYWHERE, "git", "python3", "python3-pip", "python3-venv")

BUILT_IN: Mapping[str, Image] = {
    image.name: image
    for image in (
        DebianImage("base", _EVERYWHERE),
        DebianImage("python", _PYTHON),
        DebianImage(
            "data",
            (*_PYTHON, "python3-matplotlib", "python3-numpy", "python3-pandas"),
            preload=("numpy", "pandas", "matplotlib.pyplot"),
        ),
        # npm brings its own dependencies from Debian; python3 is there for the code kernel.
        DebianImage("node", (*_EVERYWHERE, "git", "nodejs", "npm", "python3")),
    )
}
"""The images that need no configuration."""


class ImageNotFoundError(LookupError):
    """No image has that name, or the configuration file that might define it cannot be used."""


class ImageCatalog:
    """Finds images by name.

    Args:
        configuration: the file with further images; it need not exist.
    """

    def __init__(self, configuration: Path) -> None:
        self._configuration = configuration

    def names(self) -> list[str]:
        """The names of all images, sorted; only the built-in ones if the file is unusable."""
        try:
            return sorted(self._all())
        except ImageNotFoundError:
            return sorted(BUILT_IN)

    def find(self, name: str) -> Image:
        """The image of that name.

        Raises:
            ImageNotFoundError: there is none, or the configuration file is faulty; the message
                says which names there are, or what is wrong in the file.
        """
        images = self._all()
        if name not in images:
            raise ImageNotFoundError(
                f"no image is named {name!r}; there are {', '.join(sorted(images))}"
            )
        return images[name]

    def _all(self) -> dict[str, Image]:
        return {**BUILT_IN, **self._configured()}

    def _configured(self) -> dict[str, Image]:
        file = self._configuration
        try:
            with file.open("rb") as stream:
                text = stream.read(_CONFIGURATION_LIMIT_BYTES).decode()
            content = tomllib.loads(text)
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
            raise ImageNotFoundError(f"{file} cannot be read: {exc}") from exc
        try:
            return parse_images(content, file.parent)
        except ValueError as exc:
            raise ImageNotFoundError(f"{file}: {exc}") from exc


def parse_images(content: Mapping[str, object], directory: Path) -> dict[str, Image]:
    """Reads the tables of a configuration file.

    Args:
        content: the parsed file.
        directory: what relative paths are relative to.

    Raises:
        ValueError: something in it is not as documented; the message names it.
    """
    unknown = sorted(set(content) - {"templates"})
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; templates go into [templates.NAME]")
    tables = content.get("templates", {})
    if not isinstance(tables, dict):
        raise ValueError("templates go into [templates.NAME]")
    return {name: _parse_image(name, table, directory) for name, table in tables.items()}


def _parse_image(name: str, table: object, directory: Path) -> Image:
    where = f"[templates.{name}]"
    if not _NAME.fullmatch(name):
        raise ValueError(f"{where}: a name has 1 to 63 letters, digits, '.', '_' or '-'")
    if not isinstance(table, dict) or set(table) - {"preload"} not in ({"rootfs"}, {"packages"}):
        raise ValueError(f"{where} needs one key: rootfs, or packages; preload may stand beside it")
    preload = _parse_preload(where, table.get("preload", []))
    if "packages" in table:
        return DebianImage(name, _parse_packages(where, table["packages"]), preload)
    if not isinstance(table["rootfs"], str) or not table["rootfs"]:
        raise ValueError(f"{where}: rootfs is the path of a folder or a tar archive")
    path = directory / table["rootfs"]
    kind = DirectoryImage if path.is_dir() else ArchiveImage
    return kind(name, path, preload)


def _parse_preload(where: str, modules: object) -> tuple[str, ...]:
    if not isinstance(modules, list):
        raise ValueError(f"{where}: preload is a list of Python modules")
    for module in modules:
        if not isinstance(module, str) or not _MODULE.fullmatch(module):
            raise ValueError(f"{where}: {module!r} is not the name of a Python module")
    return tuple(modules)


def _parse_packages(where: str, packages: object) -> tuple[str, ...]:
    if not isinstance(packages, list):
        raise ValueError(f"{where}: packages is a list of Debian package names")
    for package in packages:
        if not isinstance(package, str) or not _PACKAGE.fullmatch(package):
            raise ValueError(f"{where}: {package!r} is not a Debian package name")
    return tuple(packages)
