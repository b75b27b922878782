"""The architecture is a fact of a base: what follows from it, and what stays as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slipway.derive import labels_of, render_dockerfile, table_rows
from slipway.matrix import Image, image_tag, tag_stem
from slipway.matrix.image_tags import parse_image_tag
from slipway.records import Locks, Pin, SdistBuild, python_lock_keys
from slipway.resolve.python_locks import addon_wants
from tests.support.matrix_samples import SMALL, errors_of, image_of, loaded

NOTHING = Locks({}, {}, {})
NAME = "pytorch-2.8-sagemaker-ds0.19.8"
TEMPLATES = Path(__file__).parents[3] / "images" / "templates"
ARM = SMALL.replace("      torch: 2.8.0\n", "      torch: 2.8.0\n      architecture: arm64\n")


@pytest.fixture
def arm(tmp_path: Path) -> Image:
    return image_of(loaded(tmp_path, ARM), NAME)


@pytest.fixture
def usual(tmp_path: Path) -> Image:
    return image_of(loaded(tmp_path, SMALL), NAME)


def test_names_that_people_see_say_what_is_not_usual(arm: Image, usual: Image) -> None:
    assert "-sagemaker-arm64-ds0.19.8" in tag_stem(arm)
    assert "arm64" not in tag_stem(usual)
    tag = image_tag(arm, "a" * 64)
    assert str(parse_image_tag(tag)) == tag
    assert parse_image_tag(tag).architecture == "arm64"
    assert parse_image_tag(image_tag(usual, "a" * 64)).architecture == "amd64"
    assert "ubuntu22.04 arm64" in table_rows([arm])[1]
    assert "ubuntu22.04" in table_rows([usual])[1]


def test_the_dockerfile_and_the_label_say_it(arm: Image, usual: Image) -> None:
    for image, flag, stated in ((arm, "--platform=linux/arm64 ", "arm64"), (usual, "", None)):
        text = render_dockerfile(image, NOTHING, (), TEMPLATES)
        assert f"\nFROM {flag}${{BASE_REGISTRY}}/pytorch-training:2.8.0-" in text
        cell = json.loads(labels_of(image, NOTHING)["io.slipway.matrix"])
        assert cell["base"]["facts"].get("architecture") == stated


def test_closures_are_of_one_architecture(arm: Image, usual: Image) -> None:
    for image, prefix in ((arm, "py312-arm64_"), (usual, "py312_")):
        assert all(key.startswith(prefix) for _, key in python_lock_keys(image, {}))
    asked = {s.architecture for w in addon_wants([arm, usual], {}) for s in w.settings}
    assert asked == {"arm64", "amd64"}
    pin = Pin("thing", "1", ("sha256:0",), source=True)
    assert SdistBuild(pin, "3.12", "arm64").key == "build_thing-1_py312-arm64"
    assert SdistBuild(pin, "3.12", "amd64").key == "build_thing-1_py312"


def test_an_addon_can_be_for_one_architecture(tmp_path: Path) -> None:
    addon = "  ours:\n    env: {A: b}\n    only: {architecture: arm64}\n    because: x\n\ntools:\n"
    matrix = loaded(tmp_path, ARM.replace("\ntools:\n", addon))
    assert [image.name for image in matrix.images if image.addon("ours")] == [NAME]


def test_another_architecture_is_no_fact(tmp_path: Path) -> None:
    errors = errors_of(tmp_path, ARM.replace("architecture: arm64", "architecture: aarch64"))
    assert any("'aarch64'" in what and "'amd64' or 'arm64'" in cure for _, what, cure in errors)
