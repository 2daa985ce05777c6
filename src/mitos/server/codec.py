"""Proto-JSON as published clients send it: the official codec, and two spellings it does not know.

The published cluster client names the working directory `workingDir` and sends `env` as an object.
Both are taken for what they mean, in JSON only.

The official decoder is native and recurses without a bound: some ten thousand opening brackets end
the whole process. The depth of a message is therefore checked before it is decoded.
"""

from __future__ import annotations

import json
import re
from typing import Any

from connectrpc.codec import proto_binary_codec, proto_json_codec
from protobuf import Message

from mitos.wire._generated.sandbox.v1.sandbox_pb import ExecRequest, ExecStreamRequest

__all__ = ["LenientJsonCodec", "codecs"]

MAX_DEPTH = 64
"""Of objects and lists in one message; the service's own nest five deep."""

_BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{]|[\]}]', re.DOTALL)
"""A whole string, which may hold any bracket, or one bracket."""

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
        """As the official codec, after the aliases are replaced.

        Raises:
            ValueError: not JSON of this message, or nested too deep.
            TypeError: a member is of another kind.
        """
        if _is_too_deep(data):
            raise ValueError(f"the message nests more than {MAX_DEPTH} deep")
        if message_class in _ALIASED:
            data = _without_aliases(data)
        return self._strict.decode(data, message_class)


def _is_too_deep(data: bytes | bytearray) -> bool:
    """True when the JSON nests deeper than the native decoder is given."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return False  # the usual case; a file's content is one long string without brackets
    depth = 0
    for match in _BRACKET.finditer(data):
        if match[0] in (b"[", b"{"):
            depth += 1
        elif match[0] in (b"]", b"}"):
            depth -= 1
        if depth > MAX_DEPTH:
            return True
    return False


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
