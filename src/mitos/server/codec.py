"""Proto-JSON as published clients send it: the official codec, and two spellings it does not know.

The published cluster client names the working directory `workingDir` and sends `env` as an object.
Both are taken for what they mean, in JSON only.
"""

from __future__ import annotations

import json
from typing import Any

from connectrpc.codec import proto_binary_codec, proto_json_codec
from protobuf import Message

from mitos.wire._generated.sandbox.v1.sandbox_pb import ExecRequest, ExecStreamRequest

__all__ = ["codecs"]

_ALIASED = (ExecStreamRequest, ExecRequest)


class LenientJsonCodec:
    """Decodes the published clients' spellings too."""

    def __init__(self) -> None:
        self._strict = proto_json_codec()

    def name(self) -> str:
        """The content type's name."""
        return self._strict.name()

    def encode(self, message: Message) -> bytes:
        """As the official codec."""
        return self._strict.encode(message)

    def decode(self, data: bytes | bytearray, message_class: type[Any]) -> Any:
        """As the official codec, after the aliases are replaced."""
        if message_class in _ALIASED:
            data = _without_aliases(data)
        return self._strict.decode(data, message_class)


def _without_aliases(data: bytes | bytearray) -> bytes:
    body = json.loads(data)
    if isinstance(body, dict):
        for message in (body, body.get("open")):
            if isinstance(message, dict):
                _replace_aliases(message)
    return json.dumps(body).encode()


def _replace_aliases(message: dict[str, object]) -> None:
    if "workingDir" in message and not message.get("cwd"):
        message["cwd"] = message["workingDir"]
    env = message.get("env")
    if isinstance(env, dict):
        message["env"] = [{"key": key, "value": value} for key, value in env.items()]


def codecs() -> list[Any]:
    """The codecs of the runtime service."""
    return [proto_binary_codec(), LenientJsonCodec()]
