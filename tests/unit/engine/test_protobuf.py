"""The protobuf subset: vectors are from protobuf.dev, "Encoding"."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.engine.buildkit.protobuf import (
    WireError,
    encode_field,
    frame_message,
    message_fields,
    text_value,
    unframe_messages,
)


def test_a_number_is_encoded_as_the_protobuf_page_shows() -> None:
    assert encode_field(1, 150) == bytes.fromhex("089601")
    assert list(message_fields(bytes.fromhex("089601"))) == [(1, 150)]


def test_a_string_is_encoded_as_the_protobuf_page_shows() -> None:
    assert encode_field(2, "testing") == bytes.fromhex("120774657374696e67")
    assert list(message_fields(bytes.fromhex("120774657374696e67"))) == [(2, b"testing")]


def test_a_nested_message_is_bytes_that_decode_again() -> None:
    [(number, inner)] = message_fields(bytes.fromhex("1a03089601"))
    assert number == 3
    assert isinstance(inner, bytes)
    assert list(message_fields(inner)) == [(1, 150)]


def test_fixed_width_fields_are_passed_over_at_their_width() -> None:
    fixed64, fixed32 = bytes.fromhex("09") + b"12345678", bytes.fromhex("15") + b"1234"
    assert list(message_fields(fixed64 + fixed32 + encode_field(3, 7))) == [
        (1, b"12345678"),
        (2, b"1234"),
        (3, 7),
    ]


def test_what_is_empty_is_left_out() -> None:
    assert encode_field(1, 0) == encode_field(2, "") == encode_field(3, b"") == b""


@given(st.integers(1, 500), st.integers(1, 2**63 - 1), st.binary(min_size=1, max_size=300))
def test_what_is_encoded_decodes_to_the_same(number: int, count: int, data: bytes) -> None:
    message = encode_field(number, count) + encode_field(number + 1, data)
    assert list(message_fields(message)) == [(number, count), (number + 1, data)]


@given(st.binary(max_size=64))
def test_any_bytes_either_decode_or_are_a_wire_error(data: bytes) -> None:
    try:
        decoded = list(message_fields(data))
    except WireError:
        return
    assert all(number >= 0 for number, _ in decoded)


@pytest.mark.parametrize("message", ["0896", "1207746573", "0b", "09123456", "08" + "ff" * 11])
def test_a_torn_message_is_an_error(message: str) -> None:
    with pytest.raises(WireError):
        list(message_fields(bytes.fromhex(message)))


def test_text_that_is_not_utf8_is_shown_all_the_same() -> None:
    assert text_value(b"caf\xe9") == "caf\N{REPLACEMENT CHARACTER}"


def test_a_grpc_frame_has_a_flag_and_a_length() -> None:
    assert frame_message(b"abc") == b"\x00\x00\x00\x00\x03abc"
    assert unframe_messages(b"\x00\x00\x00\x00\x03abc") == b"abc"


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0\3ab", b"\1\0\0\0\3abc", b"\0\0\0\0\3abcd"])
def test_anything_but_one_plain_grpc_message_is_an_error(data: bytes) -> None:
    with pytest.raises(WireError):
        unframe_messages(data)
