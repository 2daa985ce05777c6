"""Which git repositories of a workspace are kept, and with which credentials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mitos.errors import AgentRunError

__all__ = ["GitSpec", "coerce_git", "git"]


@dataclass
class GitSpec:
    """Repositories of a workspace, checked when it is made.

    Attributes:
        paths: folders of repositories, at least one.
        credentials_secret: name and key of the secret that holds the password, or None.
        credentials_username: only beside a secret.

    Raises:
        AgentRunError: `invalid_git_paths` or `invalid_git_credentials`; the value itself is not in
            the error.

    Example:
        >>> GitSpec(["/workspace/app"]).to_spec()
        {'paths': ['/workspace/app']}
    """

    paths: Sequence[str]
    credentials_secret: tuple[str, str] | None = None
    credentials_username: str | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.paths, (list, tuple)) and self.paths and _all_named(self.paths)):
            raise AgentRunError(
                "git paths must be a non-empty list of paths",
                "invalid_git_paths",
                remediation='Pass a list such as ["/workspace/app"].',
            )
        self.paths = list(self.paths)
        secret, username = self.credentials_secret, self.credentials_username
        is_pair = isinstance(secret, (list, tuple)) and len(secret) == 2 and _all_named(secret)
        has_username = isinstance(username, str) and bool(username.strip())
        if (secret is not None and not is_pair) or (username is not None and not has_username):
            raise _bad_credentials("a secret is a pair of name and key, a username is a text")
        if username is not None and secret is None:
            raise _bad_credentials("a username needs a secret beside it")

    def to_spec(self) -> dict[str, Any]:
        """The member `spec.git` of a workspace.

        Example:
            >>> GitSpec(["github.com/o/r"]).to_spec()
            {'paths': ['github.com/o/r']}
        """
        spec: dict[str, Any] = {"paths": list(self.paths)}
        if self.credentials_secret is not None:
            name, key = self.credentials_secret
            spec["credentialsSecretRef"] = {"name": name, "key": key}
        if self.credentials_username is not None:
            spec["credentialsUsername"] = self.credentials_username
        return spec


def git(
    paths: Sequence[str],
    *,
    credentials_secret: tuple[str, str] | None = None,
    credentials_username: str | None = None,
) -> GitSpec:
    """Names the repositories of a workspace; errors as `GitSpec`.

    Example:
        >>> git(["github.com/o/r"]).paths
        ['github.com/o/r']
    """
    return GitSpec(paths, credentials_secret, credentials_username)


def coerce_git(value: object) -> GitSpec:
    """A `GitSpec` as it is, or a list of paths as one.

    Raises:
        AgentRunError: `invalid_git_spec` for anything else.

    Example:
        >>> coerce_git(["github.com/o/r"])
        GitSpec(paths=['github.com/o/r'], credentials_secret=None, credentials_username=None)
    """
    if isinstance(value, GitSpec):
        return value
    if isinstance(value, (list, tuple)):
        return GitSpec(value)
    raise AgentRunError(
        "git must be a GitSpec or a list of paths",
        "invalid_git_spec",
        remediation='Pass mitos.git.git([...]) or a list such as ["/workspace/app"].',
    )


def _all_named(values: Sequence[object]) -> bool:
    return all(isinstance(value, str) and value.strip() for value in values)


def _bad_credentials(message: str) -> AgentRunError:
    return AgentRunError(
        message,
        "invalid_git_credentials",
        remediation='Pass credentials_secret=("secret name", "key in it").',
    )
