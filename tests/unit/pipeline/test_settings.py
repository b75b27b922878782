"""invoke.yaml, variables and flags -> settings."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from ruamel.yaml import YAML

from slipway.core import UsageError
from slipway.pipeline import Settings
from slipway.squashfs import SqshOptions

DEFAULTS = YAML(typ="safe").load(Path(__file__).parents[3] / "invoke.yaml")["slipway"]


def of(flags: dict[str, object] | None = None, **values: object) -> Settings:
    return Settings.of(SimpleNamespace(slipway={**DEFAULTS, **values}), **(flags or {}))


def test_the_defaults_of_the_configuration_are_those_of_the_code() -> None:
    settings = of()
    assert settings.sqsh_options == SqshOptions()
    assert settings.sqsh_cache == 50_000_000_000
    assert settings.sharing.sagemaker is False


def test_a_flag_wins_over_the_configuration() -> None:
    assert of(sqsh_compression="gzip").sqsh_options.compressor == "gzip"
    assert of({"sqsh_compression": "lz4"}, sqsh_compression="gzip").sqsh_options.compressor == "lz4"
    assert of({"sqsh_compression": ""}, sqsh_compression="gzip").sqsh_options.compressor == "gzip"


@pytest.mark.parametrize(
    ("value", "wanted"),
    [("yes", True), ("True", True), (True, True), ("1", True), ("no", False), ("false", False)],
)
def test_who_may_pull_is_not_opened_by_the_word_false(value: object, wanted: bool) -> None:
    assert of(sagemaker_pulls=value).sharing.sagemaker is wanted


def test_the_second_tag_is_asked_for_by_a_flag_or_the_configuration() -> None:
    assert not of().soci
    assert of({"soci": True}).soci
    assert of(soci="yes").soci


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sqsh_cache_gb", "many"),
        ("sqsh_cache_gb", -1),
        ("jobs", "all"),
        ("registry_port", "x"),
        ("sagemaker_pulls", "perhaps"),
        ("sagemaker_pulls", ""),
        ("target", "docker-hub"),
        ("region", "us-wset-2"),
    ],
)
def test_a_value_that_means_nothing_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"{key}|{value}"):
        of(None, **{key: value})
