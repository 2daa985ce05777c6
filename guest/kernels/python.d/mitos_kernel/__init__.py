"""What a cell can ask of its kernel, as `import mitos_kernel`."""

from ._fork import after_fork, reseed_after_fork

__all__ = ["after_fork", "reseed_after_fork"]
