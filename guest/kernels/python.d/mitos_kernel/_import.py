"""Changing a module as soon as somebody imports it."""

import sys


class ImportHook:
    """Calls `change(module)` after the module of that name was executed; then it is gone."""

    def __init__(self, name, change):
        self._name = name
        self._change = change

    def install(self):
        sys.meta_path.insert(0, self)

    def find_spec(self, name, path=None, target=None):
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        import importlib.util

        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            self._change(module)

        spec.loader.exec_module = exec_module
        return spec
