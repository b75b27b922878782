"""From entries to images: what is kept, installed or replaced; what is excluded; what is chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.core import UsageError
from slipway.matrix import Addon, Base, Image, load_matrix, select_images
from slipway.matrix.addons import AddonEntry, AxisChoice, ReplaceEntry, decide_addon
from slipway.matrix.model import Facts, Family, Platform
from tests.support.matrix_samples import SMALL, changed, image_of, loaded

ROOT = Path(__file__).parents[3]
VARIED = AddonEntry(version="axis", because="the base has none")
PINNED = AddonEntry.model_validate(
    {
        "version": "5.1.4",
        "because": "it gives the train command",
        "platforms": ["sagemaker"],
        "with": {"companion": "3.0.0"},
        "env": {"MODULE": "a.b:main"},
        "replace_below": {"version": "5.1.4", "because": "older ones use a shell"},
    }
)


def base(**carries: str | None) -> Base:
    """A base that carries these."""
    return Base(
        name="b",
        registry=None,
        repository="r",
        tag="t",
        grammar="local",
        family=Family("f", "apt", "/usr/bin/python3", "/", "root"),
        flavour="sagemaker",
        facts=Facts("2.13.0", "3.11", "debian12", "cpu"),
        carries={name.replace("_", "-"): version for name, version in carries.items()},
    )


def action(decided: Addon | None) -> tuple[str, str | None] | None:
    return (decided.action, decided.version) if decided else None


@pytest.mark.parametrize(
    ("carried", "wanted", "expected"),
    [
        ({}, "0.19.8", ("install", "0.19.8")),
        ({"x": "0.19.8"}, "0.19.8", ("keep", "0.19.8")),
        ({"x": "0.19.08"}, "0.19.8", ("keep", "0.19.08")),  # versions, not strings
        ({"x": "0.18.8"}, "0.19.8", ("replace", "0.19.8")),
        ({"x": None}, "0.19.8", ("replace", "0.19.8")),
        ({}, None, None),
    ],
)
def test_an_axis_version_is_installed_kept_or_replaced(
    carried: dict[str, str | None], wanted: str | None, expected: tuple[str, str] | None
) -> None:
    assert (
        action(decide_addon("x", VARIED, base(**carried), "sagemaker", AxisChoice(wanted)))
        == expected
    )


@pytest.mark.parametrize(
    ("carried", "platform", "expected"),
    [
        ({}, "sagemaker", ("install", "5.1.4")),
        ({}, "hyperpod", None),
        ({"sagemaker_training": "5.1.3"}, "sagemaker", ("replace", "5.1.4")),
        ({"sagemaker_training": "5.1.3"}, "hyperpod", ("replace", "5.1.4")),
        ({"sagemaker_training": None}, "hyperpod", ("replace", "5.1.4")),
        ({"sagemaker_training": "5.1.4"}, "sagemaker", ("keep", "5.1.4")),
        ({"sagemaker_training": "5.1.10"}, "sagemaker", ("keep", "5.1.10")),  # 10 > 4
    ],
)
def test_a_pinned_version_replaces_what_is_older_than_its_bound_on_every_platform(
    carried: dict[str, str | None], platform: Platform, expected: tuple[str, str] | None
) -> None:
    decided = decide_addon("sagemaker-training", PINNED, base(**carried), platform)
    assert action(decided) == expected


def test_an_installed_addon_brings_its_companions_and_its_environment() -> None:
    decided = decide_addon("sagemaker-training", PINNED, base(), "sagemaker")
    assert decided is not None
    assert decided.requirements == ("sagemaker-training==5.1.4", "companion==3.0.0")
    assert dict(decided.env) == {"MODULE": "a.b:main"}
    assert decided.because == "it gives the train command"


def test_a_replaced_addon_brings_only_itself_and_says_what_was_there_and_why() -> None:
    decided = decide_addon(
        "sagemaker-training", PINNED, base(sagemaker_training="5.1.1"), "sagemaker", None
    )
    assert decided is not None
    assert decided.requirements == ("sagemaker-training==5.1.4",)
    assert not decided.env
    assert decided.because == "the base carries 5.1.1: older ones use a shell"


def test_a_version_that_is_not_known_is_said_to_be_so() -> None:
    decided = decide_addon(
        "sagemaker-training", PINNED, base(sagemaker_training=None), "sagemaker", None
    )
    assert decided is not None
    assert decided.because.startswith("the base carries a version that is not known: ")


def test_a_kept_addon_installs_nothing() -> None:
    decided = decide_addon("x", VARIED, base(x="0.19.2"), "sagemaker", AxisChoice("0.19.2"))
    assert decided is not None
    assert (decided.requirements, dict(decided.env)) == ((), {})
    assert decided.because == "the base carries 0.19.2"


def test_an_addon_without_a_bound_stays_as_the_base_carries_it() -> None:
    entry = AddonEntry(version="2.0.0", because="it is wanted")
    assert action(decide_addon("x", entry, base(x="1.0.0"), "sagemaker")) == (
        "keep",
        "1.0.0",
    )
    bound = AddonEntry(
        version="2.0.0", because="w", replace_below=ReplaceEntry(version="1.5.0", because="old")
    )
    assert action(decide_addon("x", bound, base(x="1.0.0"), "sagemaker")) == (
        "replace",
        "2.0.0",
    )
    assert action(decide_addon("x", bound, base(x="1.6.0"), "sagemaker")) == (
        "keep",
        "1.6.0",
    )


def test_a_group_is_its_axes_multiplied_less_what_it_excludes(tmp_path: Path) -> None:
    assert [image.name for image in loaded(tmp_path, SMALL).images] == [
        "pytorch-2.13-sagemaker-ds0.19.2",
        "pytorch-2.13-sagemaker-ds0.19.8",
        "pytorch-2.8-sagemaker-ds0.19.8",
        "pytorch-2.13-hyperpod-ds0.19.8",
    ]


def test_addons_come_in_the_files_order_and_tools_after_them(tmp_path: Path) -> None:
    image = image_of(loaded(tmp_path, SMALL), "pytorch-2.8-sagemaker-ds0.19.8")
    assert [addon.name for addon in image.addons] == ["sagemaker-training", "deepspeed", "s5cmd"]


def test_a_cpu_twin_has_no_cuda_and_no_mismatch(tmp_path: Path) -> None:
    bases = {base.name: base for base in loaded(tmp_path, SMALL).bases}
    gpu, cpu = bases["pytorch-2.13-sagemaker-gpu"], bases["pytorch-2.13-sagemaker-cpu"]
    assert (gpu.facts.cuda, gpu.facts.torch_cuda) == ("13.3", "13.0")
    assert gpu.cuda_mismatch
    assert (cpu.facts.cuda, cpu.facts.torch_cuda, cpu.cuda_mismatch) == (None, None, None)


def test_a_flavour_carries_what_its_series_carries_and_its_own(tmp_path: Path) -> None:
    bases = {base.name: base for base in loaded(tmp_path, SMALL).bases}
    both = {"deepspeed": "0.19.2", "sagemaker-training": "5.1.1"}
    assert dict(bases["pytorch-2.13-sagemaker-gpu"].carries) == both
    assert dict(bases["pytorch-2.13-ec2-gpu"].carries) == {"deepspeed": "0.19.2"}
    assert dict(bases["pytorch-2.8-sagemaker-gpu"].carries) == {"sagemaker-training": None}


def test_references_are_images_that_are_pointed_to_and_not_built(tmp_path: Path) -> None:
    text = SMALL + (
        "references:\n  lmi:\n    registry: dlc\n    repository: djl-inference\n    grammar: lmi\n"
        "    tag: 0.36.0-lmi28.0.0-cu130\n    because: to serve\n"
    )
    matrix = loaded(tmp_path, text)
    assert matrix.references["lmi"].tag == "0.36.0-lmi28.0.0-cu130"
    assert "lmi" not in {image.name for image in matrix.images}


def names(images: tuple[Image, ...]) -> list[str]:
    return [image.name for image in images]


def test_no_pattern_selects_every_image(tmp_path: Path) -> None:
    matrix = loaded(tmp_path, SMALL)
    assert select_images(matrix, []) == matrix.images


def test_patterns_select_each_image_once_in_the_matrix_order(tmp_path: Path) -> None:
    matrix = loaded(tmp_path, SMALL)
    assert names(select_images(matrix, ["*-hyperpod-*", "pytorch-2.13-*"])) == [
        "pytorch-2.13-sagemaker-ds0.19.2",
        "pytorch-2.13-sagemaker-ds0.19.8",
        "pytorch-2.13-hyperpod-ds0.19.8",
    ]


def test_an_unknown_name_suggests_near_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean pytorch-2\.8-sagemaker-ds0\.19\.8"):
        select_images(loaded(tmp_path, SMALL), ["pytorch-2.8-sagmaker-ds0.19.8"])


def test_one_unknown_name_among_good_ones_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'nothing-\\*'"):
        select_images(loaded(tmp_path, SMALL), ["pytorch-*", "nothing-*"])


def test_loading_twice_gives_equal_matrices() -> None:
    assert load_matrix(ROOT / "versions.yaml").images == load_matrix(ROOT / "versions.yaml").images


def test_a_matrix_of_a_thousand_images_expands(tmp_path: Path) -> None:
    versions = ", ".join(f"0.50.{number}" for number in range(500))
    text = changed(("deepspeed: [0.19.2, 0.19.8]", f"deepspeed: [0.19.2, 0.19.8, {versions}]"))
    assert len(loaded(tmp_path, text).images) == 1004
