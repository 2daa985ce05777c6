"""Which server and key: arguments, environment, credential file, defaults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mitos
from mitos._sdk.settings import DEFAULT_BASE_URL, Settings, resolve

URL = "http://server.test"


def write_credentials(directory: Path, content: str) -> None:
    directory.mkdir(parents=True)
    (directory / "credentials.json").write_text(content)


def key() -> str | None:
    return resolve(None, URL).api_key


def test_the_argument_beats_the_variable_beats_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_credentials(tmp_path / "own", '{"token": "from-file"}')
    monkeypatch.setenv("MITOS_CONFIG_DIR", str(tmp_path / "own"))
    assert "from-file" == key()

    monkeypatch.setenv("MITOS_API_KEY", "from-variable")
    assert "from-variable" == key()

    assert "from-argument" == resolve("from-argument", URL).api_key


def test_without_any_there_is_no_key() -> None:
    assert key() is None


def test_the_credential_file_is_in_the_home_by_default(tmp_path: Path) -> None:
    write_credentials(tmp_path / "home" / ".config" / "mitos", '{"token": "from-home"}')

    assert "from-home" == key()


def test_an_empty_config_variable_means_the_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_credentials(tmp_path / "home" / ".config" / "mitos", '{"token": "from-home"}')
    monkeypatch.setenv("MITOS_CONFIG_DIR", "")

    assert "from-home" == key()


def test_an_empty_argument_or_variable_stops_the_search(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_credentials(tmp_path / "home" / ".config" / "mitos", '{"token": "from-home"}')
    monkeypatch.setenv("MITOS_API_KEY", "")

    assert key() is None
    monkeypatch.setenv("MITOS_API_KEY", "from-variable")
    assert resolve("", URL).api_key is None


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"token": ""}', '{"token": 7}', '{"token": null}', "\ufeff", "[" * 9999],
)
def test_a_file_without_a_token_means_no_key(tmp_path: Path, content: str) -> None:
    write_credentials(tmp_path / "home" / ".config" / "mitos", content)

    assert key() is None


def test_a_directory_in_the_file_s_place_means_no_key(tmp_path: Path) -> None:
    (tmp_path / "home" / ".config" / "mitos" / "credentials.json").mkdir(parents=True)

    assert key() is None


def test_the_file_is_read_again_each_time(tmp_path: Path) -> None:
    directory = tmp_path / "home" / ".config" / "mitos"
    write_credentials(directory, '{"token": "first"}')
    assert "first" == key()

    (directory / "credentials.json").write_text(json.dumps({"token": "second"}))

    assert "second" == key()


def test_the_url_argument_beats_the_variable_beats_the_gateway_beats_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "https://mitos.run" == DEFAULT_BASE_URL == resolve(None, None).base_url

    monkeypatch.setenv("MITOS_GATEWAY_SERVICE_HOST", "10.1.2.3")
    assert "http://10.1.2.3:80" == resolve(None, None).base_url

    monkeypatch.setenv("MITOS_GATEWAY_SERVICE_PORT", "8080")
    assert "http://10.1.2.3:8080" == resolve(None, None).base_url

    monkeypatch.setenv("MITOS_BASE_URL", "http://variable.test")
    assert "http://variable.test" == resolve(None, None).base_url

    assert "http://argument.test" == resolve(None, "http://argument.test").base_url


@pytest.mark.parametrize("value", ["", "  ", "/"])
def test_a_blank_url_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MITOS_BASE_URL", value)

    assert DEFAULT_BASE_URL == resolve(None, None).base_url


def test_trailing_slashes_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MITOS_BASE_URL", "http://variable.test//")

    assert "http://variable.test" == resolve(None, None).base_url
    assert "http://argument.test" == resolve(None, "http://argument.test/").base_url
    assert "http://server.test" == mitos.SandboxServer("http://server.test///").url


@pytest.mark.parametrize("url", ["", " ", "\t", "/"])
def test_a_blank_url_argument_is_missing_base_url(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("MITOS_API_KEY", "key-that-nobody-may-see")

    with pytest.raises(mitos.AgentRunError) as caught:
        mitos.create("python", base_url=url)

    assert "missing_base_url" == caught.value.code
    assert "base_url" in caught.value.remediation
    assert "MITOS_BASE_URL" in caught.value.remediation
    assert "key-that" not in str(caught.value)
    with pytest.raises(mitos.AgentRunError, match="missing_base_url"):
        mitos.SandboxServer(url)


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://a.test", "http://a:port", "http://\x00"])
def test_what_is_no_web_address_is_refused_before_any_request(url: str) -> None:
    with pytest.raises(mitos.AgentRunError, match=r"\[invalid_base_url\].*http://"):
        mitos.SandboxServer(url).health()


@pytest.mark.parametrize("bad", ["two\nlines", "caf\u00e9", "tab\there", "mi\u2028tos"])
def test_a_key_no_header_can_carry_is_refused_without_being_shown(bad: str) -> None:
    with pytest.raises(mitos.UnauthorizedError) as caught:
        mitos.SandboxServer(URL, bad)

    assert bad not in str(caught.value)
    assert repr(bad)[1:-1] not in str(caught.value)
    assert "MITOS_API_KEY" in caught.value.remediation


def test_settings_do_not_show_the_key() -> None:
    assert "secret" not in repr(Settings(URL, "secret"))


def test_a_server_made_by_hand_looks_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MITOS_API_KEY", "from-variable")
    monkeypatch.setenv("MITOS_BASE_URL", "http://variable.test")

    server = mitos.SandboxServer()

    assert DEFAULT_BASE_URL == server.url
    assert server._http.api_key is None
    found = mitos.SandboxServer.from_auth()
    assert ("http://variable.test", "from-variable") == (found.url, found._http.api_key)
