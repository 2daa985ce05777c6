"""The secrets that a server starts with: the key of its callers, the key of its preview URLs."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

import click

from mitos.cli import settings
from mitos.host import private
from mitos.wire.preview import MIN_SECRET_BYTES

__all__ = ["api_key", "preview_secret"]

MAX_KEY_BYTES = 16 << 10
"""A request's head must have room for the key."""


def api_key(path: Path) -> str:
    """The key in a file, which others must not be able to read, as `ssh` asks it of its keys.

    A pipe is taken as it is: only who may open it knows it.

    Raises:
        click.BadParameter: others may read the file, or it holds no key.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if stat.S_ISREG(found.st_mode) and private.others_may_open(found.st_mode):
                raise _bad_key(
                    f"mode {stat.S_IMODE(found.st_mode):04o} of {path} lets other users of this"
                    f" machine open the key. Run: chmod 600 {shlex.quote(str(path))}"
                )
            held = file.read(MAX_KEY_BYTES + 1)
        key = held.decode("ascii").strip()
    except OSError as exc:
        raise _bad_key(f"{path} cannot be read: {exc}") from exc
    except UnicodeDecodeError:
        raise _bad_key(f"{path} holds more than ASCII text") from None
    if not key:
        raise _bad_key("the file is empty")
    if len(held) > MAX_KEY_BYTES or not key.isprintable():
        raise _bad_key(f"{path} must hold one line of at most {MAX_KEY_BYTES} bytes")
    return key


def preview_secret(home: Path) -> bytes:
    """The key of preview URLs: the environment's, or one of this home's own that is made once.

    Raises:
        click.ClickException: it is too short, or the home cannot be used.
    """
    given = settings.preview_secret()
    if given is not None:
        if len(given.encode()) < MIN_SECRET_BYTES:
            raise click.UsageError(
                f"MITOS_PREVIEW_SECRET needs at least {MIN_SECRET_BYTES} bytes; unset it, and the"
                " server makes its own."
            )
        return given.encode()
    path = home / "preview-secret"
    try:
        secret = private.secret(path)
    except OSError as exc:
        raise click.ClickException(
            f"the home folder {home} cannot be used: {exc}. Give one that this user may write to,"
            " with --home."
        ) from exc
    if len(secret) < MIN_SECRET_BYTES:
        raise click.ClickException(
            f"{path} is damaged. Remove it: the server makes another, and preview URLs of before no"
            " longer work."
        )
    return secret


def _bad_key(text: str) -> click.BadParameter:
    return click.BadParameter(text, param_hint="--api-key-file")
