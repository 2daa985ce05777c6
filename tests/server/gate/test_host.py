"""Which hosts a server without a key is served under."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from mitos.server.gate import host
from mitos.server.gate.host import Authority, HostRule
from mitos.wire.errors import ApiError

BASE_URL = "http://192.168.7.5:8080"
LOCAL_ADDRESS = "10.1.2.3"


def is_served(text: str | None, *allowed: str, local_address: str = LOCAL_ADDRESS) -> bool:
    """Whether a request with this `Host` would be served."""
    headers = Headers({} if text is None else {"host": text})
    refusal = None
    try:
        HostRule(BASE_URL, allowed).check(host.read(headers), local_address)
    except ApiError as exc:
        refusal = exc
    if refusal is not None:
        assert (refusal.code, refusal.status) == ("forbidden", 403)
        assert "--allow-host" in refusal.remediation
    return refusal is None


@pytest.mark.parametrize(
    "text",
    [
        *("localhost", "localhost:8080", "LOCALHOST:1", "localhost."),
        *("127.0.0.1", "127.0.0.1:8080", "127.5.5.5:80", "127.255.255.255"),
        *("[::1]", "[::1]:8080", "[0:0:0:0:0:0:0:1]:8080", "[::ffff:127.0.0.1]"),
    ],
)
def test_loopback_is_served(text: str) -> None:
    assert is_served(text)


@pytest.mark.parametrize("text", ["192.168.7.5:8080", "192.168.7.5", "10.1.2.3:8080"])
def test_the_base_url_and_the_address_of_the_connection_are_served(text: str) -> None:
    assert is_served(text)


@pytest.mark.parametrize(
    ("text", "local_address"),
    [("[fe80::1]:8080", "fe80::1%eth0"), ("10.0.0.9", "::ffff:10.0.0.9"), ("[FD00::2]", "fd00::2")],
)
def test_an_address_is_the_same_in_each_of_its_forms(text: str, local_address: str) -> None:
    assert is_served(text, local_address=local_address)


@pytest.mark.parametrize(
    "text",
    [
        *("evil.example", "evil.example:8080", "192.168.7.6", "8.8.8.8:8080", "[2001:db8::1]"),
        *("localhost.evil.example", "127.0.0.1.evil.example", "evil-localhost", "xlocalhost"),
        *("local", "127.0.0", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "0.0.0.0", "::1"),
    ],
)
def test_another_host_is_refused(text: str) -> None:
    assert not is_served(text)


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", ":8080", "localhost:", "localhost:99999", "localhost:8o8o", "localhost:80:80"),
        *(
            "user@localhost",
            "localhost/",
            "localhost evil",
            "localhost,evil",
            "[::1",
            "[localhost]",
        ),
        *("http://localhost", "local\xffhost", "%6cocalhost", "localhost#", "localhost\\x", "."),
        "a" * 300,
    ],
)
def test_a_host_that_is_missing_or_malformed_is_refused(text: str | None) -> None:
    assert not is_served(text)


def test_a_host_said_twice_is_malformed() -> None:
    raw = [(b"host", b"localhost"), (b"host", b"localhost")]

    assert host.read(Headers(raw=raw)) is None


def test_a_name_that_is_not_an_address_is_no_local_address() -> None:
    assert not is_served("mitos.sock", local_address="mitos.sock")


@pytest.mark.parametrize("text", ["box.example.com", "Box.Example.com:8080", "box.example.com."])
def test_a_configured_name_is_served(text: str) -> None:
    assert is_served(text, "BOX.example.com")
    assert not is_served(f"a.{text}", "BOX.example.com")


def test_an_address_the_server_was_told_to_listen_on_is_served() -> None:
    assert is_served("0.0.0.0:8080", "0.0.0.0")
    assert is_served("[::]:8080", "::")


def test_a_host_is_read_with_its_port() -> None:
    assert host.parse("Example.com.:443") == Authority("example.com", 443)
    assert host.parse("[0::1]") == Authority("::1", None)
