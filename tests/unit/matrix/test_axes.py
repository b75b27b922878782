"""A group varies over its axes: base, platform, and any add-on's versions."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from slipway.matrix import image_tag
from tests.support.matrix_samples import SMALL, changed, errors_of, image_of, loaded

ADDONS = (
    "\ntools:",
    """
  flash-attn:
    version: axis
    tag: fa
    because: fused attention
    only: {device: gpu}
  apex:
    version: 0.1.0
    because: fused layers
tools:""",
)
AXES = (
    "deepspeed: [0.19.2, 0.19.8]\n      platform: [sagemaker]",
    "deepspeed: [0.19.2, 0.19.8]\n      flash-attn: [none, 2.8.3+cu130torch2.13]\n"
    "      apex: [0.1.0, 0.2.0]\n      platform: [sagemaker, hyperpod]",
)
NAME = (
    'platform: [sagemaker]\n    name: "{series}-{platform}-ds{deepspeed}"\n'
    '    aliases: {"{minor}-{platform}": {deepspeed: 0.19.8}}',
    'platform: [sagemaker]\n    name: "{series}-{platform}-ds{deepspeed}-{flash-attn}-{apex}"\n'
    '    aliases: {"{minor}-{platform}-{flash-attn}": {deepspeed: 0.19.8, apex: 0.2.0}}',
)
LAST = ("default: pytorch-2.8-sagemaker-ds0.19.8", "default: pytorch-2.13-hyperpod-ds0.19.8")
FIVE = changed(ADDONS, NAME, LAST).replace(*AXES)


def test_five_axes_are_multiplied_and_each_cell_has_what_it_is_named_for(tmp_path: Path) -> None:
    matrix = loaded(tmp_path, FIVE)
    names = [image.name for image in matrix.images if image.group == "sagemaker"]
    deepspeed = {"pytorch-2.13": ("0.19.2", "0.19.8"), "pytorch-2.8": ("0.19.8",)}
    assert names == [
        f"{series}-{platform}-ds{ds}-{flash}-{apex}"
        for series, versions in deepspeed.items()
        for ds, flash, apex, platform in itertools.product(
            versions,
            ("none", "2.8.3_cu130torch2.13"),
            ("0.1.0", "0.2.0"),
            ("sagemaker", "hyperpod"),
        )
    ]
    image = image_of(matrix, "pytorch-2.8-hyperpod-ds0.19.8-2.8.3_cu130torch2.13-0.2.0")
    flash = image.addon("flash-attn")
    assert flash is not None
    assert flash.requirements == ("flash-attn==2.8.3+cu130torch2.13",)
    assert [image.addons[1].version, image.addons[3].version] == ["0.19.8", "0.2.0"]
    assert image_tag(image, "5" * 64) == (
        "2.8.0-py312-cu129-ubuntu22.04-hyperpod-ds0.19.8-fa2.8.3_cu130torch2.13-apex0.2.0-"
        + "5" * 12
    )
    assert image_of(matrix, "pytorch-2.8-hyperpod-ds0.19.8-none-0.1.0").addon("flash-attn") is None


def test_an_alias_is_for_the_cells_with_the_values_that_it_names(tmp_path: Path) -> None:
    aliases = {image.name: image.aliases for image in loaded(tmp_path, FIVE).images}
    assert {name: held for name, held in aliases.items() if "2.8-" in name and held} == {
        f"pytorch-2.8-{platform}-ds0.19.8-{flash}-0.2.0": (f"2.8-{platform}-{flash}",)
        for platform in ("sagemaker", "hyperpod")
        for flash in ("none", "2.8.3_cu130torch2.13")
    }


@pytest.mark.parametrize(
    ("condition", "left"),
    [
        ("base: pytorch-2.13-*", {"pytorch-2.8"}),
        ("platform: hyperpod", {"sagemaker"}),
        ("apex: 0.2.0", {"0.1.0"}),
        ("flash-attn: none", {"2.8.3_cu130torch2.13"}),
        ("flash-attn: 2.8.3+cu130torch2.13", {"-none-"}),
    ],
)
def test_any_axis_can_be_excluded_by(tmp_path: Path, condition: str, left: set[str]) -> None:
    more = f"\n      - {{{condition}, because: it is not wanted}}\n  hyperpod:"
    matrix = loaded(tmp_path, FIVE.replace("\n  hyperpod:", more))
    names = [image.name for image in matrix.images if image.group == "sagemaker"]
    assert names
    assert all(any(word in name for word in left) for name in names)


def test_an_addon_that_a_group_does_not_vary_over_is_as_the_base_has_it(tmp_path: Path) -> None:
    (image,) = [image for image in loaded(tmp_path, FIVE).images if image.group == "hyperpod"]
    assert image.addon("flash-attn") is None
    assert [addon.name for addon in image.addons] == ["deepspeed", "apex", "s5cmd"]
    assert "fa" not in image_tag(image, "5" * 64)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("apex: [0.1.0, 0.2.0]", "apax: [0.1.0]", "no add-on 'apax' (did you mean apex?)"),
        ("apex: [0.1.0, 0.2.0]", "apex: []", "images.sagemaker.axes.apex is"),
        ("apex: [0.1.0, 0.2.0]", "apex: 0.1.0", "images.sagemaker.axes.apex must be a list"),
        ("apex: [0.1.0, 0.2.0]", 'apex: [">=1"]', "'>=1' is not one exact version"),
        ("2.8.3+cu130torch2.13", "2.8.3+cu130/x", "is not one exact version"),
        ("- {base: pytorch-2.8-*", "- {bass: pytorch-2.8-*", "unknown key 'bass'"),
        ("apex: 0.2.0}}", "apax: 0.2.0}}", "is for apax, which this group does not vary over"),
        ("apex: 0.2.0}}", "apex: 0.3.0}}", "is for apex 0.3.0, which this group does not make"),
        ("{device: gpu}", "{device: cpu}", "which is not for it"),
        ("tag: fa", "tag: ds", "flash-attn and deepspeed are 'ds' in a tag"),
        ("2.8.3+cu130torch2.13]", f"2.8.3+{'a' * 54}]", "is not a tag of a Slipway image"),
        ("    version: 0.1.0\n", "    requires: [rich]\n", "apex has no version of its own"),
    ],
)
def test_a_mistake_in_an_axis_is_said(tmp_path: Path, old: str, new: str, what: str) -> None:
    assert FIVE.count(old) == 1
    assert any(what in said for _, said, _ in errors_of(tmp_path, FIVE.replace(old, new)))


def test_a_downgrade_that_nothing_needs_is_an_error(tmp_path: Path) -> None:
    rule = "    downgrade: [{addon: deepspeed, because: a customer asks}]\n    exclude:\n"
    found = errors_of(tmp_path, SMALL.replace("    exclude:\n", rule))
    assert [what for _, what, _ in found] == ["this downgrade of sagemaker matches no image"]


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("[0.19.2, 0.19.8]", "[0.19.2, 0.19.8, 0.19.2]", "0.19.2 stands on this axis already"),
        ("[0.19.2, 0.19.8]", "[0.19.2, 0.19.8, 0.19.8.0]", "0.19.8.0 is 0.19.8, which stands on"),
        ("[sagemaker]\n    name", "[sagemaker, sagemaker]\n    name", "sagemaker stands on this"),
    ],
)
def test_an_axis_has_each_value_once_by_its_version(
    tmp_path: Path, old: str, new: str, what: str
) -> None:
    ((_, told, _),) = errors_of(tmp_path, SMALL.replace(old, new, 1))
    assert told.startswith(what)
