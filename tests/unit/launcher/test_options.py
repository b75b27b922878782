"""Options: who wins, what is refused, and with which words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.causes import LaunchUsageError
from launcher.option_table import OPTIONS
from launcher.options import parse_flags, resolve_options, split_values

SOURCES = ("flag", "env", "hyper")


@given(st.sets(st.sampled_from(SOURCES)))
def test_a_flag_wins_over_a_variable_over_a_hyperparameter_over_the_default(
    given: set[str],
) -> None:
    flags = {"grace": "1"} if "flag" in given else {}
    env = {"LAUNCH_GRACE": "2"} if "env" in given else {}
    hyper = {"launch_grace": 3} if "hyper" in given else {}
    value = resolve_options(flags, env, hyper).values["grace"]
    ladder = [
        ("flag", "1", "--grace"),
        ("env", "2", "LAUNCH_GRACE"),
        ("hyper", "3", "launch_grace"),
    ]
    expected = next(((v, s) for n, v, s in ladder if n in given), ("100", "default"))
    assert (value.text, value.source) == expected


def test_an_empty_variable_counts_as_not_set() -> None:
    assert resolve_options({}, {"LAUNCH_GRACE": ""}, {}).values["grace"].source == "default"


@pytest.mark.parametrize(
    ("flags", "env", "hyper", "said"),
    [
        (["--granc", "5"], {}, {}, "unknown option --granc; did you mean grace?"),
        ([], {}, {"launch_runer": "x"}, "launch_runer; did you mean launch_runner?"),
        (["--zzzz=1"], {}, {}, "unknown option --zzzz; `launch help` lists all options"),
        (["--grace"], {}, {}, "--grace needs a value"),
        (["--grace", "--", "x.py"], {}, {}, "--grace needs a value"),
        (["--grace", "soon"], {}, {}, "--grace='soon' is not a whole number"),
        ([], {"LAUNCH_RUNNER": "mpi"}, {}, "LAUNCH_RUNNER='mpi': choose one of auto, torchrun"),
        ([], {}, {"launch_nproc": 0}, "launch_nproc='0': give a number above 0, or auto"),
        ([], {"LAUNCH_JSON": "maybe"}, {}, "LAUNCH_JSON: 'maybe' is neither true nor false"),
        (["train.py"], {}, {}, "'train.py' is not an option. The training script"),
    ],
)
def test_a_mistake_is_a_usage_error_that_names_it(
    flags: list[str], env: dict[str, str], hyper: dict[str, Any], said: str
) -> None:
    with pytest.raises(LaunchUsageError) as caught:
        resolve_options(parse_flags(flags)[0], env, hyper)
    assert said in str(caught.value)


def test_what_the_launcher_exports_to_ranks_is_no_unknown_option() -> None:
    exported = {"LAUNCH_JOB_ID": "j", "LAUNCH_ATTEMPT": "0", "LAUNCH_SCRATCH": "/x"}
    resolve_options({}, {**exported, "LAUNCH_BACKEND": "gloo", "LAUNCH_RESUME_FROM": "/y"}, {})


@given(st.lists(st.text()))
def test_everything_after_the_dashes_is_the_scripts(words: list[str]) -> None:
    assert parse_flags(["--grace", "5", "--", "train.py", *words]) == (
        {"grace": "5"},
        ["train.py", *words],
    )


def test_repeatable_options_collect_their_values_in_order() -> None:
    flags, _ = parse_flags(["--prefetch", "s3://a=/x", "--prefetch=s3://b=/y"])
    assert resolve_options(flags, {}, {}).many("prefetch") == ("s3://a=/x", "s3://b=/y")


def test_a_json_list_of_a_hyperparameter_is_a_repeatable_options_values() -> None:
    settings = resolve_options({}, {}, {"launch_upload": ["/x=s3://a", "/y=s3://b"]})
    assert settings.many("upload") == ("/x=s3://a", "/y=s3://b")


def test_a_flag_may_be_switched_off_again() -> None:
    flags, _ = parse_flags(["--json=false"])
    assert not resolve_options(flags, {"LAUNCH_JSON": "1"}, {}).on("json")


def test_commands_with_words_of_their_own_take_them_without_dashes() -> None:
    assert parse_flags(["--json", "s3://a", "/x"], words=2) == ({"json": "true"}, ["s3://a", "/x"])


def test_every_option_explains_itself_and_has_a_valid_default() -> None:
    resolve_options({option.name: option.default for option in OPTIONS if option.default}, {}, {})
    assert all(option.help for option in OPTIONS)
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", []),
        ("s3://b/x=/d", ["s3://b/x=/d"]),
        ("s3://b/my model=/d", ["s3://b/my model=/d"]),
        ("s3://b/my model=/my  dir", ["s3://b/my model=/my  dir"]),
        ("s3://b/my model=/d s3://b/x=/e", ["s3://b/my model=/d", "s3://b/x=/e"]),
        ("s3://b/a=/x y\ns3://b/c d=/z", ["s3://b/a=/x y", "s3://b/c d=/z"]),
        ("/out=s3://b/p /out two=s3://b/q", ["/out=s3://b/p", "/out two=s3://b/q"]),
        ("/out=s3://b/my model /o=s3://b/x", ["/out=s3://b/my model", "/o=s3://b/x"]),
        ("out=s3://b/p out2=s3://b/q", ["out=s3://b/p", "out2=s3://b/q"]),
        ('["s3://b/a b=/c", "s3://b/d=/e"]', ["s3://b/a b=/c", "s3://b/d=/e"]),
        ("  s3://b/x=/d  ", ["s3://b/x=/d"]),
    ],
)
def test_blanks_in_a_value_do_not_split_it(text: str, values: list[str]) -> None:
    assert split_values(text) == values
    found = resolve_options({}, {"LAUNCH_PREFETCH": text}, {})
    assert list(found.many("prefetch")) == values
    flags, _ = parse_flags(["--prefetch", text]) if text else ({}, [])
    assert list(resolve_options(flags, {}, {}).many("prefetch")) == values


def test_a_repeated_flag_and_a_list_of_hyperparameters_keep_their_values_apart() -> None:
    values = ["s3://b/a b=/c d", "s3://b/x=/y"]
    flags, _ = parse_flags(["--prefetch", values[0], "--prefetch", values[1]])
    assert list(resolve_options(flags, {}, {}).many("prefetch")) == values
    hyper = {"launch_prefetch": values}
    assert list(resolve_options({}, {}, hyper).many("prefetch")) == values
