"""Describes a template step by step: an image, what is copied in, what runs, what starts."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Sequence
from typing import Any

__all__ = ["Template"]


class Template:
    """A template's recipe. Each method adds to it and returns it.

    Pure: nothing is sent and nothing is built here.

    Example:
        >>> recipe = Template().from_image("python:3.12").copy("app/", "/app")
        >>> recipe.run("pip install -r requirements.txt").set_start("python app.py").to_spec()[
        ...     "command"
        ... ]
        ['python', 'app.py']
    """

    def __init__(self) -> None:
        self._image: str | None = None
        self._steps: list[dict[str, str]] = []
        self._command: list[str] = []
        self._resources: dict[str, str] = {}

    def from_image(self, image: str) -> Template:
        """Starts from an image.

        Example:
            >>> Template().from_image("python:3.12").to_spec()
            {'image': 'python:3.12'}
        """
        self._image = image
        return self

    def copy(self, source: str, dest: str) -> Template:
        """Copies a file or folder in.

        Example:
            >>> template = Template().from_image("base").copy("app/", "/app")
        """
        return self._add({"type": "copy", "source": source, "dest": dest})

    def run(self, command: str) -> Template:
        """Runs a shell command.

        Example:
            >>> template = Template().from_image("base").run("pip install flask")
        """
        return self._add({"type": "run", "run": command})

    def run_cmd(self, command: str) -> Template:
        """The same as `run`.

        Example:
            >>> template = Template().from_image("base").run_cmd("pip install flask")
        """
        return self.run(command)

    def env(self, name: str, value: str) -> Template:
        """Sets a variable for the steps that follow, and for sandboxes.

        Example:
            >>> template = Template().from_image("base").env("MODE", "test")
        """
        return self._add({"type": "env", "envName": name, "envValue": value})

    def workdir(self, path: str) -> Template:
        """Changes the directory for the steps that follow.

        Example:
            >>> template = Template().from_image("base").workdir("/app")
        """
        return self._add({"type": "workdir", "workdir": path})

    def set_start(self, command: str | Sequence[str]) -> Template:
        """What starts in the template; a string is split as a shell would. The last call wins.

        Example:
            >>> Template().from_image("base").set_start("python app.py").to_spec()["command"]
            ['python', 'app.py']
        """
        self._command = shlex.split(command) if isinstance(command, str) else list(command)
        return self

    def cpu(self, quantity: str) -> Template:
        """CPUs as a Kubernetes quantity, such as `"2"` or `"500m"`.

        Example:
            >>> template = Template().from_image("base").cpu("2")
        """
        self._resources["cpu"] = quantity
        return self

    def memory(self, quantity: str) -> Template:
        """Memory as a Kubernetes quantity, such as `"1Gi"`.

        Example:
            >>> template = Template().from_image("base").memory("1Gi")
        """
        self._resources["memory"] = quantity
        return self

    def to_spec(self) -> dict[str, Any]:
        """The recipe as plain data; changing it does not change the template.

        Raises:
            ValueError: no image was set.

        Example:
            >>> Template().from_image("base").run("true").to_spec()["buildSteps"]
            [{'type': 'run', 'run': 'true'}]
        """
        if not self._image:
            raise ValueError("a template needs a base image: call from_image(...) first")
        spec: dict[str, Any] = {"image": self._image}
        if self._steps:
            spec["buildSteps"] = self._steps
        if self._command:
            spec["command"] = self._command
        if self._resources:
            spec["resources"] = self._resources
        return copy.deepcopy(spec)

    def to_template(self, name: str) -> dict[str, Any]:
        """The recipe as a cluster object of that name.

        Raises:
            ValueError: no image was set.

        Example:
            >>> Template().from_image("base").to_template("web")["kind"]
            'SandboxPool'
        """
        return {
            "apiVersion": "mitos.run/v1",
            "kind": "SandboxPool",
            "metadata": {"name": name},
            "spec": {"template": self.to_spec()},
        }

    def to_pool(self, name: str) -> dict[str, Any]:
        """The same as `to_template`.

        Example:
            >>> Template().from_image("base").to_pool("web")["metadata"]
            {'name': 'web'}
        """
        return self.to_template(name)

    def _add(self, step: dict[str, str]) -> Template:
        self._steps.append(step)
        return self
