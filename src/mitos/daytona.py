"""Code written for the Daytona SDK's basics, on Mitos: change the import, keep the code.

from mitos.daytona import Daytona
sandbox = Daytona().create()
sandbox.process.exec("echo hello").result
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mitos.direct import DirectSandbox, DirectSandboxFiles, SandboxServer, create
from mitos.errors import NotFoundError
from mitos.types import FileInfo, Network

__all__ = [
    "CodeRunParams",
    "CreateSandboxBaseParams",
    "CreateSandboxFromImageParams",
    "CreateSandboxFromSnapshotParams",
    "CreateSandboxParams",
    "Daytona",
    "DaytonaConfig",
    "ExecuteResponse",
    "ExecutionArtifacts",
    "FileSystem",
    "PortPreviewUrl",
    "Process",
    "Sandbox",
]

EXEC_TIMEOUT_S = 30
CODE_TIMEOUT_S = 60


def _create_direct(
    image: str = "python",
    api_key: str | None = None,
    base_url: str | None = None,
    id: str | None = None,  # noqa: A002  published name
    network: Network | None = None,
    region: str | None = None,
) -> DirectSandbox:
    return create(image, api_key, base_url, id, network, region=region)


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


CreateSandboxFromSnapshotParams = CreateSandboxBaseParams
CreateSandboxFromImageParams = CreateSandboxBaseParams
CreateSandboxParams = CreateSandboxBaseParams


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


class ExecutionArtifacts:
    """What a command left: its output."""

    def __init__(self, stdout: str = "", charts: list[Any] | None = None) -> None:
        self.stdout = stdout
        self.charts = charts


class ExecuteResponse:
    """How a command or cell ended."""

    def __init__(
        self, exit_code: int, result: str, artifacts: ExecutionArtifacts | None = None
    ) -> None:
        self.exit_code = exit_code
        self.result = result
        self.artifacts = artifacts


class PortPreviewUrl:
    """A URL for a port, and the token in it."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url
        self.token = token


class Process:
    """`sandbox.process`.

    Example:
        >>> machine.process.exec("exit 3").exit_code
        3
    """

    def __init__(self, sandbox: DirectSandbox, language: str) -> None:
        self._sandbox = sandbox
        self._language = language

    def exec(
        self,
        command: str,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: int | None = None,
    ) -> ExecuteResponse:
        r"""Runs a shell command, 30 s unless `timeout` says otherwise; `result` is its stdout.

        Example:
            >>> machine.process.exec("echo $MODE", env={"MODE": "test"}).result
            'test\n'
        """
        parts = [f"export {name}={shlex.quote(value)};" for name, value in (env or {}).items()]
        if cwd is not None:
            parts.append(f"cd {shlex.quote(cwd)};")
        found = self._sandbox.exec(" ".join([*parts, command]), timeout=timeout or EXEC_TIMEOUT_S)
        return ExecuteResponse(found.exit_code, found.stdout, ExecutionArtifacts(found.stdout))

    def code_run(
        self,
        code: str,
        params: CodeRunParams | None = None,  # noqa: ARG002  published
        timeout: int | None = None,
    ) -> ExecuteResponse:
        """Runs a cell, 60 s unless `timeout` says otherwise; `result` is its value or output.

        Example:
            >>> machine.process.code_run("6 * 7").result
            '42'
        """
        found = self._sandbox.run_code(
            code, language=self._language, timeout=timeout or CODE_TIMEOUT_S
        )
        printed = "".join(found.logs["stdout"])
        result = printed if found.text is None else found.text
        return ExecuteResponse(1 if found.error else 0, result, ExecutionArtifacts(printed))


class FileSystem:
    """`sandbox.fs`.

    Example:
        >>> machine.fs.upload_file(b"text", "/workspace/a")
        >>> machine.fs.download_file("/workspace/a")
        b'text'
    """

    def __init__(self, files: DirectSandboxFiles) -> None:
        self._files = files

    def upload_file(self, file: bytes | str, remote_path: str, timeout: int = 1800) -> None:  # noqa: ARG002  published
        """Writes content, given as bytes, or a local file, given by its path.

        Raises:
            TypeError: neither.

        Example:
            >>> machine.fs.upload_file("big.bin", "/workspace/big.bin")
        """
        if isinstance(file, str):
            file = Path(file).read_bytes()
        elif not isinstance(file, bytes):
            raise TypeError("upload_file takes bytes, or the path of a local file")
        self._files.write(remote_path, file)

    def download_file(
        self,
        remote_path: str,
        local_path: str | None = None,
        timeout: int = 1800,  # noqa: ARG002  published
    ) -> bytes | None:
        """A file's content, or None after it was written to `local_path`.

        Example:
            >>> machine.fs.download_file("/workspace/plan.txt")
            b'draft'
        """
        content = self._files.read_bytes(remote_path)
        if local_path is None:
            return content
        Path(local_path).write_bytes(content)
        return None

    def list_files(self, path: str = "/") -> list[FileInfo]:
        """The entries of a folder.

        Example:
            >>> [each.name for each in machine.fs.list_files("/workspace")]
            ['plan.txt']
        """
        return self._files.list(path)

    def create_folder(self, path: str, mode: str = "0755") -> None:  # noqa: ARG002  published
        """Makes a folder and its parents.

        Example:
            >>> machine.fs.create_folder("/workspace/deep", "0755")
        """
        self._files.mkdir(path)

    def delete_file(self, path: str, recursive: bool = False) -> None:  # noqa: ARG002  published
        """Removes a file or tree.

        Example:
            >>> machine.fs.delete_file("/workspace/plan.txt")
        """
        self._files.remove(path)

    def get_file_info(self, path: str) -> FileInfo:
        """What is at a path.

        Raises:
            NotFoundError: nothing.

        Example:
            >>> machine.fs.get_file_info("/workspace/plan.txt").size
            5
        """
        parent, name = posixpath.split(path.rstrip("/"))
        for entry in self._files.list(parent or ("/" if path.startswith("/") else ".")):
            if entry.name == name:
                return entry
        raise NotFoundError(
            f"nothing is at {path!r}",
            "not_found",
            remediation="Check the path; list its folder with list_files.",
            status=404,
            context={"path": path},
        )


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


class Daytona:
    r"""A client. Without a configuration, server and key are found as `mitos.create` does.

    Example:
        >>> place = Daytona()
        >>> with place.create() as machine:
        ...     machine.process.exec("echo hello").result
        'hello\n'
    """

    def __init__(self, config: DaytonaConfig | None = None) -> None:
        self._config = config or DaytonaConfig()

    def create(
        self,
        params: CreateSandboxBaseParams | None = None,
        timeout: int = 60,  # noqa: ARG002  published
    ) -> Sandbox:
        """Starts a sandbox; errors as `mitos.create`.

        Example:
            >>> machine = daytona.create(CreateSandboxBaseParams(language="python"))
        """
        wanted = params or CreateSandboxBaseParams()
        sandbox = _create_direct(
            wanted.image or wanted.snapshot or wanted.language,
            self._config.api_key,
            self._config.api_url,
            region=self._config.target,
        )
        return Sandbox(sandbox, wanted.language)

    def get(self, sandbox_id: str) -> Sandbox:
        """A sandbox that runs already.

        Raises:
            NotFoundError: none of that id runs.

        Example:
            >>> again = daytona.get(machine.id)
        """
        return Sandbox(self._server().connect(sandbox_id))

    def list(self) -> list[Sandbox]:
        """The sandboxes that run.

        Example:
            >>> machine.id in [each.id for each in daytona.list()]
            True
        """
        return [Sandbox(sandbox) for sandbox in self._server().sandboxes()]

    def delete(self, sandbox: Sandbox, timeout: int = 60) -> None:
        """Ends a sandbox.

        Example:
            >>> daytona.delete(machine)
        """
        sandbox.delete(timeout)

    def start(self, sandbox: Sandbox, timeout: int = 60) -> None:
        """Goes on after `stop`.

        Example:
            >>> daytona.stop(machine)
            >>> daytona.start(machine)
        """
        sandbox.start(timeout)

    def stop(self, sandbox: Sandbox, timeout: int = 60) -> None:
        """Pauses every process of a sandbox.

        Example:
            >>> daytona.stop(machine)
            >>> daytona.start(machine)
        """
        sandbox.stop(timeout)

    def _server(self) -> SandboxServer:
        return SandboxServer.from_auth(self._config.api_key, self._config.api_url)
