"""Where the sandboxes of one engine live, and who they are on the host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mitos.engine.gvisor.command import CommandControl
from mitos.engine.gvisor.control import Control, SocketControl
from mitos.engine.gvisor.release import traits_of
from mitos.engine.gvisor.runsc import Runsc
from mitos.engine.gvisor.settings import GvisorSettings
from mitos.engine.gvisor.users import User, Users
from mitos.host.cgroup import Hierarchy
from mitos.host.rootfs import RootKind

__all__ = ["Place"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the sandboxes of one engine live.

    Attributes:
        settings: the engine's settings.
        runsc: builds the runtime's command lines.
        machines: folder with one folder per sandbox.
        copies: folder for snapshots of sandboxes that are copied while they are adopted.
        hierarchy: the host's control groups.
        group: the group that holds the sandboxes' own.
        users: who sandboxes are on the host; None where the host has no users for them.
    """

    settings: GvisorSettings
    runsc: Runsc
    machines: Path
    copies: Path
    hierarchy: Hierarchy
    group: str
    users: Users | None = None

    def control_of(self, snapshot_format: str) -> Control:
        """Gives orders to the sandboxes of a release, which may be an earlier one than ours."""
        traits = traits_of(snapshot_format)
        return SocketControl(traits) if traits.has_socket else CommandControl(self.runsc)

    async def user(self, root: RootKind) -> User | None:
        """A user for a sandbox, to be given back; None where it has to be root.

        A folder's files are handed out by a process that must be their owner.

        Raises:
            OSError: there is none.
        """
        if self.users is None or root is RootKind.FOLDER:
            return None
        return await self.users.take()

    def give_back(self, user: User | None) -> None:
        """Takes back the user of a sandbox that is gone."""
        if self.users is not None and user is not None:
            self.users.give_back(user)

    def folder(self, sandbox_id: str) -> Path:
        """The sandbox's folder, also its OCI bundle."""
        return self.machines / sandbox_id

    def cgroup(self, sandbox_id: str) -> str:
        """The sandbox's control group."""
        return f"{self.group}/{sandbox_id}"
