"""The little of protobuf and of gRPC's framing that a BuildKit session takes.

Wire format: protobuf.dev, "Encoding". gRPC framing: grpc/grpc:doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

from collections.abc import Iterator

Value = int | bytes

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class WireError(ValueError):
    """The bytes are not a protobuf message."""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise WireError("a number runs past the end of the message")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


def message_fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Yield (field number, value) in the order of the message.

    Numbers are unsigned; strings, bytes and nested messages all come as bytes. Raises WireError
    for a truncated message and for the group wire types, which proto3 does not use.
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise WireError(f"wire type {kind} is not used in proto3")
        if at + size > len(data):
            raise WireError("a field runs past the end of the message")
        yield number, data[at : at + size]
        at += size


def text_value(value: Value) -> str:
    """A string field as text; what is not UTF-8 in it is replaced, for it is only shown."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_field(number: int, value: Value | str) -> bytes:
    """One encoded field. proto3 leaves out what is zero or empty, and so does this."""
    if isinstance(value, str):
        value = value.encode()
    if not value:
        return b""
    if isinstance(value, int):
        return _encode_varint(number << 3 | _VARINT) + _encode_varint(value)
    return _encode_varint(number << 3 | _BYTES) + _encode_varint(len(value)) + value


def frame_message(message: bytes) -> bytes:
    """One gRPC message, not compressed: a flag byte, four bytes of length, the message."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def unframe_messages(data: bytes) -> bytes:
    """The one message of a unary gRPC call. Raises WireError where it is anything else."""
    if len(data) < 5 or data[0] != 0 or int.from_bytes(data[1:5], "big") != len(data) - 5:
        raise WireError("not exactly one uncompressed gRPC message")
    return data[5:]
