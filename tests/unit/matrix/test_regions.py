"""Where an image can be had: no region that no source lists; what is not known waits."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from slipway.core import UsageError
from slipway.derive import describe_image, describe_reference
from slipway.matrix import image_uri, load_matrix, select_images
from tests.support.matrix_samples import SMALL, changed, errors_of, image_of, loaded

ROOT = Path(__file__).parents[3]
ACCOUNTS = '"727897471807": [cn-north-1]\n'
GROUPS = (
    ACCOUNTS
    + """    region_groups: {china: [cn-north-1]}
    without: {pytorch-training: [china]}
"""
)
EIGHT = "    end_of_patch: 2026-08-06\n"
LOWER = "deepspeed: [0.19.2, 0.19.8]"


def test_a_repository_is_not_in_the_regions_that_it_lacks(tmp_path: Path) -> None:
    matrix = loaded(tmp_path, changed((ACCOUNTS, GROUPS)))
    old = image_of(matrix, "pytorch-2.8-sagemaker-ds0.19.8").base
    new = image_of(matrix, "pytorch-2.13-sagemaker-ds0.19.8").base
    assert old.registry is not None
    assert new.registry is not None
    assert set(old.registry.accounts) == {"us-east-1", "us-west-2"}
    assert set(new.registry.accounts) == {"us-east-1", "us-west-2", "cn-north-1"}
    with pytest.raises(UsageError, match="no source lists pytorch-training") as caught:
        image_uri(old.registry, "cn-north-1", old.repository, old.tag)
    assert "us-east-1, us-west-2" in (caught.value.cure or "")


def test_one_version_can_lack_a_region_that_its_repository_has(tmp_path: Path) -> None:
    text = changed((EIGHT, f"{EIGHT}    without: [us-west-2]\n"))
    matrix = loaded(tmp_path, text)
    image = image_of(matrix, "pytorch-2.8-sagemaker-ds0.19.8")
    uris = describe_image(matrix, image, date(2026, 1, 1))["base_uris"]
    assert sorted(uris) == ["cn-north-1", "us-east-1"]


@pytest.mark.parametrize("word", ["us-west-3", "chna"])
def test_a_region_that_the_registry_does_not_have_is_a_mistake(tmp_path: Path, word: str) -> None:
    ((_, what, cure),) = errors_of(
        tmp_path, changed((ACCOUNTS, GROUPS.replace("[china]", f"[{word}]")))
    )
    assert what.startswith(f"{word!r} is no region of dlc and no group of regions")
    assert "china" in cure


def test_a_group_of_regions_names_regions_of_the_registry(tmp_path: Path) -> None:
    text = changed((ACCOUNTS, GROUPS.replace("china: [cn-north-1]", "china: [eu-west-1]")))
    (first, *_) = errors_of(tmp_path, text)
    assert "'eu-west-1' of group 'china'" in first[1]


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("pytorch-training: [china]", "pytorch-trainig: [china]",
         "nothing of dlc is in a repository 'pytorch-trainig' (did you mean pytorch-training"),
        ("china: [cn-north-1]", "us-east-1: [cn-north-1], china: [cn-north-1]",
         "group 'us-east-1' has the name of a region"),
        ("china: [cn-north-1]", "china: []", "group 'china' names no region"),
    ],
)  # fmt: skip
def test_what_narrows_a_registry_speaks_of_what_it_has(
    tmp_path: Path, old: str, new: str, what: str
) -> None:
    ((line, told, _),) = errors_of(tmp_path, changed((ACCOUNTS, GROUPS.replace(old, new))))
    assert told.startswith(what)
    assert line == SMALL[: SMALL.index(ACCOUNTS)].count("\n") + (3 if "train" in old else 2)


def test_a_series_of_which_a_fact_is_asked_waits_and_no_group_takes_it(tmp_path: Path) -> None:
    text = changed(
        (EIGHT, f"{EIGHT}    unknown: {{deepspeed: which one does it carry?}}\n"),
        ("      - {base: pytorch-2.8-*, deepspeed: 0.19.2, because: one is enough}\n", ""),
        ("    exclude:\n", ""),
        ("default: pytorch-2.8-sagemaker", "default: pytorch-2.13-sagemaker"),
    )
    matrix = loaded(tmp_path, text)
    assert not [image for image in matrix.images if image.base.series == "pytorch-2.8"]
    (waiting,) = matrix.waiting
    assert waiting.name == "pytorch-2.8-sagemaker-gpu"
    assert waiting.questions == {"deepspeed": "which one does it carry?"}
    for asked in ("pytorch-2.8", "pytorch-2.8-sagemaker-ds0.19.8", "pytorch-2.8-*"):
        with pytest.raises(UsageError) as caught:
            select_images(matrix, [asked])
        assert caught.value.what == f"no image {asked!r} yet: pytorch-2.8 waits for deepspeed"


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("      torch: 2.8.0\n", "", "`torch` is missing from bases.pytorch-2.8.facts"),
        ('      python: "3.12"\n', "", "`python` is missing from bases.pytorch-2.8.facts"),
        (EIGHT, f"{EIGHT}    unknown: {{torch: which?}}\n", "`torch` is unknown here, and stated"),
        (EIGHT, f"{EIGHT}    unknown: {{tourch: which?}}\n", "'tourch' is no fact and no add-on"),
    ],
)
def test_a_fact_is_stated_or_asked_for(tmp_path: Path, old: str, new: str, what: str) -> None:
    assert any(text.startswith(what) for _, text, _ in errors_of(tmp_path, changed((old, new))))


@pytest.mark.parametrize("version", ["0.19.1", "0.9.0", "0.18.10"])
def test_an_image_with_less_than_its_base_carries_needs_a_reason(
    tmp_path: Path, version: str
) -> None:
    lower = changed((LOWER, f"deepspeed: [{version}, 0.19.2, 0.19.8]"))
    errors = errors_of(tmp_path, lower)
    assert [text for _, text, _ in errors] == [
        f"pytorch-2.13-sagemaker-ds{version} would lower deepspeed from 0.19.2, which "
        f"pytorch-2.13-sagemaker-gpu carries, to {version}"
    ]
    said = "    downgrade: [{base: pytorch-2.13-*, addon: deepspeed, because: a customer asks}]\n"
    allowed = lower.replace("    exclude:\n", f"{said}    exclude:\n")
    assert image_of(loaded(tmp_path, allowed), f"pytorch-2.13-sagemaker-ds{version}")


@pytest.mark.parametrize("version", ["0.19.2", "0.19.10", "0.20.0"])
def test_versions_are_compared_and_not_their_letters(tmp_path: Path, version: str) -> None:
    text = changed(
        (LOWER, f"deepspeed: [{version}, 0.19.8]"),
        ("deepspeed: 0.19.2, b", f"deepspeed: {version}, b"),
    )
    assert image_of(loaded(tmp_path, text), f"pytorch-2.13-sagemaker-ds{version}")


def test_the_real_matrix_gives_no_uri_in_a_region_that_no_source_lists() -> None:
    """Counts of sagemaker-core 2.27.0's tables."""
    matrix = load_matrix(ROOT / "versions.yaml")
    regions = {base.series: len(base.registry.accounts) for base in matrix.bases if base.registry}
    expected = {f"pytorch-2.{minor}": 45 for minor in range(9, 14)}
    expected |= {"pytorch-2.8": 39, "pytorch-2.7": 38, "pytorch-2.6": 38, "pytorch-2.7-arm64": 0}
    expected |= {f"huggingface-{v}": 31 for v in ("1.13", "2.0", "2.1", "2.5", "2.7", "2.8", "2.9")}
    expected |= {f"smp-2.{minor}": 17 for minor in range(2, 6)}
    assert regions == expected
    waiting = {base.name: len(base.registry.accounts) for base in matrix.waiting}
    assert set(waiting.values()) == {35}
    references = {name: len(describe_reference(r)["uris"]) for name, r in matrix.references.items()}
    assert references == {"lmi": 44, "vllm": 35, "sglang": 35, "huggingface-vllm": 42}
