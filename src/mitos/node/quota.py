"""How much one owner may have on a node, and the refusal of more. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from mitos.wire.errors import ApiError

__all__ = ["Quota"]


@dataclass(frozen=True, slots=True)
class Quota:
    """An owner's bounds.

    Attributes:
        sandboxes: living ones.
        checkpoints: of one sandbox.
        checkpoint_bytes: disk space of all checkpoints together; 0 means no limit.
    """

    sandboxes: int
    checkpoints: int
    checkpoint_bytes: int

    def check_sandboxes(self, count: int) -> None:
        """Refuses more sandboxes than allowed.

        Raises:
            ApiError: `quota_exceeded`.
        """
        if count > self.sandboxes:
            raise ApiError(
                "quota_exceeded",
                f"this server runs at most {self.sandboxes} sandboxes",
                context={"dimension": "sandboxes", "limit": self.sandboxes},
            )

    def check_checkpoints(self, count: int) -> None:
        """Refuses more checkpoints of one sandbox than allowed.

        Raises:
            ApiError: `quota_exceeded`.
        """
        if count > self.checkpoints:
            message = f"a sandbox keeps at most {self.checkpoints} checkpoints"
            raise _full("checkpoints", self.checkpoints, message)

    def check_checkpoint_bytes(self, size: int) -> None:
        """Refuses larger checkpoints than allowed.

        Raises:
            ApiError: `quota_exceeded`.
        """
        if 0 < self.checkpoint_bytes < size:
            limit_mib = self.checkpoint_bytes >> 20
            message = f"checkpoints take at most {limit_mib} MiB together"
            raise _full("checkpoint_bytes", self.checkpoint_bytes, message)


def _full(dimension: str, limit: int, message: str) -> ApiError:
    return ApiError(
        "quota_exceeded",
        message,
        remediation="Delete checkpoints that are no longer needed, then try again.",
        context={"dimension": dimension, "limit": limit},
    )
