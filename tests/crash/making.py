"""Operations that make something: create, fork, build."""

from __future__ import annotations

from typing import Any

from tests.crash.living import Living
from tests.crash.subject import Operation

__all__ = ["Build", "Create", "Fork"]

CHILDREN = 8


class Create(Operation):
    """A sandbox from a template."""

    has_subject = False

    def run(self) -> Any:
        return self._post()

    def check(self, listing: dict[str, dict[str, Any]]) -> None:
        made = listing.get(self.label)
        assert made or not self.is_answered
        again = self._post()
        assert again["id"] == self.label
        assert made is None or made["created_at"] == again["created_at"]
        sandbox = self.world.client.connect(self.label)
        assert sandbox.exec("echo $MITOS_SANDBOX_ID").stdout.strip() == self.label

    def _post(self) -> Any:
        return self.world.post("/v1/fork", {"template": "python", "id": self.label}, self.label)


class Fork(Operation):
    """Eight copies of one instant."""

    def run(self) -> Any:
        return self._post()

    def check(self, listing: dict[str, dict[str, Any]]) -> None:
        made = {name: listing[name] for name in self._ids if name in listing}
        assert len(made) in ((CHILDREN,) if self.is_answered else (0, CHILDREN))
        again = {row["id"]: row for row in self._post()["children"]}
        assert sorted(again) == sorted(self._ids)
        for name, row in made.items():
            assert row["created_at"] == again[name]["created_at"], "another child of that id"
        self.check_subject()
        for name in self.chance.sample(self._ids, 2):
            child = Living(self.world, self.world.client.connect(name))
            child.check_goes_on(self._read)
            child.check_job()
            assert child.record()["relatives"][0]["parent_uid"] == self._uid

    def begin(self) -> None:
        self._uid = self.subject.record()["relatives"][0]["uid"]

    @property
    def _ids(self) -> list[str]:
        return [f"{self.label}-{number}" for number in range(CHILDREN)]

    def _post(self) -> Any:
        body = {"template": "python", "id": self._ids[0], "ids": self._ids}
        return self.world.post(f"/v1/sandboxes/{self.label}/fork", body, self.label)


class Build(Operation):
    """A template whose steps take a moment."""

    has_subject = False

    def prepare(self) -> None:
        recipe = (
            f"[templates.{self.label}]\n"
            'packages = ["ca-certificates", "curl", "procps", "git", "python3", "python3-pip",'
            ' "python3-venv"]\n'
            f'run = ["echo first {self.label} > /etc/steps", "echo second >> /etc/steps"]\n'
        )
        (self.world.home / "templates.toml").write_text(recipe)

    def run(self) -> Any:
        return self.world.client.create_template(self.label)

    def check(self, listing: dict[str, dict[str, Any]]) -> None:
        offered = [row["id"] for row in self.world.client.list_templates()]
        assert self.label in offered or not self.is_answered
        assert [name for name in self.world.entries("snapshots") if "building" in name] == []
        self.world.client.create_template(self.label)
        with self.world.client.fork(self.label, id=self.label) as sandbox:
            steps = sandbox.exec("cat /etc/steps").stdout.splitlines()
            assert steps == [f"first {self.label}", "second"]

    def finish(self) -> None:
        super().finish()
        self.world.delete(f"/v1/templates/{self.label}")
