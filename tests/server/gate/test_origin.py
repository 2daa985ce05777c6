"""Which pages may call."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from mitos.server.gate import host
from mitos.server.gate.origin import OriginRule
from mitos.wire.errors import ApiError

BASE_URL = "http://127.0.0.1:8080"
CONSOLE = "https://console.example.com"


def may_call(
    origin: str | None, own_host: str = "localhost:8080", *, site: str | None = None
) -> bool:
    """Whether a request with these headers would be served."""
    raw = [(b"host", own_host.encode())]
    raw += [(b"origin", origin.encode("latin-1"))] if origin is not None else []
    raw += [(b"sec-fetch-site", site.encode())] if site is not None else []
    headers = Headers(raw=raw)
    refusal = None
    try:
        OriginRule(BASE_URL, (CONSOLE,)).check(headers, host.read(headers))
    except ApiError as exc:
        refusal = exc
    if refusal is not None:
        assert (refusal.code, refusal.status) == ("forbidden", 403)
        assert "--allow-origin" in refusal.remediation
    return refusal is None


@pytest.mark.parametrize("site", [None, "none", "same-origin"])
def test_a_program_or_the_user_may_call(site: str | None) -> None:
    assert may_call(None, site=site)


@pytest.mark.parametrize(
    "site", ["cross-site", "same-site", "", "something new", "none, cross-site"]
)
def test_what_another_site_causes_without_an_origin_is_refused(site: str) -> None:
    assert not may_call(None, site=site)


@pytest.mark.parametrize(
    ("origin", "own_host"),
    [
        ("http://localhost:8080", "localhost:8080"),
        ("http://LOCALHOST:8080", "localhost.:8080"),
        ("http://[::1]:8080", "[0:0::1]:8080"),
        ("ws://localhost:8080", "localhost:8080"),
        ("https://mitos.example", "mitos.example"),
        ("https://mitos.example", "mitos.example:443"),
        ("https://mitos.example:443", "mitos.example"),
        ("http://mitos.example", "mitos.example"),
        ("http://mitos.example", "mitos.example:80"),
        ("https://mitos.example:8443", "mitos.example:8443"),
    ],
)
def test_the_servers_own_pages_may_call(origin: str, own_host: str) -> None:
    """A TLS proxy in front changes the scheme, never the host and port."""
    assert may_call(origin, own_host)


@pytest.mark.parametrize("site", [None, "same-origin", "same-site", "cross-site"])
def test_pages_of_the_base_url_and_of_configured_origins_may_call(site: str | None) -> None:
    for origin in (BASE_URL, CONSOLE, f"{CONSOLE}:443", CONSOLE.upper()):
        assert may_call(origin, "localhost:8080", site=site)


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "http://evil.example",
            "http://evil.example:8080",
            "https://localhost",
            "http://localhost",
        ),
        *("http://localhost:8081", "http://127.0.0.1:8081", "http://127.0.0.2:8080"),
        *("http://sandbox-1.localhost:8080", "http://localhost.evil.example:8080"),
        *("http://console.example.com", "https://console.example.com:8443"),
        *("https://evil.console.example.com", "https://console.example.com.evil.example"),
        *("chrome-extension://localhost", "file://", "https://user@console.example.com"),
    ],
)
@pytest.mark.parametrize("site", [None, "none", "same-origin", "cross-site"])
def test_a_foreign_page_is_refused(origin: str, site: str | None) -> None:
    assert not may_call(origin, site=site)


@pytest.mark.parametrize(
    "origin",
    [
        *("null", "", " ", "localhost:8080", "//localhost:8080", "http:localhost:8080"),
        *("http://localhost:8080/", "http://localhost:8080 http://evil.example", "http://"),
        *("http://localhost:8080, http://localhost:8080", "http://localhost:8080\xff", "*"),
        *("http://localhost:80808", "http://localhost:", "http://[::1:8080"),
    ],
)
def test_an_origin_that_is_null_or_malformed_is_foreign(origin: str) -> None:
    assert not may_call(origin)


def test_the_default_port_of_another_scheme_is_foreign() -> None:
    """A page on port 80 is not one of the server that listens on 443 of the same host."""
    assert not may_call("http://localhost", "localhost:443")
    assert not may_call("https://localhost", "localhost:80")


def test_an_origin_said_twice_is_foreign() -> None:
    origin = (b"origin", b"http://localhost:8080")
    headers = Headers(raw=[(b"host", b"localhost:8080"), origin, origin])

    with pytest.raises(ApiError):
        OriginRule(BASE_URL, ()).check(headers, host.read(headers))


def test_without_a_host_only_known_origins_may_call() -> None:
    assert not may_call("http://localhost:8080", "")
    assert may_call(BASE_URL, "")


def test_a_configured_origin_may_be_an_extensions() -> None:
    extension = "chrome-extension://abcdefghijklmnop"
    rule = OriginRule(BASE_URL, (extension,))

    rule.check(Headers({"origin": extension}), None)
    with pytest.raises(ApiError):
        rule.check(Headers({"origin": "chrome-extension://other"}), None)
