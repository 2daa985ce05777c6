"""Roots of both kinds under real sandboxes: what they show inside, and who can change them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mitos.agent.command import ExecRequest
from mitos.engine.base import EngineError
from mitos.host import process
from mitos.host.rootfs import RootFilesystem, RootKind
from mitos.images.image import DebianImage
from mitos.images.store import BuiltImage, ImageStore
from mitos.node.template.catalog import RecipeCatalog
from tests.contract.guest import Client
from tests.engine.gvisor.conftest import Lab
from tests.machine import mitos_home, running_release

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

KINDS = list(RootKind)


@pytest.fixture
async def built(lab: Lab) -> BuiltImage:
    """The root filesystem of the template `base`."""
    image = RecipeCatalog(mitos_home() / "templates.toml").find("base").base
    assert isinstance(image, DebianImage)
    return await ImageStore(mitos_home()).ensure(image, lambda _: None)


async def root_of(kind: RootKind, built: BuiltImage, lab: Lab, folder: Path) -> RootFilesystem:
    """A copy of it that a test may spoil; the image is in the store of the copy's folder."""
    copy = folder / "rootfs" / built.key
    copy.parent.mkdir(parents=True)
    await process.run(["cp", "-a", built.path, copy], timeout_s=60)
    own = BuiltImage(RootFilesystem(RootKind.FOLDER, copy), built.key)
    if kind is RootKind.FOLDER:
        return own.rootfs
    return await ImageStore(folder).seal(own, lab.spec.guest, lambda _: None)


async def run(client: Client, *argv: str) -> tuple[int, str]:
    """Exit code and all output of a command."""
    said = b""
    async with client.agent.exec(ExecRequest(argv, timeout_s=30)) as command:
        async for output in command:
            said += output.data
    assert command.exit is not None
    return command.exit.exit_code, said.decode()


@pytest.mark.parametrize("kind", KINDS)
async def test_links_of_the_root_are_listed_without_an_error(
    kind: RootKind, built: BuiltImage, lab: Lab, tmp_path: Path
) -> None:
    root = await root_of(kind, built, lab, tmp_path / "home")
    client = await lab.boot(replace(lab.spec, rootfs=root))

    _, said = await run(client, "/bin/ls", "-l", "/bin", "/etc/alternatives/awk")

    assert "/bin -> usr/bin" in said
    is_old_program = not running_release().is_own
    assert ("Bad file descriptor" in said) == (is_old_program and kind is RootKind.FOLDER)


@pytest.mark.parametrize("kind", KINDS)
async def test_names_modes_owners_times_and_links_are_those_of_the_folder(
    kind: RootKind, built: BuiltImage, lab: Lab, tmp_path: Path
) -> None:
    root = await root_of(kind, built, lab, tmp_path / "home")
    client = await lab.boot(replace(lab.spec, rootfs=root))
    form = "%p %m %U %G %T@ %l\\n"
    # What an identity writes is each machine's own.
    own = ("-path", "*/etc/hostname", "-o", "-path", "*/etc/machine-id")
    left_out = ("-path", "*/opt/mitos", "-o", "-name", ".*.wh", "-o", *own)
    options = ("-xdev", "(", *left_out, ")", "-prune", "-o")
    listed = ("-type", "f", "-printf", form, "-o", "-type", "l", "-printf", form)

    code, said = await run(client, "/usr/bin/find", "/etc", "/usr", *options, *listed)

    assert code == 0
    here = await process.run(
        ["find", built.path / "etc", built.path / "usr", *options, *listed],
        timeout_s=60,
        output_limit_bytes=64 << 20,
    )
    expected = here.stdout.decode().replace(f"{built.path}/", "/")
    assert sorted(said.splitlines()) == sorted(expected.splitlines())


async def test_the_image_and_the_store_do_not_change_by_what_a_sandbox_does(
    built: BuiltImage, lab: Lab, tmp_path: Path
) -> None:
    root = await root_of(RootKind.EROFS_IMAGE, built, lab, tmp_path / "home")
    before = root.path.read_bytes()
    client = await lab.boot(replace(lab.spec, rootfs=root))

    await client.write("/etc/passwd", b"changed")
    await client.write("/opt/mitos/agent", b"changed")
    assert (await run(client, "/bin/rm", "-rf", "/usr/share"))[0] == 0
    child = await lab.restore(client, lab.folder)

    assert await child.read("/etc/passwd") == b"changed"
    assert root.path.read_bytes() == before
    assert (lab.spec.guest / "agent").read_bytes() != b"changed"
    other = await lab.boot(replace(lab.spec, rootfs=root))
    assert await other.read("/etc/passwd") == (built.path / "etc/passwd").read_bytes()


async def test_nothing_on_the_host_changes_the_root_of_a_running_sandbox(
    built: BuiltImage, lab: Lab, tmp_path: Path
) -> None:
    """The folder is spoiled, the image is replaced and removed, another user tries to write."""
    root = await root_of(RootKind.EROFS_IMAGE, built, lab, tmp_path / "home")
    client = await lab.boot(replace(lab.spec, rootfs=root))
    expected = (built.path / "etc/passwd").read_bytes()
    folder = root.path.with_name(built.key)

    (folder / "etc/passwd").write_bytes(b"spoiled")
    as_nobody = ["setpriv", "--reuid=65534", "--clear-groups", "dd", "if=/dev/null"]
    tried = await process.run([*as_nobody, f"of={root.path}"], timeout_s=10, check=False)
    other = tmp_path / "other"
    other.write_bytes(bytes(1 << 20))
    other.replace(root.path)
    assert await client.read("/etc/passwd") == expected
    root.path.unlink()

    assert tried.exit_code != 0
    assert await client.read("/usr/share/common-licenses/GPL-3")
    assert await client.read("/etc/passwd") == expected


async def test_an_image_needs_no_gofer_and_less_of_the_host(
    built: BuiltImage, lab: Lab, tmp_path: Path
) -> None:
    root = await root_of(RootKind.EROFS_IMAGE, built, lab, tmp_path / "home")
    await lab.boot(replace(lab.spec, rootfs=root))
    found = process.find(f"--root={lab.state / 'runsc'}")
    names = {Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0] for pid in found}

    assert names == {b"runsc-sandbox"}


async def test_a_restore_over_another_image_fails_in_words_and_leaves_nothing(
    built: BuiltImage, lab: Lab, tmp_path: Path
) -> None:
    root = await root_of(RootKind.EROFS_IMAGE, built, lab, tmp_path / "home")
    spec = replace(lab.spec, rootfs=root)
    client = await lab.boot(spec)
    snapshot = await client.checkpoint(lab.engine, lab.folder)
    await client.link.close()
    await lab.engine.destroy(client.machine)
    bare = tmp_path / "bare"
    (bare / "opt/mitos").mkdir(parents=True)
    other = BuiltImage(RootFilesystem(RootKind.FOLDER, bare), "0" * 32)
    image = await ImageStore(tmp_path).seal(other, lab.spec.guest, lambda _: None)
    image.path.replace(root.path)
    blank = await lab.engine.prepare(spec)

    with pytest.raises(EngineError, match="restore"):
        await lab.engine.restore(blank, snapshot)

    assert lab.leftovers.sandboxes() == []
