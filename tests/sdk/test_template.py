"""The template builder, as published."""

from __future__ import annotations

import pytest

from mitos import Template


def test_the_published_example() -> None:
    recipe = (
        Template()
        .from_image("python:3.12")
        .copy("app/", "/app")
        .run("pip install -r requirements.txt")
        .set_start("python app.py")
    )

    assert recipe.to_spec() == {
        "image": "python:3.12",
        "buildSteps": [
            {"type": "copy", "source": "app/", "dest": "/app"},
            {"type": "run", "run": "pip install -r requirements.txt"},
        ],
        "command": ["python", "app.py"],
    }


def test_steps_keep_the_order_of_the_calls() -> None:
    recipe = Template().from_image("a").workdir("/w").env("A", "1").run_cmd("x").env("A", "2")

    assert recipe.to_spec()["buildSteps"] == [
        {"type": "workdir", "workdir": "/w"},
        {"type": "env", "envName": "A", "envValue": "1"},
        {"type": "run", "run": "x"},
        {"type": "env", "envName": "A", "envValue": "2"},
    ]


def test_members_come_in_their_order_and_only_when_set() -> None:
    full = Template().from_image("a").memory("1Gi").cpu("2").set_start(["a b", "c"]).run("x")

    assert list(full.to_spec()) == ["image", "buildSteps", "command", "resources"]
    assert full.to_spec()["command"] == ["a b", "c"]
    assert full.to_spec()["resources"] == {"memory": "1Gi", "cpu": "2"}
    assert list(Template().from_image("a").to_spec()) == ["image"]


def test_the_last_start_wins() -> None:
    assert Template().from_image("a").set_start("x").set_start("y 'z w'").to_spec()["command"] == [
        "y",
        "z w",
    ]


def test_a_spec_is_a_copy() -> None:
    recipe = Template().from_image("a").run("x")
    recipe.to_spec()["buildSteps"][0]["run"] = "changed"

    assert recipe.to_spec()["buildSteps"] == [{"type": "run", "run": "x"}]


@pytest.mark.parametrize("image", [None, ""])
def test_an_image_is_needed(image: str | None) -> None:
    recipe = Template() if image is None else Template().from_image(image)
    with pytest.raises(ValueError, match="from_image"):
        recipe.to_spec()


def test_a_template_is_a_cluster_object() -> None:
    recipe = Template().from_image("a")

    assert recipe.to_template("web") == recipe.to_pool("web")
    assert recipe.to_template("web") == {
        "apiVersion": "mitos.run/v1",
        "kind": "SandboxPool",
        "metadata": {"name": "web"},
        "spec": {"template": {"image": "a"}},
    }
