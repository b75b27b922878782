"""The examples' command lines, and what their documents say of them."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from causal_lm import options as causal_lm
from common import options as shared
from fsdp_pretrain import options as fsdp_pretrain
from seq2seq import options as seq2seq
from slipway.matrix import image_uri, load_matrix

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"
Parse = Callable[[list[str]], argparse.Namespace]
PARSERS: dict[str, Parse] = {
    "causal_lm": causal_lm.parse,
    "fsdp_pretrain": fsdp_pretrain.parse,
    "seq2seq": seq2seq.parse,
}
all_examples = pytest.mark.parametrize("parse", PARSERS.values(), ids=PARSERS)


@all_examples
def test_an_example_needs_no_arguments(parse: Parse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAUNCH_RESUME_FROM", raising=False)
    options = parse([])
    assert options.steps <= 100
    assert options.resume_from is None


@all_examples
def test_an_example_goes_on_from_what_the_launcher_names(
    parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAUNCH_RESUME_FROM", "/ck/step-7")
    monkeypatch.setenv("LAUNCH_CHECKPOINT_DIR", "/ck")
    options = parse([])
    assert options.resume_from == Path("/ck/step-7")
    assert options.checkpoint_dir == Path("/ck")


@all_examples
@pytest.mark.parametrize("option", ["--output-dir", "--checkpoint-dir"])
@pytest.mark.parametrize("path", ["/opt/ml/model", "/opt/ml/model/final"])
def test_nothing_is_written_where_sagemaker_packs_it_into_one_archive(
    parse: Parse, option: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse([option, path])
    assert "one archive" in capsys.readouterr().err


@all_examples
def test_the_argument_that_the_deepspeed_launcher_adds_is_taken(parse: Parse) -> None:
    assert parse(["--local_rank=1", "--steps", "3"]).steps == 3


@pytest.mark.parametrize("name", PARSERS)
def test_every_option_takes_a_value_and_is_in_the_readme(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SageMaker hyperparameter always has a value."""
    seen: list[argparse.ArgumentParser] = []
    real = shared.parser

    def remember(description: str) -> argparse.ArgumentParser:
        seen.append(real(description))
        return seen[-1]

    monkeypatch.setattr(shared, "parser", remember)
    PARSERS[name]([])
    readme = (EXAMPLES / "README.md").read_text()
    for action in seen[0]._actions:
        if action.help == argparse.SUPPRESS or "--help" in action.option_strings:
            continue
        assert action.nargs is None, action.option_strings
        assert f"`{action.option_strings[0]}`" in readme


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--hidden", "100", "--heads", "3"], "multiple of twice --heads"),
        (["--vocab", "256"], "at least 260"),
        (["--steps", "0"], "not above zero"),
    ],
)
def test_sizes_that_cannot_be_are_usage_errors(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        fsdp_pretrain.parse(arguments)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("hidden", "width"), [(4096, 11008), (5120, 13824), (64, 176)])
def test_the_width_of_the_mlp_is_llamas(hidden: int, width: int) -> None:
    assert shared.mlp_width(hidden) == width


def test_requirements_are_pinned() -> None:
    lines = (EXAMPLES / "requirements.txt").read_text().splitlines()
    asked = [line for line in lines if not line.startswith("#")]
    assert asked
    assert all(re.fullmatch(r"[a-z_-]+==[\d.]+", line) for line in asked), asked


@pytest.mark.parametrize("name", ["causal_lm", "seq2seq"])
def test_deepspeed_shards_everything_and_each_node_keeps_its_part(name: str) -> None:
    config = json.loads((EXAMPLES / name / "zero3.json").read_text())
    assert config["zero_optimization"]["stage"] == 3
    if name == "causal_lm":
        assert config["checkpoint"]["use_node_local_storage"] is True
    else:
        # The Trainer sets it, from save_on_each_node.
        assert "save_on_each_node=True" in (EXAMPLES / name / "train.py").read_text()


def test_the_deploy_note_names_the_lmi_image_of_the_matrix() -> None:
    lmi = load_matrix(ROOT / "versions.yaml").references["lmi"]
    uri = image_uri(lmi.registry, "us-west-2", lmi.repository, lmi.tag)
    text = (EXAMPLES / "deploy.md").read_text()
    assert set(re.findall(r"[\w.-]+\.amazonaws\.com/[\w.:/-]+", text)) == {uri.reference}
