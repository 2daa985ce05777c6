"""What Daytona code passes: which server, what to start, how to run a cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["CodeRunParams", "CreateSandboxBaseParams", "DaytonaConfig"]


class DaytonaConfig:
    """Which server, and its key. `server_url` is the older name of `api_url`.

    Example:
        >>> DaytonaConfig(api_url="http://127.0.0.1:8080").api_url
        'http://127.0.0.1:8080'
    """

    def __init__(
        self,
        api_key: str | None = None,
        api_url: str | None = None,
        server_url: str | None = None,
        target: str | None = None,
        **ignored: Any,  # noqa: ARG002  published
    ) -> None:
        self.api_key = api_key
        self.api_url = server_url if not api_url and server_url is not None else api_url
        self.target = target


class CreateSandboxBaseParams:
    """What to start: an image, else a snapshot, else a language's image.

    `env_vars` and `labels` are kept and not applied.

    Example:
        >>> CreateSandboxBaseParams(language="python").language
        'python'
    """

    def __init__(
        self,
        language: str = "python",
        image: str | None = None,
        snapshot: str | None = None,
        env_vars: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        **ignored: Any,  # noqa: ARG002  published
    ) -> None:
        self.language = language
        self.image = image
        self.snapshot = snapshot
        self.env_vars = dict(env_vars or {})
        self.labels = dict(labels or {})


class CodeRunParams:
    """Arguments and variables of a cell; taken and not applied."""

    def __init__(
        self,
        argv: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        **ignored: Any,  # noqa: ARG002  published
    ) -> None:
        self.argv = argv
        self.env = env
