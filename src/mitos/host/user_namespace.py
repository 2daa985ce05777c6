"""User namespaces, which say who a user inside is outside.

A command that runs in one has its powers over that namespace alone, and its users are those of the
host that the namespace maps them to. The namespace lives for as long as somebody holds it: we by a
descriptor, through which commands enter.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mitos.host import process

__all__ = ["UserNamespace"]

_DEADLINE_S = 10.0
_POLL_S = 0.001


class UserNamespace:
    """A user namespace. Whoever made it must `close` it; what runs inside keeps it then."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    async def make(cls, users: Mapping[int, int]) -> UserNamespace:
        """Makes one.

        Args:
            users: the host's users by those inside; groups are mapped alike. Others do not exist.

        Raises:
            OSError: the host does not allow it, or not with these users.
        """
        try:
            holder = await process.start(["unshare", "--user", "--", "sleep", f"{_DEADLINE_S:g}"])
        except process.CommandError as exc:
            raise OSError(str(exc)) from exc
        try:
            folder = Path(f"/proc/{holder.pid}")
            await _wait_until_inside(folder, holder)
            table = "".join(f"{inside} {outside} 1\n" for inside, outside in users.items())
            for name in ("uid_map", "gid_map"):
                # In one piece, which is all that the host's kernel takes.
                (folder / name).write_text(table)
            namespace = cls(os.open(folder / "ns" / "user", os.O_RDONLY | os.O_CLOEXEC))
        except BaseException:
            await holder.kill()
            raise
        try:
            await holder.kill()
        except BaseException:
            namespace.close()
            raise
        return namespace

    def entering(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs a command of ours inside, as the same user of the host."""
        path = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        return ["nsenter", f"--user={path}", "--preserve-credentials", "--", *argv]

    def close(self) -> None:
        """Lets go of it. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


async def _wait_until_inside(folder: Path, holder: process.Child) -> None:
    ours = Path("/proc/self/ns/user").readlink()
    try:
        async with asyncio.timeout(_DEADLINE_S):
            while (folder / "ns" / "user").readlink() == ours:
                if not holder.is_running:
                    raise PermissionError("the host allows no user namespace")
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise OSError("a user namespace was not made in time") from None
