"""How much a sandbox may do for itself."""

from __future__ import annotations

from dataclasses import dataclass

from mitos.wire.errors import ApiError

__all__ = ["Budget"]


@dataclass(slots=True)
class Budget:
    """Forks that a sandbox, and those it made by itself together, may make. They share it.

    Attributes:
        id: names it in the saved state.
        max_forks: children, counted over all their lives.
        forks_used: of these.
    """

    id: str
    max_forks: int
    forks_used: int = 0

    def take_forks(self, count: int) -> None:
        """Uses up `count` forks; `give_back` them if they are not made.

        Raises:
            ApiError: `budget_exhausted`; none is used up.
        """
        left = self.max_forks - self.forks_used
        if count > left:
            raise ApiError(
                "budget_exhausted",
                f"{left} of {self.max_forks} forks from inside are left, {count} were asked for",
                remediation="Fork from outside, or start the server with a larger --guest-forks.",
                context={"dimension": "forks", "remaining": left},
            )
        self.forks_used += count

    def give_back(self, count: int) -> None:
        """Undoes `take_forks`."""
        self.forks_used -= count
