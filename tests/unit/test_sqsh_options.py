"""How a .sqsh is compressed: from words, and from the configuration."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from ruamel.yaml import YAML

from slipway.errors import UsageError
from slipway.job.house import Settings
from slipway.sqsh.options import SqshOptions

DEFAULTS = YAML(typ="safe").load(Path(__file__).parents[2] / "invoke.yaml")["slipway"]


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


def test_the_defaults_of_the_configuration_are_those_of_the_code() -> None:
    settings = Settings.of(SimpleNamespace(slipway=DEFAULTS))
    assert settings.sqsh_options == SqshOptions()
    assert settings.sqsh_cache == 50_000_000_000


def test_a_flag_wins_over_the_configuration() -> None:
    config = SimpleNamespace(slipway={**DEFAULTS, "sqsh_compression": "gzip"})
    assert Settings.of(config).sqsh_options.compressor == "gzip"
    assert Settings.of(config, sqsh_compression="lz4").sqsh_options.compressor == "lz4"
    assert Settings.of(config, sqsh_compression="").sqsh_options.compressor == "gzip"


@pytest.mark.parametrize("value", ["many", -1])
def test_a_cache_of_no_number_of_gigabytes_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match="sqsh_cache_gb"):
        Settings.of(SimpleNamespace(slipway={**DEFAULTS, "sqsh_cache_gb": value}))
