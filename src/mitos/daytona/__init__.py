"""Code written for the Daytona SDK's basics, on Mitos: change the import, keep the code.

from mitos.daytona import Daytona
sandbox = Daytona().create()
sandbox.process.exec("echo hello").result
"""

from __future__ import annotations

from mitos.daytona.file_system import FileSystem
from mitos.daytona.parameter import CodeRunParams, CreateSandboxBaseParams, DaytonaConfig
from mitos.daytona.process import ExecuteResponse, ExecutionArtifacts, Process
from mitos.daytona.sandbox import PortPreviewUrl, Sandbox
from mitos.direct import DirectSandbox, SandboxServer, create
from mitos.types import Network

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

CreateSandboxFromSnapshotParams = CreateSandboxBaseParams
CreateSandboxFromImageParams = CreateSandboxBaseParams
CreateSandboxParams = CreateSandboxBaseParams


def _create_direct(
    image: str = "python",
    api_key: str | None = None,
    base_url: str | None = None,
    id: str | None = None,  # noqa: A002  published name
    network: Network | None = None,
    region: str | None = None,
) -> DirectSandbox:
    return create(image, api_key, base_url, id, network, region=region)


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
            NotFoundError: no sandbox of that id runs.

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
