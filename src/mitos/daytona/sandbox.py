"""A sandbox as Daytona code knows it."""

from __future__ import annotations

from types import TracebackType
from urllib.parse import parse_qs, urlsplit

from mitos.daytona.file_system import FileSystem
from mitos.daytona.process import Process
from mitos.direct import DirectSandbox

__all__ = ["PortPreviewUrl", "Sandbox"]


class PortPreviewUrl:
    """A URL for a port, and the token in it."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url
        self.token = token


class Sandbox:
    r"""A sandbox, as Daytona code knows it. A context manager: leaving it deletes the sandbox.

    Args:
        sandbox: the native handle.
        language: of `process.code_run`.

    Example:
        >>> machine.process.code_run("print(6 * 7)").result
        '42\n'
    """

    def __init__(self, sandbox: DirectSandbox, language: str = "python") -> None:
        self._sandbox = sandbox
        self._language = language
        self.process = Process(sandbox, language)
        self.fs = FileSystem(sandbox.files)

    @property
    def id(self) -> str:
        """The sandbox's id."""
        return self._sandbox.id

    @property
    def sandbox(self) -> DirectSandbox:
        """The native handle."""
        return self._sandbox

    def get_preview_link(self, port: int) -> PortPreviewUrl:
        """A URL for a port inside, and the token in it.

        Example:
            >>> link = machine.get_preview_link(8000)
            >>> link.url.startswith("http")
            True
        """
        url = self._sandbox.get_host(port)
        return PortPreviewUrl(url, parse_qs(urlsplit(url).query).get("token", [""])[0])

    def fork(self, n: int = 1) -> list[Sandbox]:
        """Copies of this sandbox while it runs.

        Example:
            >>> a, b = machine.fork(2)
        """
        return [Sandbox(child, self._language) for child in self._sandbox.fork(n)]

    def start(self, timeout: int = 60) -> None:  # noqa: ARG002  published
        """Goes on after `stop`.

        Example:
            >>> machine.stop()
            >>> machine.start()
        """
        self._sandbox.resume()

    def stop(self, timeout: int = 60, force: bool = False) -> None:  # noqa: ARG002  published
        """Pauses every process.

        Example:
            >>> machine.stop()
            >>> machine.start()
        """
        self._sandbox.pause()

    def delete(self, timeout: int = 60) -> None:  # noqa: ARG002  published
        """Ends the sandbox.

        Example:
            >>> machine.delete()
        """
        self._sandbox.terminate()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.delete()
