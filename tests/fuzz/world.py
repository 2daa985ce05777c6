"""A server whose contents are the same before every case: what a case names by these names exists.

So a case can be given again by its seed alone, whatever those before it have done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mitos.node.phase import Phase
from mitos.server.settings import PreviewSettings, ServerSettings
from mitos.wire.errors import ApiError
from tests.fuzz.guest import BusyEngine
from tests.server.serving import Server, serving_fake

__all__ = ["CHILD", "KEY", "OTHER", "PARENT", "TEMPLATE", "World", "standing"]

KEY = "fuzz-key-of-this-server"
TEMPLATE = "python"
PARENT, CHILD, OTHER = "parent", "child", "other"

MOST_CHECKPOINTS = 8
MOST_TEMPLATES = 8


class World:
    """What there is on a server.

    Attributes:
        server: the server.
        checkpoint: id of a checkpoint of `PARENT`.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.checkpoint = ""
        self._lives: dict[str, str] = {}

    def stand(self) -> None:
        """Puts back what a case may have taken away, and takes away what it has made."""
        self.server.run(self._stand())

    async def _stand(self) -> None:
        tenant = self.server.tenant
        if len(tenant.templates.records()) > MOST_TEMPLATES:
            for record in tenant.templates.records():
                await tenant.templates.delete(record.id)
        await tenant.templates.create(TEMPLATE)
        for record in tenant.list_sandboxes():
            if record.id not in (PARENT, CHILD, OTHER):
                await tenant.terminate(record.id)
        found = {record.id: record for record in tenant.list_sandboxes()}
        lives = {name: found[name].uid for name in (PARENT, CHILD) if name in found}
        if lives != self._lives or not lives:
            await self._begin()
            return
        for name in (PARENT, CHILD):
            if found[name].phase is not Phase.READY:
                await tenant.resume(name)
        if OTHER not in found:
            await tenant.create(TEMPLATE, OTHER)
        await self._keep_checkpoint()

    async def _begin(self) -> None:
        tenant = self.server.tenant
        for record in tenant.list_sandboxes():
            with contextlib.suppress(ApiError):
                await tenant.terminate(record.id)
        await tenant.create(TEMPLATE, PARENT)
        await tenant.fork(PARENT, [CHILD])
        await tenant.create(TEMPLATE, OTHER)
        self._lives = {
            record.id: record.uid for record in tenant.list_sandboxes() if record.id != OTHER
        }
        await self._keep_checkpoint()

    async def _keep_checkpoint(self) -> None:
        tenant = self.server.tenant
        ids = [record.id for record in tenant.list_checkpoints(PARENT)]
        for extra in ids[MOST_CHECKPOINTS:]:
            tenant.delete_checkpoint(PARENT, extra)
        if not ids:
            ids = [(await tenant.checkpoint(PARENT, "kept")).id]
        self.checkpoint = ids[0]


@contextlib.contextmanager
def standing(folder: Path) -> Iterator[World]:
    """A server with a key, previews, and such a world."""
    previews = PreviewSettings("http://preview.localhost", secret=b"s" * 32)
    settings = ServerSettings(api_key=KEY, preview=previews)
    with serving_fake(folder, settings=settings, engine=BusyEngine()) as server:
        yield World(server)
