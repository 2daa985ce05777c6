from __future__ import annotations

from pathlib import Path

import pytest

from mitos.images.image import ArchiveImage, DebianImage, DirectoryImage
from mitos.node.recipe import Step
from mitos.node.template.catalog import RecipeCatalog, RecipeNotFoundError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "templates.toml"


def test_the_built_in_images_need_no_file(file: Path) -> None:
    catalog = RecipeCatalog(file)

    assert catalog.names() == ["base", "data", "node", "python"]
    python = catalog.find("python").base
    assert isinstance(python, DebianImage)
    assert {"python3", "python3-pip", "git", "curl", "ca-certificates"} <= set(python.packages)


def test_an_unknown_name_is_answered_with_the_known_ones(file: Path) -> None:
    with pytest.raises(RecipeNotFoundError, match="'nope'; there are base, data, node, python"):
        RecipeCatalog(file).find("nope")


def test_the_file_adds_folders_archives_and_package_lists(file: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    file.write_text(
        '[templates.mine]\nrootfs = "tree"\n'
        '[templates.packed]\nrootfs = "/srv/packed.tar.gz"\n'
        '[templates.science]\npackages = ["python3", "python3-numpy"]\n'
    )
    catalog = RecipeCatalog(file)

    assert catalog.names() == ["base", "data", "mine", "node", "packed", "python", "science"]
    assert catalog.find("mine").base == DirectoryImage("mine", tmp_path / "tree")
    assert catalog.find("packed").base == ArchiveImage("packed", Path("/srv/packed.tar.gz"))
    assert catalog.find("science").base == DebianImage("science", ("python3", "python3-numpy"))


def test_any_image_may_preload_modules(file: Path) -> None:
    file.write_text(
        '[templates.mine]\nrootfs = "x.tar"\npreload = ["numpy", "scipy.stats"]\n'
        '[templates.science]\npackages = ["python3"]\npreload = ["json"]\n'
    )

    assert RecipeCatalog(file).find("mine").warm_up.preload == ("numpy", "scipy.stats")
    assert RecipeCatalog(file).find("science").warm_up.preload == ("json",)


def test_any_image_may_have_build_steps(file: Path) -> None:
    file.write_text('[templates.mine]\nrootfs = "x.tar"\nrun = ["useradd ada", "touch /done"]\n')

    assert RecipeCatalog(file).find("mine").steps == (Step("useradd ada"), Step("touch /done"))


def test_the_file_can_replace_a_built_in_image(file: Path) -> None:
    file.write_text('[templates.python]\npackages = ["python3-minimal"]\n')

    assert RecipeCatalog(file).find("python").base == DebianImage("python", ("python3-minimal",))


def test_an_edit_counts_at_once(file: Path) -> None:
    catalog = RecipeCatalog(file)
    assert "mine" not in catalog.names()

    file.write_text('[templates.mine]\nrootfs = "x.tar"\n')

    assert "mine" in catalog.names()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[templates.x", "cannot be read"),
        ("[image.x]\nrootfs = 'y'", "unknown key 'image'"),
        ("templates = 3", "templates.NAME"),
        ("[templates.x]", "one key"),
        ("[templates.x]\nrootfs = 'y'\npackages = ['z']", "one key"),
        ("[templates.x]\nrootfs = 3", "path"),
        ("[templates.x]\nrootfs = ''", "path"),
        ("[templates.x]\npackages = 'vim'", "list"),
        ("[templates.x]\npackages = ['--force']", "not a Debian package name"),
        ("[templates.x]\npackages = ['vim,evil']", "not a Debian package name"),
        ("[templates.'../x']\nrootfs = 'y'", "letters"),
        ("templates.x = 3", "one key"),
        ("[templates.x]\npreload = ['numpy']", "one key"),
        ("[templates.x]\nrootfs = 'y'\nrun = 'true'", "list of shell commands"),
        ("[templates.x]\nrootfs = 'y'\nrun = ['']", "not a shell command"),
        ("[templates.x]\nrootfs = 'y'\npreload = 'numpy'", "list of Python modules"),
        ("[templates.x]\nrootfs = 'y'\npreload = ['os; evil']", "not the name of a Python module"),
    ],
)
def test_a_faulty_file_is_named_with_what_is_wrong(file: Path, text: str, named: str) -> None:
    file.write_text(text)
    catalog = RecipeCatalog(file)

    with pytest.raises(RecipeNotFoundError, match=named) as caught:
        catalog.find("python")

    assert str(file) in str(caught.value)
    assert catalog.names() == ["base", "data", "node", "python"]


def test_a_file_that_is_not_text_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(RecipeNotFoundError, match="cannot be read"):
        RecipeCatalog(file).find("python")
