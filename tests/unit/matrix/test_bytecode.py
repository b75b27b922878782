"""`bytecode` of a group: a layer more for each Python add-on, counted where it is on only.

What is in the layer: tests/unit/images/test_bytecode.py.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from slipway.core import Project
from slipway.derive import (
    BuildInputs,
    build_inputs,
    labels_of,
    plan_steps,
    render_dockerfile,
    shared_inputs,
)
from slipway.matrix import Image, Matrix, explain_image
from slipway.records import BuildRecord, ImageRecord, Locks
from slipway.verify import suite_hash
from tests.support.matrix_samples import changed, image_of, loaded

ROOT = Path(__file__).parents[3]
PROJECT = Project.at(ROOT)
NOTHING = Locks({}, {}, {})
BUDGET = "    size_budget_mb: 350\n"
TEXT = changed((BUDGET, f"    bytecode: true\n{BUDGET}"))
ON, OFF = "pytorch-2.13-sagemaker-ds0.19.8", "pytorch-2.13-hyperpod-ds0.19.8"


def inputs_of(image: Image, bytecode: str = "") -> BuildInputs:
    """`bytecode`: the hash of another script that compiles."""
    common = shared_inputs(PROJECT)
    common = replace(common, bytecode=bytecode or common.bytecode)
    return build_inputs(PROJECT, image, NOTHING, (), common)


def dockerfile(image: Image) -> str:
    return render_dockerfile(image, NOTHING, (), PROJECT.templates)


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    return loaded(tmp_path_factory.mktemp("on"), TEXT)


def test_each_python_addon_is_compiled_above_its_own_layer(matrix: Matrix) -> None:
    image = image_of(matrix, ON)
    assert [addon.name for addon in image.python_addons] == ["sagemaker-training", "deepspeed"]
    layers = [*inputs_of(image).layers]
    assert layers[:4] == [
        "sagemaker-training",
        "sagemaker-training:bytecode",
        "deepspeed",
        "deepspeed:bytecode",
    ]
    python = image.base.family.python
    assert f'["{python}", "-B", "/mnt/compile_bytecode.py", "deepspeed"]' in dockerfile(image)
    assert explain_image(image)["bytecode"] is True
    assert '"bytecode":true' in labels_of(image, NOTHING)["io.slipway.matrix"]


def test_images_without_it_are_as_if_there_were_no_such_key(tmp_path: Path) -> None:
    """A label, a Dockerfile and a build id that tell nothing of it, stated as off or not at all."""
    off = TEXT.replace("bytecode: true", "bytecode: false")
    stated, unstated = loaded(tmp_path, off), loaded(tmp_path, changed())
    for name in (ON, OFF):
        one, other = image_of(stated, name), image_of(unstated, name)
        assert one == other
        assert "bytecode" not in dockerfile(one)
        before = inputs_of(one)
        assert before.bytecode == ""
        assert inputs_of(one, bytecode="another compiler").build_id == before.build_id


def test_what_compiles_counts_for_the_images_that_are_compiled(matrix: Matrix) -> None:
    compiled, plain = image_of(matrix, ON), image_of(matrix, OFF)
    before, after = inputs_of(compiled), inputs_of(compiled, bytecode="f" * 64)
    assert before.build_id != after.build_id
    moved = [name for name, key in after.layers.items() if before.layers[name] != key]
    # What a command leaves depends on all that is below it.
    assert moved == ["sagemaker-training:bytecode", "deepspeed", "deepspeed:bytecode"]
    assert inputs_of(plain).build_id == inputs_of(plain, bytecode="f" * 64).build_id
    was = json.loads(json.dumps(before.as_json()))
    record = ImageRecord(built=BuildRecord(before.build_id, was, "r", "i", 1, 1.0))
    (step,) = plan_steps([compiled], {ON: after}, {ON: record}, {}, date(2026, 1, 1))
    assert step.because == ("what compiles modules changed",)


def test_the_checks_of_an_image_that_is_compiled_are_others(matrix: Matrix, tmp_path: Path) -> None:
    compiled, plain = image_of(matrix, ON), image_of(loaded(tmp_path, changed()), ON)
    assert suite_hash(PROJECT, compiled, NOTHING) != suite_hash(PROJECT, plain, NOTHING)
