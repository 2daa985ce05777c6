"""Files of a sandbox, as Daytona code reads and writes them."""

from __future__ import annotations

import posixpath
from pathlib import Path

from mitos.direct import DirectSandboxFiles
from mitos.errors import NotFoundError
from mitos.types import FileInfo

__all__ = ["FileSystem"]


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
            TypeError: it is neither.

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
            NotFoundError: there is nothing.

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
