"""What spec/rest.md says is served, and nothing else is."""

from __future__ import annotations

import re
from pathlib import Path
from unittest import mock

from starlette.routing import Route

from mitos.server import ports, pty, rest
from mitos.server.expose import Exposure
from mitos.server.settings import ServerSettings

SPEC = Path(__file__).parent.parent.parent / "spec" / "rest.md"
ROW = re.compile(r"^\| (GET|POST|PUT|PATCH|DELETE|ANY) \| `([^`]+)` \|", re.MULTILINE)


def test_the_documented_routes_are_the_served_ones() -> None:
    node, settings = mock.Mock(), ServerSettings()
    served = [
        (method, re.sub(r":\w+}", "}", route.path))
        for route in [
            *rest.routes(node, settings),
            *pty.routes(node, settings),
            *ports.routes(settings, Exposure(node))[::2],  # each is there for WebSockets too
        ]
        for method in sorted(_methods(route))
    ]

    assert sorted(ROW.findall(SPEC.read_text())) == sorted(served)


def _methods(route: object) -> set[str]:
    """A terminal's route is a GET that asks for an upgrade."""
    if isinstance(route, Route):
        return route.methods - {"HEAD"} if route.methods else {"ANY"}
    return {"GET"}
