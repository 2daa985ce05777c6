"""The variables of cells as bytes, so that a fork gets its own copy of them.

Beyond what pickle does by itself, functions and classes that cells define are written out with
their code, and refer to the namespace they are restored into. What cannot be copied (locks,
sockets, generators, enumerations) is missing in the copy.
"""

from __future__ import annotations

import io
import marshal
import pickle
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["dump", "load"]

Namespace = dict[str, Any]

_NAMESPACE = "namespace"
_MODULE = "module"
_BUILTIN = "builtin"
_HEAP_TYPE = 1 << 9  # a class made by a class statement, not one of the interpreter's own
_HIDDEN = ("__dict__", "__weakref__", "__module__", "__qualname__", "__slots__", "__orig_bases__")


def dump(namespace: Namespace, builtins: Mapping[str, Any]) -> bytes:
    """A copy of the namespace.

    Args:
        namespace: the globals of cells.
        builtins: what stands for the built-in functions in them.
    """
    variables = {name: value for name, value in namespace.items() if name != "__builtins__"}
    try:
        return _pickled(variables, namespace, builtins)
    except Exception:  # noqa: BLE001  whatever a value's own methods raise
        return _pickled(_copyable(variables, namespace, builtins), namespace, builtins)


def load(
    data: bytes, namespace: Namespace, builtins: Mapping[str, Any], module: Callable[[str], Any]
) -> None:
    """Fills a namespace from a copy.

    Args:
        data: from `dump`.
        namespace: filled.
        builtins: as for `dump`.
        module: imports a module as cells see it.
    """
    namespace.update(_Unpickler(io.BytesIO(data), namespace, builtins, module).load())


def _copyable(variables: Namespace, namespace: Namespace, builtins: Mapping[str, Any]) -> Namespace:
    found = Namespace()
    for name, value in variables.items():
        try:
            _pickled(value, namespace, builtins)
        except Exception:  # noqa: BLE001, S112  this one is left out
            continue
        found[name] = value
    return found


def _pickled(value: object, namespace: Namespace, builtins: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, namespace, builtins).dump(value)
    return buffer.getvalue()


class _Pickler(pickle.Pickler):
    def __init__(
        self, buffer: io.BytesIO, namespace: Namespace, builtins: Mapping[str, Any]
    ) -> None:
        super().__init__(buffer, protocol=5)
        self._namespace = namespace
        self._builtins = {id(value): name for name, value in builtins.items()}

    def persistent_id(self, obj: Any) -> Any:
        if obj is self._namespace:
            return (_NAMESPACE, "")
        if isinstance(obj, types.ModuleType):
            return (_MODULE, obj.__name__)
        if callable(obj) and id(obj) in self._builtins:
            return (_BUILTIN, self._builtins[id(obj)])
        return None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, types.FunctionType) and not _is_importable(obj):
            return self._reduce_function(obj)
        if type(obj) is type and obj.__flags__ & _HEAP_TYPE and not _is_importable(obj):
            return _reduce_class(obj)
        if isinstance(obj, types.CellType):
            return (_new_cell, (), _cell_content(obj), None, None, _fill_cell)
        if isinstance(obj, types.MappingProxyType):
            return (_new_view, (dict(obj),))
        if isinstance(obj, (property, staticmethod, classmethod)):
            return _reduce_descriptor(obj)
        return NotImplemented

    def _reduce_function(self, function: types.FunctionType) -> Any:
        made_from = (
            marshal.dumps(function.__code__),
            self._namespace,
            function.__name__,
            function.__closure__,
        )
        state = {
            name: getattr(function, name)
            for name in (
                "__defaults__",
                "__kwdefaults__",
                "__dict__",
                "__doc__",
                "__module__",
                "__qualname__",
                "__annotations__",
            )
        }
        return (_new_function, made_from, state, None, None, _set_attributes)


class _Unpickler(pickle.Unpickler):
    def __init__(
        self,
        buffer: io.BytesIO,
        namespace: Namespace,
        builtins: Mapping[str, Any],
        module: Callable[[str], Any],
    ) -> None:
        super().__init__(buffer)
        self._namespace = namespace
        self._builtins = builtins
        self._module = module

    def persistent_load(self, pid: Any) -> Any:
        kind, name = pid
        if kind == _NAMESPACE:
            return self._namespace
        return self._module(name) if kind == _MODULE else self._builtins[name]


def _is_importable(value: Any) -> bool:
    found: Any = sys.modules.get(value.__module__ or "")
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is value


def _new_function(
    code: bytes, namespace: Namespace, name: str, closure: tuple[types.CellType, ...] | None
) -> types.FunctionType:
    return types.FunctionType(marshal.loads(code), namespace, name, None, closure)  # noqa: S302  ours


def _new_cell() -> types.CellType:
    return types.CellType()


def _new_view(content: Namespace) -> types.MappingProxyType[str, Any]:
    return types.MappingProxyType(content)


def _cell_content(cell: types.CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def _fill_cell(cell: types.CellType, content: tuple[Any, ...]) -> None:
    if content:
        cell.cell_contents = content[0]


def _reduce_class(found: type) -> Any:
    slots = found.__dict__.get("__slots__")
    first = {"__module__": found.__module__, "__qualname__": found.__qualname__}
    members = {
        name: value
        for name, value in found.__dict__.items()
        if name not in _HIDDEN
        and not isinstance(value, (types.MemberDescriptorType, types.GetSetDescriptorType))
    }
    start = first if slots is None else {**first, "__slots__": slots}
    return (type, (found.__name__, found.__bases__, start), members, None, None, _set_attributes)


def _reduce_descriptor(
    found: property | staticmethod[Any, Any] | classmethod[Any, Any, Any],
) -> Any:
    if isinstance(found, property):
        return (property, (found.fget, found.fset, found.fdel, found.__doc__))
    return (type(found), (found.__func__,))


def _set_attributes(found: Any, attributes: Mapping[str, Any]) -> None:
    for name, value in attributes.items():
        if name == "__dict__":
            found.__dict__.update(value)
        else:
            setattr(found, name, value)
