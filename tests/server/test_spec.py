"""What spec/rest.md says is served, and nothing else is."""

from __future__ import annotations

import re
from pathlib import Path
from unittest import mock

from starlette.routing import Route, WebSocketRoute

from mitos.server import app
from mitos.server.gate.layer import OPEN_PATHS
from mitos.server.ports.proxy import PortProxy
from mitos.server.settings import ServerSettings
from mitos.server.tenant import Tenants

SPEC = Path(__file__).parent.parent.parent / "spec" / "rest.md"
ROW = re.compile(r"^\| (GET|POST|PUT|PATCH|DELETE|ANY) \| `([^`]+)` \|", re.MULTILINE)


def test_the_documented_routes_are_the_served_ones() -> None:
    served = {(method, path) for path, methods in served_routes().items() for method in methods}

    assert sorted(ROW.findall(SPEC.read_text())) == sorted(served)


def test_what_is_documented_as_open_is_what_the_gate_leaves_open() -> None:
    rows = [line for line in SPEC.read_text().splitlines() if line.endswith("; open |")]

    assert OPEN_PATHS == {path for row in rows for _, path in ROW.findall(row)}
    assert set(served_routes()) >= OPEN_PATHS


def served_routes() -> dict[str, set[str]]:
    """The methods of every route; one that is there for WebSockets too counts once."""
    node = mock.Mock()
    tenants = Tenants(node)
    found: dict[str, set[str]] = {}
    for route in app.routes(node, ServerSettings(), tenants, PortProxy(tenants)):
        assert isinstance(route, Route | WebSocketRoute)
        path = re.sub(r":\w+}", "}", route.path)
        if path not in found or isinstance(route, Route):
            found.setdefault(path, set()).update(_methods(route))
    return found


def _methods(route: Route | WebSocketRoute) -> set[str]:
    """A terminal's route is a GET that asks for an upgrade."""
    if isinstance(route, Route):
        return route.methods - {"HEAD"} if route.methods else {"ANY"}
    return {"GET"}
