"""What a cell of the fake kernel sees instead of the server process it really runs in.

Output, sleeping, files and the environment are the machine's own: `print`, `open`, `input`,
`sys.stdout`, `time.sleep` and `os.environ` are replaced in the cell's view. All else is this very
Python: the fake engine isolates nothing, and is never for code one does not trust.
"""

from __future__ import annotations

import builtins
import importlib
import io
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from mitos.engine.fake.filesystem import FileSystem
from mitos.wire.link import KernelEventKind

__all__ = ["CellOutput", "CellView"]

FLUSH_BYTES = 1 << 16


class CellOutput(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of cells: whole lines become events."""

    def __init__(
        self, kind: KernelEventKind, emit: Callable[[KernelEventKind, bytes], None]
    ) -> None:
        super().__init__()
        self._kind = kind
        self._emit = emit
        self._pending = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Always the same."""
        return "utf-8"

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Takes text; complete lines go out at once."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._pending += text
        if "\n" in text or len(self._pending) >= FLUSH_BYTES:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Sends what is pending."""
        data, self._pending = self._pending.encode("utf-8", "backslashreplace"), ""
        for start in range(0, len(data), FLUSH_BYTES):
            self._emit(self._kind, data[start : start + FLUSH_BYTES])


class _WrittenFile(io.BytesIO):
    """A file of the machine, opened for writing: its content is stored when it is flushed."""

    def __init__(self, files: FileSystem, path: str, content: bytes, *, at_end: bool) -> None:
        super().__init__(content)
        self._files = files
        self._path = path
        self.seek(0, io.SEEK_END if at_end else io.SEEK_SET)

    def flush(self) -> None:
        if not self.closed:
            self._files.write(self._path, self.getvalue())

    def close(self) -> None:
        self.flush()
        super().close()


class CellView:
    """The built-ins and modules of one machine's cells.

    Args:
        files: what `open` opens.
        environment: what `os.environ` is.
        emit: takes output.
        sleep: stands for `time.sleep`.
    """

    def __init__(
        self,
        files: FileSystem,
        environment: dict[str, str],
        *,
        emit: Callable[[KernelEventKind, bytes], None],
        sleep: Callable[[float], None],
    ) -> None:
        self.stdout = CellOutput(KernelEventKind.STDOUT, emit)
        self.stderr = CellOutput(KernelEventKind.STDERR, emit)
        self._files = files
        self.replaced: Mapping[str, Callable[..., Any]] = {
            "print": self._print,
            "open": self._open,
            "input": _no_input,
            "__import__": self._import,
        }
        self.named: Mapping[str, Callable[..., Any]] = {**self.replaced, "sleep": sleep}
        self.builtins = {**vars(builtins), **self.replaced}
        streams = {"stdout": self.stdout, "stderr": self.stderr}
        self._modules = {
            "sys": _changed(sys, streams | {"__stdout__": self.stdout, "__stderr__": self.stderr}),
            "time": _changed("time", {"sleep": sleep}),
            "os": _changed("os", {"environ": environment, "getenv": environment.get}),
        }

    def module(self, name: str) -> Any:
        """A module as cells see it."""
        return self._modules.get(name) or importlib.import_module(name)

    def flush(self) -> None:
        """Sends pending output."""
        self.stdout.flush()
        self.stderr.flush()

    def _import(
        self,
        name: str,
        globals_: Mapping[str, object] | None = None,
        locals_: Mapping[str, object] | None = None,
        fromlist: tuple[str, ...] | None = (),
        level: int = 0,
    ) -> Any:
        found = builtins.__import__(name, globals_, locals_, fromlist or (), level)
        return self._modules.get(found.__name__, found)

    def _print(self, *values: object, file: Any = None, **options: Any) -> None:
        print(*values, file=self.stdout if file is None else file, **options)

    def _open(
        self, file: Any, mode: str = "r", *_: Any, encoding: str | None = None, **__: Any
    ) -> Any:
        path = self._files.locate(str(file))
        exists = self._files.exists(path)
        if "x" in mode and exists:
            raise FileExistsError(17, "File exists", file)
        keeps = exists and "w" not in mode
        if "r" in mode and "+" not in mode:
            content = b"" if self._files.stat(path).is_device else b"".join(self._files.read(path))
            binary: io.BytesIO = io.BytesIO(content)
        else:
            content = b"".join(self._files.read(path)) if keeps or "r" in mode else b""
            self._files.write(path, content)
            binary = _WrittenFile(self._files, path, content, at_end="a" in mode)
        return binary if "b" in mode else io.TextIOWrapper(binary, encoding or "utf-8")


def _changed(module: types.ModuleType | str, attributes: dict[str, Any]) -> types.ModuleType:
    original = importlib.import_module(module) if isinstance(module, str) else module
    view = types.ModuleType(original.__name__, original.__doc__)
    view.__dict__.update(vars(original) | attributes)
    return view


def _no_input(_prompt: object = "") -> str:
    raise EOFError("input() cannot be used in a cell: it has no standard input")
