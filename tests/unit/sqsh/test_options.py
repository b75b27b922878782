"""How a .sqsh is compressed, from a word."""

from __future__ import annotations

import pytest

from slipway.core import UsageError
from slipway.squashfs import SqshOptions


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("zstd", SqshOptions()),
        ("zstd-1", SqshOptions("zstd", 1)),
        ("zstd-19", SqshOptions("zstd", 19)),
        ("gzip", SqshOptions("gzip", None)),
        ("gzip-6", SqshOptions("gzip", 6)),
        ("lz4", SqshOptions("lz4", None)),
        ("none", SqshOptions("none", None)),
    ],
)
def test_a_compression_is_one_word(text: str, wanted: SqshOptions) -> None:
    assert SqshOptions.parse(text) == wanted


@pytest.mark.parametrize(
    "text", ["", "zst", "zstd-", "zstd-0", "zstd-23", "zstd-x", "zstd--1", "lz4-1", "none-1", "-1"]
)
def test_a_compression_that_does_not_exist_is_refused_with_those_that_do(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        SqshOptions.parse(text)
    assert any(word in str(caught.value) for word in ("zstd, gzip", "takes 1 to 22", "no level"))
