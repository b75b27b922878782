"""Our own tags, repositories and aliases."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.core import UsageError
from slipway.matrix import Image, Matrix, image_tag, load_matrix, tag_stem
from slipway.matrix import repository_name as repository
from slipway.matrix.image_tags import ImageTag, parse_image_tag
from tests.support.matrix_samples import image_of

ROOT = Path(__file__).parents[3]
BUILD_ID = "3f9ac1d27be0" + "5" * 52
LEGAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")  # opencontainers/distribution-spec:spec.md


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return load_matrix(ROOT / "versions.yaml")


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        (
            "pytorch-2.8-sagemaker-ds0.18.9",
            "2.8.0-py312-cu129-ubuntu22.04-sagemaker-ds0.18.9-3f9ac1d27be0",
        ),
        # CUDA is torch's own, not the toolkit's 13.3
        (
            "pytorch-2.13-hyperpod-ds0.19.2",
            "2.13.0-py312-cu130-amzn2023-hyperpod-ds0.19.2-3f9ac1d27be0",
        ),
        (
            "pytorch-2.13-cpu-sagemaker-ds0.19.8",
            "2.13.0-py312-cpu-amzn2023-sagemaker-ds0.19.8-3f9ac1d27be0",
        ),
        ("smp-2.5-hyperpod", "2.5.1-py311-cu124-ubuntu22.04-hyperpod-dsnone-3f9ac1d27be0"),
        (
            "huggingface-1.13-sagemaker",
            "1.13.1-py39-cu117-ubuntu20.04-sagemaker-ds0.15.2-3f9ac1d27be0",
        ),
        ("local-ds0.19.8", "2.13.0-py311-cpu-debian12-sagemaker-ds0.19.8-3f9ac1d27be0"),
    ],
)
def test_an_images_tag_says_what_is_in_it_and_which_build(
    matrix: Matrix, name: str, tag: str
) -> None:
    assert image_tag(image_of(matrix, name), BUILD_ID) == tag


def test_every_images_tag_is_legal_and_parses_back(matrix: Matrix) -> None:
    for image in matrix.images:
        tag = image_tag(image, BUILD_ID)
        assert LEGAL.fullmatch(tag)
        assert str(parse_image_tag(tag)) == tag
        assert tag == f"{tag_stem(image)}-{BUILD_ID[:12]}"


NUMBER = st.integers(0, 99).map(str)
VERSION = st.lists(NUMBER, min_size=2, max_size=4).map(".".join)
LOCAL = st.builds("{}+cu{}torch{}".format, VERSION, NUMBER, VERSION)
LABEL = st.from_regex(r"[a-z]{1,9}", fullmatch=True)
TAGS = st.builds(
    ImageTag,
    torch=VERSION,
    python=st.integers(6, 30).map(lambda minor: f"3.{minor}"),
    cuda=st.none() | st.builds(lambda a, b: f"{a}.{b}", st.integers(10, 99), st.integers(0, 9)),
    os=st.from_regex(r"[a-z]{2,12}[0-9]{0,4}(\.[0-9]{2})?", fullmatch=True),
    platform=st.sampled_from(["sagemaker", "hyperpod"]),
    addons=st.lists(st.tuples(LABEL, st.none() | VERSION | LOCAL), max_size=3).map(tuple),
    build=st.text("0123456789abcdef", min_size=12, max_size=12),
)


@given(TAGS.filter(lambda tag: len(str(tag)) <= 128))
def test_a_tag_survives_being_written_and_read(tag: ImageTag) -> None:
    assert parse_image_tag(str(tag)) == tag
    assert LEGAL.fullmatch(str(tag))


@pytest.mark.parametrize(
    "tag",
    [
        "2.13-sagemaker",
        "latest",
        "2.8.0-py312-cu129-ubuntu22.04-sagemaker-ds0.18.9",
        "2.8.0-py312-cu129-ubuntu22.04-sagemaker-ds0.18.9-3f9ac1d27be",
        "2.8.0-py312-cu129-ubuntu22.04-sagemaker-ds0.18.9-3F9AC1D27BE0",
        "2.8.0-py312-cu129-ubuntu22.04-ec2-ds0.18.9-3f9ac1d27be0",
        f"2.8.0-py312-cu129-ubuntu{'2' * 128}-sagemaker-ds0.18.9-3f9ac1d27be0",
    ],
)
def test_what_is_not_an_immutable_tag_is_refused(tag: str) -> None:
    with pytest.raises(UsageError, match="not a tag of a Slipway image"):
        parse_image_tag(tag)


def test_an_alias_can_never_be_taken_for_an_immutable_tag(matrix: Matrix) -> None:
    for image in matrix.images:
        assert image.aliases
        for alias in image.aliases:
            assert LEGAL.fullmatch(alias)
            with pytest.raises(UsageError):
                parse_image_tag(alias)


def test_an_alias_is_one_images_in_its_repository(matrix: Matrix) -> None:
    held = [(image.repository, alias) for image in matrix.images for alias in image.aliases]
    assert len(held) == len(set(held))


@pytest.mark.parametrize(
    ("repository_name", "alias", "name"),
    [
        ("pytorch", "2.13-sagemaker", "pytorch-2.13-sagemaker-ds0.19.8"),
        ("pytorch", "2.13-hyperpod", "pytorch-2.13-hyperpod-ds0.19.8"),
        ("pytorch", "2.13-cpu-sagemaker", "pytorch-2.13-cpu-sagemaker-ds0.19.8"),
        ("smp", "2.5-hyperpod", "smp-2.5-hyperpod"),
        ("huggingface", "2.9-sagemaker", "huggingface-2.9-sagemaker-ds0.19.8"),
    ],
)
def test_the_short_alias_is_that_of_the_newest_deepspeed(
    matrix: Matrix, repository_name: str, alias: str, name: str
) -> None:
    image = image_of(matrix, name)
    assert image.repository == repository_name
    assert alias in image.aliases


def test_every_repository_has_sagemaker_in_its_name(matrix: Matrix) -> None:
    # AmazonSageMakerFullAccess grants ECR writes to `*sagemaker*` repositories only.
    for image in matrix.images:
        assert "sagemaker" in repository(image, matrix.repository_prefix)


def test_a_repository_is_the_prefix_and_what_kind_of_image_it_is(matrix: Matrix) -> None:
    image: Image = dataclasses.replace(matrix.images[0], repository="pytorch")
    assert repository(image, "team/sagemaker") == "team/sagemaker/pytorch"
