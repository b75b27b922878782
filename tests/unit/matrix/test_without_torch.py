"""Bases without torch, and images to which an add-on brings it."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.derive import render_dockerfile, table_rows
from slipway.matrix import image_tag, tag_stem
from slipway.matrix.image_tags import parse_image_tag
from slipway.records import Locks
from slipway.resolve.python_locks import present_on
from slipway.verify import capabilities_of
from tests.support.matrix_samples import SMALL, errors_of, image_of, loaded

TEMPLATES = Path(__file__).parents[3] / "images" / "templates"
BASE = """\
  cuda-13.0:
    registry: dlc
    repository: nvidia/cuda
    grammar: free
    family: system
    facts: {torch: none, python: "3.12", os: ubuntu24.04, cuda: "13.0"}
    flavours:
      plain: {gpu: 13.0.1-devel-ubuntu24.04}

addons:
  torch:
    version: axis
    tag: torch
    only: {bases: ["cuda-*"]}
    because: the base has none
  old:
    env: {OLD: "1"}
    only: {torch: "<2.10"}
    because: for old ones
"""
GROUP = """\
images:
  bare:
    repository: bare
    axes: {base: ["cuda-*"], platform: [hyperpod], torch: [none, 2.13.0+cu130]}
    name: "{series}-torch{torch}"
    size_budget_mb: 5000
"""
TEXT = SMALL.replace("\naddons:\n", f"{BASE}", 1).replace("images:\n", GROUP, 1)
BARE, WITH = "cuda-13.0-torchnone", "cuda-13.0-torch2.13.0_cu130"


def test_tag_table_and_dockerfile_say_whether_torch_is_there(tmp_path: Path) -> None:
    matrix = loaded(tmp_path, TEXT)
    for name, stem, torch in (
        (BARE, "notorch-py312-cu130-ubuntu24.04-hyperpod-torchnone", ""),
        (WITH, "2.13.0_cu130-py312-cu130-ubuntu24.04-hyperpod-torch2.13.0_cu130", "2.13.0+cu130"),
    ):
        image = image_of(matrix, name)
        assert tag_stem(image) == stem
        tag = image_tag(image, "a" * 64)
        assert (str(parse_image_tag(tag)), parse_image_tag(tag).torch) == (tag, torch)
        assert image.torch == torch
        assert table_rows([image])[1][1] == (torch or "-")
        text = render_dockerfile(image, Locks({}, {}, {}), (), TEMPLATES)
        assert "no torch, python 3.12, cuda 13.0, ubuntu24.04" in text


def test_what_needs_torch_is_claimed_where_it_is(tmp_path: Path) -> None:
    matrix = loaded(tmp_path, TEXT)
    bare, with_torch = (
        {claim.name for claim in capabilities_of(image_of(matrix, name))} for name in (BARE, WITH)
    )
    assert not {"torch", "torch-gpu"} & bare
    assert {"torch", "torch-gpu", "gpu"} <= with_torch
    assert "gpu" in bare  # the toolkit is there all the same


def test_conditions_on_torch_and_what_may_not_move(tmp_path: Path) -> None:
    matrix = loaded(tmp_path, TEXT)
    assert {image.name for image in matrix.images if image.addon("old")} == {
        "pytorch-2.8-sagemaker-ds0.19.8"
    }
    assert "torch" not in present_on(image_of(matrix, BARE).base, None)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('ubuntu24.04, cuda: "13.0"}', "ubuntu24.04}", "states `cuda` (nvcc)"),
        ('os: ubuntu24.04, cuda: "13.0"', 'os: ubuntu24.04, cuda: "13.0", torch_cuda: "13.0"',
         "a base without torch has no CUDA that torch"),
        ("torch: none, python", "torch: nothing, python", "'nothing' is not one exact version"),
    ],
)  # fmt: skip
def test_a_mistake_is_said(tmp_path: Path, old: str, new: str, what: str) -> None:
    assert TEXT.count(old) == 1
    said = [said for _, said, _ in errors_of(tmp_path, TEXT.replace(old, new))]
    assert any(what in one for one in said), said
