"""Code written for the E2B SDK's basics, on Mitos: change the import, keep the code.

from mitos.e2b import Sandbox
with Sandbox.create() as sandbox:
sandbox.commands.run("echo hello").stdout
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from mitos.direct import DirectSandbox, DirectSandboxFiles, SandboxServer, create
from mitos.types import ExecResult, Execution, FileInfo, Network, Result

__all__ = ["Commands", "Files", "Sandbox", "SandboxInfo"]


def _create_direct(
    image: str = "python",
    api_key: str | None = None,
    base_url: str | None = None,
    id: str | None = None,  # noqa: A002  published name
    network: Network | None = None,
) -> DirectSandbox:
    return create(image, api_key, base_url, id, network)


class SandboxInfo:
    """A sandbox in a listing."""

    def __init__(self, sandbox_id: str, template_id: str = "", endpoint: str = "") -> None:
        self.sandbox_id = sandbox_id
        self.template_id = template_id
        self.endpoint = endpoint

    def __repr__(self) -> str:
        return f"SandboxInfo(sandbox_id={self.sandbox_id!r}, template_id={self.template_id!r})"


class Commands:
    """`sandbox.commands`.

    Example:
        >>> box.commands.run("exit 3").exit_code
        3
    """

    def __init__(self, sandbox: DirectSandbox) -> None:
        self._sandbox = sandbox

    def run(self, cmd: str, background: bool = False, timeout: int = 60) -> ExecResult:  # noqa: ARG002  published
        r"""Runs a command to its end, also with `background`.

        Example:
            >>> box.commands.run("echo hello", timeout=10).stdout
            'hello\n'
        """
        return self._sandbox.exec(cmd, timeout=timeout)


class Files:
    """`sandbox.files`.

    Example:
        >>> box.files.write("/workspace/a", "text")
        >>> box.files.read("/workspace/a")
        'text'
    """

    def __init__(self, files: DirectSandboxFiles) -> None:
        self._files = files

    def read(self, path: str) -> str:
        """A file's text.

        Example:
            >>> box.files.read("/workspace/plan.txt")
            'draft'
        """
        return self._files.read(path)

    def write(self, path: str, data: str | bytes) -> None:
        """Replaces a file.

        Example:
            >>> box.files.write("/workspace/a", b"bytes")
        """
        self._files.write(path, data)

    def list(self, path: str = "/") -> list[FileInfo]:
        """The entries of a folder.

        Example:
            >>> [each.name for each in box.files.list("/workspace")]
            ['plan.txt']
        """
        return self._files.list(path)

    def exists(self, path: str) -> bool:
        """True when something is at the path.

        Example:
            >>> box.files.exists("/workspace/plan.txt")
            True
        """
        return self._files.exists(path)

    def remove(self, path: str) -> None:
        """Removes a file or tree.

        Example:
            >>> box.files.remove("/workspace/plan.txt")
        """
        self._files.remove(path)

    def make_dir(self, path: str) -> None:
        """Makes a folder and its parents.

        Example:
            >>> box.files.make_dir("/workspace/deep/er")
        """
        self._files.mkdir(path)


class Sandbox:
    r"""A sandbox, as E2B code knows it.

    Args:
        sandbox: the native handle.

    Example:
        >>> with Sandbox.create() as box:
        ...     box.commands.run("echo hello").stdout
        'hello\n'
    """

    def __init__(self, sandbox: DirectSandbox) -> None:
        self._sandbox = sandbox
        self.commands = Commands(sandbox)
        self.files = Files(sandbox.files)

    @classmethod
    def create(
        cls,
        template: str = "python",
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: int | None = None,
        metadata: dict[str, str] | None = None,  # noqa: ARG003  published
        network: Network | None = None,
        **ignored: Any,  # noqa: ARG003  published
    ) -> Sandbox:
        """Starts a sandbox that lives for `timeout` seconds; errors as `mitos.create`.

        Example:
            >>> box = Sandbox.create("python", timeout=600)
        """
        sandbox = _create_direct(template, api_key, base_url, network=network)
        if timeout is not None:
            try:
                sandbox.set_timeout(timeout)
            except BaseException:
                sandbox.terminate()
                raise
        return cls(sandbox)

    @classmethod
    def connect(
        cls, sandbox_id: str, api_key: str | None = None, base_url: str | None = None
    ) -> Sandbox:
        """A sandbox that runs already.

        Raises:
            NotFoundError: no sandbox of that id runs.

        Example:
            >>> again = Sandbox.connect(box.sandbox_id)
        """
        return cls(SandboxServer.from_auth(api_key, base_url).connect(sandbox_id))

    @classmethod
    def list(cls, api_key: str | None = None, base_url: str | None = None) -> list[SandboxInfo]:
        """The sandboxes that run.

        Example:
            >>> box.sandbox_id in [each.sandbox_id for each in Sandbox.list()]
            True
        """
        rows = SandboxServer.from_auth(api_key, base_url).list_sandboxes()
        names = ("id", "template_id", "endpoint")
        return [SandboxInfo(*(str(row.get(name) or "") for name in names)) for row in rows]

    @property
    def sandbox(self) -> DirectSandbox:
        """The native handle."""
        return self._sandbox

    @property
    def sandbox_id(self) -> str:
        """The sandbox's id."""
        return self._sandbox.id

    def set_timeout(self, timeout: int) -> int:
        """Ends the sandbox in so many seconds; returns the deadline in unix seconds.

        Example:
            >>> deadline = box.set_timeout(600)
        """
        return self._sandbox.set_timeout(timeout)

    def run_code(
        self,
        code: str,
        language: str = "python",
        timeout: int = 60,
        on_stdout: Callable[[str], None] | None = None,
        on_stderr: Callable[[str], None] | None = None,
        on_result: Callable[[Result], None] | None = None,
    ) -> Execution:
        """Runs a cell; arguments and errors as the native `run_code`.

        Example:
            >>> box.run_code("6 * 7").text
            '42'
        """
        return self._sandbox.run_code(code, language, timeout, on_stdout, on_stderr, on_result)

    def get_host(self, port: int) -> str:
        """A URL for a port inside.

        Example:
            >>> url = box.get_host(8000)
        """
        return self._sandbox.get_host(port)

    def kill(self) -> None:
        """Ends the sandbox.

        Example:
            >>> box.kill()
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
        self.kill()
