"""`mitos template`: which templates there are, and building their root filesystems ahead of time.

The server builds what a template still lacks when it is first asked for; this does the long part
before. A template's snapshot belongs to an engine, so the server makes it.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from mitos.cli import settings
from mitos.cli.progress import Steps
from mitos.cli.setup import set_up
from mitos.images import tree
from mitos.images.image import Image
from mitos.images.store import ImageBuildError, ImageStore
from mitos.node.template.catalog import CONFIGURATION_NAME, RecipeCatalog, RecipeNotFoundError

__all__ = ["template"]

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class _Row:
    """One template as `ls` shows it."""

    name: str
    source: str
    built: bool
    size_mib: int
    problem: str


@click.group()
def template() -> None:
    """List templates and build their root filesystems."""


@template.command("ls")
@click.option("--home", type=click.Path(path_type=Path), help="The Mitos home.")
@click.option("--output", type=click.Choice(["table", "json"]), default="table")
def list_templates(home: Path | None, output: str) -> None:
    """List the templates this machine knows."""
    home = home or settings.home()
    rows = asyncio.run(_rows(home))
    if output == "json":
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    table = Table("NAME", "MADE FROM", "BUILT", box=None)
    for row in rows:
        built = f"{row.size_mib} MiB" if row.built else row.problem or "no"
        table.add_row(row.name, row.source, built)
    Console(highlight=False, markup=False).print(table)


@template.command("build")
@click.argument("names", nargs=-1, required=True)
@click.option("--home", type=click.Path(path_type=Path), help="The Mitos home.")
@click.option("--fresh", is_flag=True, help="Build again, for example for security updates.")
def build(names: tuple[str, ...], home: Path | None, *, fresh: bool) -> None:
    """Build the root filesystems of templates that have none yet."""
    asyncio.run(_build(home or settings.home(), names, fresh=fresh))


def _catalog(home: Path) -> RecipeCatalog:
    return RecipeCatalog(home / CONFIGURATION_NAME)


async def _rows(home: Path) -> list[_Row]:
    catalog, store = _catalog(home), ImageStore(home)
    return [await _row(store, _find(catalog, name)) for name in catalog.names()]


async def _row(store: ImageStore, image: Image) -> _Row:
    try:
        found = await store.find(image)
    except ImageBuildError as exc:
        return _Row(image.name, image.source, built=False, size_mib=0, problem=str(exc))
    size = 0 if found is None else await asyncio.to_thread(tree.size_bytes, found.path)
    built = found is not None
    return _Row(image.name, image.source, built=built, size_mib=size // _MIB, problem="")


async def _build(home: Path, names: tuple[str, ...], *, fresh: bool) -> None:
    catalog, store = _catalog(home), ImageStore(home)
    images = [_find(catalog, name) for name in names]
    make = store.rebuild if fresh else store.ensure
    await set_up(lambda line: click.echo(line, err=True))
    for image in images:
        try:
            with Steps() as steps:
                await make(image, steps)
        except ImageBuildError as exc:
            raise click.ClickException(str(exc)) from exc
        click.echo(f"{image.name}: ready", err=True)


def _find(catalog: RecipeCatalog, name: str) -> Image:
    try:
        return catalog.find(name).base
    except RecipeNotFoundError as exc:
        raise click.ClickException(str(exc)) from exc
