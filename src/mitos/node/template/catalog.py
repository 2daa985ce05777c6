"""The recipes a node knows by name: the built-in ones and those of its configuration file.

`<home>/templates.toml` adds templates, or replaces built-in ones:

    [templates.my-tools]
    rootfs = "/srv/my-tools"            # a folder with a root filesystem
    [templates.alpine]
    rootfs = "images/alpine.tar.gz"     # or a tar archive; relative to the file
    [templates.science]
    packages = ["python3", "python3-scipy"]   # or Debian packages
    run = ["useradd -m ada"]            # with any of them: shell commands, run as root, in order
    preload = ["scipy.stats"]           # and what `run_code` has imported already

The file is read at every look-up, so an edit counts for the next template.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from mitos.images.image import ArchiveImage, DebianImage, DirectoryImage, Image
from mitos.node.recipe import Recipe, Step, WarmUp

__all__ = ["BUILT_IN", "CONFIGURATION_NAME", "RecipeCatalog", "RecipeNotFoundError"]

CONFIGURATION_NAME = "templates.toml"

_KEYS = ("rootfs", "packages", "run", "preload")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_CONFIGURATION_LIMIT_BYTES = 1 << 20

# ca-certificates and curl everywhere, since fetching something is what people try first; procps for
# ps and kill.
_EVERYWHERE = ("ca-certificates", "curl", "procps")

_PYTHON = (*_EVERYWHERE, "git", "python3", "python3-pip", "python3-venv")
_DATA = (*_PYTHON, "python3-matplotlib", "python3-numpy", "python3-pandas")

BUILT_IN: Mapping[str, Recipe] = {
    recipe.base.name: recipe
    for recipe in (
        Recipe(DebianImage("base", _EVERYWHERE)),
        Recipe(DebianImage("python", _PYTHON)),
        Recipe(
            DebianImage("data", _DATA),
            warm_up=WarmUp(preload=("numpy", "pandas", "matplotlib.pyplot")),
        ),
        # npm brings its own dependencies from Debian; python3 is there for the code kernel.
        Recipe(DebianImage("node", (*_EVERYWHERE, "git", "nodejs", "npm", "python3"))),
    )
}
"""The recipes that need no configuration."""


class RecipeNotFoundError(LookupError):
    """No recipe has that name, or the configuration file that might define it cannot be used."""


class RecipeCatalog:
    """Finds recipes by name.

    Args:
        configuration: the file with further recipes; it need not exist.
    """

    def __init__(self, configuration: Path) -> None:
        self._configuration = configuration

    def names(self) -> list[str]:
        """The names of all recipes, sorted; only the built-in ones if the file is unusable."""
        try:
            return sorted(self._all())
        except RecipeNotFoundError:
            return sorted(BUILT_IN)

    def find(self, name: str) -> Recipe:
        """The recipe of that name.

        Raises:
            RecipeNotFoundError: there is none, or the configuration file is faulty; the message
                says which names there are, or what is wrong in the file.
        """
        recipes = self._all()
        if name not in recipes:
            raise RecipeNotFoundError(
                f"no image is named {name!r}; there are {', '.join(sorted(recipes))}"
            )
        return recipes[name]

    def _all(self) -> dict[str, Recipe]:
        return {**BUILT_IN, **self._configured()}

    def _configured(self) -> dict[str, Recipe]:
        file = self._configuration
        try:
            with file.open("rb") as stream:
                text = stream.read(_CONFIGURATION_LIMIT_BYTES).decode()
            content = tomllib.loads(text)
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
            raise RecipeNotFoundError(f"{file} cannot be read: {exc}") from exc
        try:
            return parse_recipes(content, file.parent)
        except ValueError as exc:
            raise RecipeNotFoundError(f"{file}: {exc}") from exc


def parse_recipes(content: Mapping[str, object], directory: Path) -> dict[str, Recipe]:
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
    return {name: _parse_recipe(name, table, directory) for name, table in tables.items()}


def _parse_recipe(name: str, table: object, directory: Path) -> Recipe:
    where = f"[templates.{name}]"
    if not _NAME.fullmatch(name):
        raise ValueError(f"{where}: a name has 1 to 63 letters, digits, '.', '_' or '-'")
    bases = ({"rootfs"}, {"packages"})
    unknown = sorted(set(table) - set(_KEYS)) if isinstance(table, dict) else []
    if unknown:
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}")
    if not isinstance(table, dict) or set(table) - {"run", "preload"} not in bases:
        raise ValueError(
            f"{where} needs one key: rootfs, or packages; run and preload may stand beside it"
        )
    return Recipe(
        base=_parse_base(where, name, table, directory),
        steps=_parse_steps(where, table.get("run", [])),
        warm_up=WarmUp(preload=_parse_preload(where, table.get("preload", []))),
    )


def _parse_base(where: str, name: str, table: dict[str, object], directory: Path) -> Image:
    if "packages" in table:
        return DebianImage(name, _parse_packages(where, table["packages"]))
    rootfs = table["rootfs"]
    if not isinstance(rootfs, str) or not rootfs:
        raise ValueError(f"{where}: rootfs is the path of a folder or a tar archive")
    path = directory / rootfs
    kind = DirectoryImage if path.is_dir() else ArchiveImage
    return kind(name, path)


def _parse_steps(where: str, commands: object) -> tuple[Step, ...]:
    if not isinstance(commands, list):
        raise ValueError(f"{where}: run is a list of shell commands")
    for command in commands:
        if not isinstance(command, str) or not command or "\0" in command:
            raise ValueError(f"{where}: {command!r} is not a shell command")
    return tuple(map(Step, commands))


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
