"""Settings of the server; `cli` fills them in."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["PreviewSettings", "ServerSettings"]


@dataclass(frozen=True, slots=True)
class PreviewSettings:
    """Where preview URLs point, and what signs them."""

    origin: str
    """Scheme, domain and port, such as `https://preview.example.com`; a sandbox's label goes before
    the domain.
    """

    secret: bytes = field(repr=False)
    """Key of the signatures, at least 16 bytes."""

    ttl_s: int = 3600


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the server takes requests."""

    base_url: str = "http://127.0.0.1:8080"
    """The server's own origin; told to clients as a sandbox's `endpoint`."""

    api_key: str | None = None
    """Bearer key every `/v1` and runtime call needs; None serves everybody (loopback only)."""

    is_mock: bool = False
    """True when the engine isolates nothing; health says so."""

    allowed_hosts: tuple[str, ...] = ()
    """Names beside loopback and `base_url` that a server without a key is served under."""

    allowed_origins: tuple[str, ...] = ()
    """Origins of other sites whose pages may call, such as `https://console.example.com`."""

    preview: PreviewSettings | None = None
    """None answers that previews are not enabled."""

    max_body_bytes: int = 32 << 20
    """Body of a control-plane request."""

    max_message_bytes: int = 128 << 20
    """One message of a runtime call. A published client sends a whole file as one message, base64
    in JSON.
    """

    max_connections: int = 4096
    """Connections at the same time; at most half of the descriptors the process may open."""

    default_exec_timeout_s: int = 30
    default_code_timeout_s: int = 60

    def __repr__(self) -> str:
        return f"ServerSettings(base_url={self.base_url!r}, is_mock={self.is_mock})"
