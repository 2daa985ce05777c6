"""`spec/openapi.yaml`: it is OpenAPI, its routes are the served ones, its examples are right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from mitos.server.gate.layer import OPEN_PATHS
from mitos.wire.errors import TABLE
from tests.server.test_spec import served_routes

SPEC = Path(__file__).parents[2] / "spec" / "openapi.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(SPEC.read_text())
METHODS = ("get", "put", "post", "delete", "patch")
"""Of a route for any method, those that the file shows."""


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def parts(node: object, where: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of the file, with its place as a JSON pointer."""
    if isinstance(node, dict):
        yield where, node
        for name, value in node.items():
            yield from parts(value, f"{where}/{str(name).replace('~', '~0').replace('/', '~1')}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from parts(value, f"{where}/{number}")


def examples() -> Iterator[tuple[str, Any]]:
    """Every example, with the place of the schema that it is of."""
    for where, part in parts(DOCUMENT):
        if where.endswith("/properties"):  # its members are names of properties
            continue
        for example in part.get("examples", ()):
            yield where, example
        if "example" in part:
            yield f"{where}/schema", part["example"]


def test_it_is_openapi() -> None:
    errors = [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()]

    assert errors == []


def test_its_operations_are_the_served_ones() -> None:
    shown = {(method.upper(), path) for path, method, _ in operations()}
    any_method = {method.upper() for method in METHODS}

    expected = {
        (method, path)
        for path, methods in served_routes().items()
        for method in (any_method if methods == {"ANY"} else methods)
    }
    assert expected == shown


def test_what_needs_no_key_is_what_the_gate_leaves_open() -> None:
    open_paths = {path for path, _, operation in operations() if operation.get("security") == []}

    assert OPEN_PATHS == open_paths


def test_its_error_codes_are_those_of_the_table() -> None:
    codes = DOCUMENT["components"]["schemas"]["Error"]["properties"]["code"]["enum"]

    assert sorted(TABLE) == codes


def test_every_refusal_says_its_codes_and_has_the_envelope() -> None:
    for name, response in DOCUMENT["components"]["responses"].items():
        schema = response["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Refusal"}, name


@pytest.mark.parametrize(("where", "example"), list(examples()))
def test_examples_are_right(where: str, example: Any) -> None:
    validator = Draft202012Validator({**DOCUMENT, "$ref": where})

    assert [error.message for error in validator.iter_errors(example)] == []


def test_there_are_examples() -> None:
    assert len(list(examples())) > 30
