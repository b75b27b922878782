"""hyperparameters.json becomes arguments exactly as sagemaker-training makes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.platforms import decode_hyperparameters, script_hyperparameters, to_arguments

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("given", "args"),
    [
        # The rules, and the examples, of aws/sagemaker-training-toolkit mapping.py to_cmd_args.
        ({"model_dir": "/opt/ml/model", "batch_size": 25},
         ["--batch_size", "25", "--model_dir", "/opt/ml/model"]),
        ({"x": 1}, ["-x", "1"]),
        ({"flag": None}, ["--flag", ""]),
        ({"on": True}, ["--on", "True"]),
        ({"map": {"b": 2, "a": 1}}, ["--map", "a=1,b=2"]),
        ({"list": [1, "x"]}, ["--list", "[1, 'x']"]),
        ({"text": "a b; echo $(id)"}, ["--text", "a b; echo $(id)"]),
    ],
)  # fmt: skip
def test_arguments_follow_the_toolkits_rules(given: dict[str, Any], args: list[str]) -> None:
    assert to_arguments(given) == args


@given(st.dictionaries(st.text(min_size=2), st.text()))
def test_every_text_reaches_the_script_whole(values: dict[str, str]) -> None:
    args = to_arguments(
        decode_hyperparameters({key: json.dumps(value) for key, value in values.items()})
    )
    assert args == [word for key in sorted(values) for word in (f"--{key}", values[key])]


@given(st.dictionaries(st.text(), JSON_VALUES))
def test_decoding_undoes_sagemakers_encoding(values: dict[str, Any]) -> None:
    assert (
        decode_hyperparameters({key: json.dumps(value) for key, value in values.items()}) == values
    )


def test_a_value_that_is_not_json_is_itself() -> None:
    assert decode_hyperparameters({"a": "train.py", "b": "0.1", "c": ""}) == {
        "a": "train.py",
        "b": 0.1,
        "c": "",
    }


def test_what_is_sagemakers_or_ours_is_not_the_scripts() -> None:
    given = {"sagemaker_program": "x", "launch_nproc": 2, "lr": 1, "relaunch_sagemaker_x": 2}
    assert script_hyperparameters(given) == {"lr": 1, "relaunch_sagemaker_x": 2}
