"""`IPython.display` for cells: the objects that notebooks show, where IPython is not installed.

Where it is, its own objects are used; only its `display` and `clear_output` become the kernel's.
"""

import os
import sys
import types

from ._import import ImportHook


class _Shown:
    """Something with one form besides its plain one."""

    _form = ""

    def __init__(self, data=None, url=None, filename=None, **_options):
        if url is not None:
            raise ValueError("a url is not fetched: pass its content as data")
        self.filename = None if filename is None else os.fspath(filename)
        self.data = self._read() if data is None and self.filename is not None else data
        if self.data is None:
            raise ValueError("there is neither data nor a filename")

    def _read(self):
        with open(self.filename, encoding="utf-8") as file:
            return file.read()

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {self._form: self.data}

    def __repr__(self):
        return "<IPython.core.display.%s object>" % type(self).__name__


class HTML(_Shown):
    _form = "text/html"


class Markdown(_Shown):
    _form = "text/markdown"


class Latex(_Shown):
    _form = "text/latex"


class SVG(_Shown):
    _form = "image/svg+xml"


class Javascript(_Shown):
    _form = "application/javascript"


class JSON(_Shown):
    """Data that JSON can hold; a string is JSON text."""

    _form = "application/json"


class Math(Latex):
    def _repr_mimebundle_(self, include=None, exclude=None):
        return {self._form: "$\\displaystyle %s$" % self.data.strip("$")}


class Pretty(_Shown):
    _form = "text/plain"


class Image(_Shown):
    """A PNG or JPEG image, from its bytes or a file. `format` is found out when it is not said."""

    def __init__(self, data=None, url=None, filename=None, format=None, **options):
        if filename is None and isinstance(data, (str, os.PathLike)):
            data, filename = None, data
        super().__init__(data, url, filename, **options)
        self.format = (format or ("jpeg" if self.data[:3] == b"\xff\xd8\xff" else "png")).lower()
        self._form = "image/" + {"jpg": "jpeg"}.get(self.format, self.format)

    def _read(self):
        with open(self.filename, "rb") as file:
            return file.read()


_OBJECTS = (HTML, Markdown, Latex, SVG, Javascript, JSON, Math, Pretty, Image)


class _Finder:
    """The last to be asked for a module: makes `IPython` and `IPython.display` if nobody can."""

    def __init__(self, functions):
        self._functions = functions

    def find_spec(self, name, path=None, target=None):
        if name not in ("IPython", "IPython.display"):
            return None
        import importlib.machinery

        return importlib.machinery.ModuleSpec(name, self, is_package=name == "IPython")

    def create_module(self, spec):
        return types.ModuleType(spec.name, "The part of IPython that cells can use without it.")

    def exec_module(self, module):
        if module.__name__ == "IPython":
            module.get_ipython = lambda: None
            module.version_info = (0, 0, 0, "")
            module.__version__ = "0.0.0"
            return
        vars(module).update({value.__name__: value for value in _OBJECTS})
        vars(module).update(self._functions)


def install(display):
    """Makes `IPython.display` work in cells, with this `display`."""
    functions = {"display": display, "clear_output": clear_output}
    hook = ImportHook("IPython.core.display_functions", lambda found: vars(found).update(functions))
    hook.install()
    sys.meta_path.append(_Finder(functions))


def clear_output(wait=False):
    """Does nothing: what was shown is on its way already."""
