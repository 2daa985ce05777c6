"""Which server and key: arguments, environment, credential file, defaults, in that order."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import httpx

from mitos.errors import AgentRunError, UnauthorizedError

__all__ = [
    "DEFAULT_BASE_URL",
    "ENV_API_KEY",
    "ENV_BASE_URL",
    "ENV_CONFIG_DIR",
    "Settings",
    "checked_key",
    "checked_url",
    "resolve",
]

ENV_API_KEY = "MITOS_API_KEY"
ENV_BASE_URL = "MITOS_BASE_URL"
ENV_CONFIG_DIR = "MITOS_CONFIG_DIR"
ENV_GATEWAY_HOST = "MITOS_GATEWAY_SERVICE_HOST"
ENV_GATEWAY_PORT = "MITOS_GATEWAY_SERVICE_PORT"

DEFAULT_BASE_URL = "https://mitos.run"


@dataclass(frozen=True)
class Settings:
    """A server's origin without a trailing slash, and the key for it, or None."""

    base_url: str
    api_key: str | None

    def __repr__(self) -> str:
        return f"Settings(base_url={self.base_url!r})"


def resolve(api_key: str | None, base_url: str | None) -> Settings:
    """Finds server and key.

    Args:
        api_key: wins over `MITOS_API_KEY` and the credential file; an empty text means no key.
        base_url: wins over `MITOS_BASE_URL`, the in-cluster gateway and the hosted default.

    Raises:
        AgentRunError: `missing_base_url` when `base_url` is given and blank.
    """
    return Settings(_base_url(base_url), _api_key(api_key))


def _base_url(argument: str | None) -> str:
    if argument is not None:
        return checked_url(argument)
    if named := os.environ.get(ENV_BASE_URL, "").strip().rstrip("/"):
        return named
    if host := os.environ.get(ENV_GATEWAY_HOST):
        return f"http://{host}:{os.environ.get(ENV_GATEWAY_PORT) or '80'}"
    return DEFAULT_BASE_URL


def checked_url(url: str) -> str:
    """The URL without trailing slashes.

    Raises:
        AgentRunError: `missing_base_url` when it is blank, `invalid_base_url` when it is no URL.
    """
    stripped = url.strip().rstrip("/")
    if not stripped:
        raise AgentRunError(
            "no server to talk to: base_url is empty",
            "missing_base_url",
            remediation=f"Pass base_url, or leave it out and set {ENV_BASE_URL};"
            " a server of your own starts with `mitos serve`.",
        )
    try:
        is_web = httpx.URL(stripped).scheme in ("http", "https")
    except httpx.InvalidURL:
        is_web = False
    if not is_web:
        raise AgentRunError(
            "the server's URL cannot be used",
            "invalid_base_url",
            cause="it is not of the form http://host:port or https://host",
            remediation=f"Correct base_url or {ENV_BASE_URL}, such as http://127.0.0.1:8080.",
        )
    return stripped


def checked_key(key: str | None) -> str | None:
    """The key without white space around it; None when nothing is left.

    Raises:
        UnauthorizedError: it holds characters that no header can carry.
    """
    stripped = (key or "").strip()
    if stripped.isascii() and stripped.isprintable():
        return stripped or None
    raise UnauthorizedError(
        "the API key holds characters that cannot be sent",
        "unauthorized",
        cause="a key is printable ASCII on one line",
        remediation=f"Copy the key again into {ENV_API_KEY} or the api_key argument.",
    )


def _api_key(argument: str | None) -> str | None:
    for found in (argument, os.environ.get(ENV_API_KEY)):
        if found is not None:
            return found or None
    return _token_of_file()


def _token_of_file() -> str | None:
    """The token of the credential file; whatever is wrong with the file means there is none."""
    folder = os.environ.get(ENV_CONFIG_DIR)
    try:
        directory = Path(folder) if folder else Path.home() / ".config" / "mitos"
        content = json.loads((directory / "credentials.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # no home, and nesting without end, are the last
        return None
    token = content.get("token") if isinstance(content, dict) else None
    return token if isinstance(token, str) and token else None
