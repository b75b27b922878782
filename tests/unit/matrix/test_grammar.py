"""Tags of upstream images: read, written back, and checked against what is stated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.core import UsageError
from slipway.matrix import load_matrix
from slipway.matrix.model import Facts
from slipway.matrix.tag_grammars import GRAMMARS, ParsedTag, disagreements, format_tag, parse_tag

ROOT = Path(__file__).parents[3]
U20, U22, AL = "ubuntu20.04", "ubuntu22.04", "amzn2023"


def classic(torch: str, python: str, cuda: str | None, os: str, flavour: str) -> dict[str, Any]:
    device = "gpu" if cuda else "cpu"
    return {
        "device": device,
        "torch": torch,
        "python": python,
        "cuda": cuda,
        "os": os,
        "flavour": flavour,
    }


def al2023(torch: str, cuda: str | None, flavour: str) -> dict[str, Any]:
    device = "gpu" if cuda else "cpu"
    return {"device": device, "torch": torch, "cuda": cuda, "os": AL, "flavour": flavour}


def hugging(torch: str, library: str, python: str, cuda: str, os: str) -> dict[str, Any]:
    return {**classic(torch, python, cuda, os, "sagemaker"), "transformers": library}


def parallel(torch: str, python: str, cuda: str, **more: str) -> dict[str, Any]:
    parts = {"device": "gpu", "torch": torch, "python": python, "cuda": cuda}
    return {**parts, "flavour": "sagemaker", **more}


# Tag by tag from aws/deep-learning-containers:docs/src/data and the SMP release notes, by hand.
TAGS: dict[str, dict[str, dict[str, Any]]] = {
    "dlc-al2023": {
        "2.13.0-cu133-amzn2023-sagemaker": al2023("2.13.0", "13.3", "sagemaker"),
        "2.13.0-cu133-amzn2023": al2023("2.13.0", "13.3", "ec2"),
        "2.13.0-cpu-amzn2023-sagemaker": al2023("2.13.0", None, "sagemaker"),
        "2.13.0-cpu-amzn2023": al2023("2.13.0", None, "ec2"),
        "2.13-cu133-amzn2023-sagemaker": al2023("2.13", "13.3", "sagemaker"),
        "2.12.1-cu130-amzn2023-sagemaker": al2023("2.12.1", "13.0", "sagemaker"),
        "2.12.1-cu130-amzn2023": al2023("2.12.1", "13.0", "ec2"),
        "2.12.1-cpu-amzn2023-sagemaker": al2023("2.12.1", None, "sagemaker"),
        "2.12.1-cpu-amzn2023": al2023("2.12.1", None, "ec2"),
        "2.11.0-cu130-amzn2023-sagemaker": al2023("2.11.0", "13.0", "sagemaker"),
        "2.11.0-cu130-amzn2023": al2023("2.11.0", "13.0", "ec2"),
        "2.11.0-cpu-amzn2023-sagemaker": al2023("2.11.0", None, "sagemaker"),
        "2.11.0-cpu-amzn2023": al2023("2.11.0", None, "ec2"),
    },
    "dlc-classic": {
        f"{tag}-{flavour}": classic(torch, python, cuda, os, flavour)
        for tag, torch, python, cuda, os in [
            ("2.10.0-gpu-py313-cu130-ubuntu22.04", "2.10.0", "3.13", "13.0", U22),
            ("2.10.0-cpu-py313-ubuntu22.04", "2.10.0", "3.13", None, U22),
            ("2.9.0-gpu-py312-cu130-ubuntu22.04", "2.9.0", "3.12", "13.0", U22),
            ("2.9.0-cpu-py312-ubuntu22.04", "2.9.0", "3.12", None, U22),
            ("2.8.0-gpu-py312-cu129-ubuntu22.04", "2.8.0", "3.12", "12.9", U22),
            ("2.8.0-cpu-py312-ubuntu22.04", "2.8.0", "3.12", None, U22),
            ("2.7.1-gpu-py312-cu128-ubuntu22.04", "2.7.1", "3.12", "12.8", U22),
            ("2.7.1-cpu-py312-ubuntu22.04", "2.7.1", "3.12", None, U22),
            ("2.6.0-gpu-py312-cu126-ubuntu22.04", "2.6.0", "3.12", "12.6", U22),
            ("2.6.0-cpu-py312-ubuntu22.04", "2.6.0", "3.12", None, U22),
        ]
        for flavour in ("sagemaker", "ec2")
    },
    "hf-classic": {
        "2.9.0-transformers5.3.0-gpu-py312-cu130-ubuntu22.04": hugging(
            "2.9.0", "5.3.0", "3.12", "13.0", U22
        ),
        "2.8.0-transformers4.56.2-gpu-py312-cu129-ubuntu22.04": hugging(
            "2.8.0", "4.56.2", "3.12", "12.9", U22
        ),
        "2.7.1-transformers4.55.0-gpu-py312-cu128-ubuntu22.04": hugging(
            "2.7.1", "4.55.0", "3.12", "12.8", U22
        ),
        "2.5.1-transformers4.49.0-gpu-py311-cu124-ubuntu22.04": hugging(
            "2.5.1", "4.49.0", "3.11", "12.4", U22
        ),
        "2.1.0-transformers4.36.0-gpu-py310-cu121-ubuntu20.04": hugging(
            "2.1.0", "4.36.0", "3.10", "12.1", U20
        ),
        "2.0.0-transformers4.28.1-gpu-py310-cu118-ubuntu20.04": hugging(
            "2.0.0", "4.28.1", "3.10", "11.8", U20
        ),
        "1.13.1-transformers4.26.0-gpu-py39-cu117-ubuntu20.04": hugging(
            "1.13.1", "4.26.0", "3.9", "11.7", U20
        ),
    },
    "smp-v2": {
        "2.5.1-gpu-py311-cu124": parallel("2.5.1", "3.11", "12.4"),
        "2.4.1-gpu-py311-cu121": parallel("2.4.1", "3.11", "12.1"),
        "2.3.1-gpu-py311-cu121": parallel("2.3.1", "3.11", "12.1"),
        "2.2.0-gpu-py310-cu121": parallel("2.2.0", "3.10", "12.1"),
    },
    "local": {
        "bookworm-py311-torch2.13.0-cpu": {
            "device": "cpu",
            "torch": "2.13.0",
            "python": "3.11",
            "os": "debian12",
            "flavour": "sagemaker",
        },
    },
}
# Spelled by the same grammars, but not in our matrix.
MORE: dict[str, dict[str, dict[str, Any]]] = {
    "dlc-classic": {
        "2.5.1-gpu-py311-cu124-ubuntu22.04-sagemaker": classic(
            "2.5.1", "3.11", "12.4", U22, "sagemaker"
        ),
        "2.3.0-gpu-py311-cu121-ubuntu20.04-sagemaker": classic(
            "2.3.0", "3.11", "12.1", U20, "sagemaker"
        ),
        "2.0.1-gpu-py310-cu118-ubuntu20.04-ec2": classic("2.0.1", "3.10", "11.8", U20, "ec2"),
        "2.8-gpu-py312-cu129-ubuntu22.04-sagemaker-v1": {
            **classic("2.8", "3.12", "12.9", U22, "sagemaker"),
            "revision": "1",
        },
        # No suffix is SageMaker here, and EC2 in dlc-al2023.
        "2.8-gpu-py312": {
            "device": "gpu",
            "torch": "2.8",
            "python": "3.12",
            "flavour": "sagemaker",
        },
        "2.8.0-cpu-py312-ec2": {
            "device": "cpu",
            "torch": "2.8.0",
            "python": "3.12",
            "flavour": "ec2",
        },
    },
    "smp-v2": {
        "2.2.0-gpu-py310-cu121-ubuntu20.04-sagemaker-smpv2.3.1": parallel(
            "2.2.0", "3.10", "12.1", os=U20, smp="2.3.1"
        ),
        "2.4.1-gpu-py311-cu121-ubuntu20.04-sagemaker-smpv2.7.0-v1": parallel(
            "2.4.1", "3.11", "12.1", os=U20, smp="2.7.0", revision="1"
        ),
    },
    "lmi": {
        "0.36.0-lmi28.0.0-cu130": {
            "device": "gpu",
            "djl": "0.36.0",
            "engine": "lmi28.0.0",
            "cuda": "13.0",
        },
        "0.33.0-tensorrtllm0.21.0-cu128": {
            "device": "gpu",
            "djl": "0.33.0",
            "engine": "tensorrtllm0.21.0",
            "cuda": "12.8",
        },
        "0.36.0-cpu-full": {"device": "cpu", "djl": "0.36.0", "engine": "full"},
    },
}
EVERY = [
    (grammar, tag, says)
    for table in (TAGS, MORE)
    for grammar, tags in table.items()
    for tag, says in tags.items()
]


@pytest.mark.parametrize(("grammar", "tag", "says"), EVERY, ids=[tag for _, tag, _ in EVERY])
def test_every_published_tag_is_read_as_published(
    grammar: str, tag: str, says: dict[str, Any]
) -> None:
    assert parse_tag(grammar, tag) == ParsedTag(grammar, **says)


@pytest.mark.parametrize(("grammar", "tag", "says"), EVERY, ids=[tag for _, tag, _ in EVERY])
def test_every_published_tag_is_written_back_unchanged(
    grammar: str, tag: str, says: dict[str, Any]
) -> None:
    assert format_tag(ParsedTag(grammar, **says)) == tag


def test_every_row_of_the_published_tables_is_a_base_with_agreeing_facts() -> None:
    bases = {(base.grammar, base.tag): base for base in load_matrix(ROOT / "versions.yaml").bases}
    moving = {"2.13-cu133-amzn2023-sagemaker"}  # the same image as 2.13.0, by a tag that moves
    published = {(grammar, tag) for grammar in TAGS for tag in TAGS[grammar] if tag not in moving}
    assert published <= set(bases)
    for grammar, tag in published:
        base = bases[grammar, tag]
        for field, value in TAGS[grammar][tag].items():
            stated = base.flavour if field == "flavour" else getattr(base.facts, field)
            assert stated == value, (tag, field)


@pytest.mark.parametrize("name", GRAMMARS)
def test_every_grammars_example_is_of_its_grammar(name: str) -> None:
    assert format_tag(parse_tag(name, GRAMMARS[name].example)) == GRAMMARS[name].example


@pytest.mark.parametrize(
    ("grammar", "tag"),
    [
        ("dlc-classic", "2.13.0-cu133-amzn2023-sagemaker"),
        ("dlc-classic", "2.8.0-gpu-py312-ubuntu22.04-sagemaker"),  # GPU without CUDA
        ("dlc-classic", "2.8.0-cpu-py312-cu129-ubuntu22.04-sagemaker"),  # CPU with CUDA
        ("dlc-classic", "2.8-gpu-py312-cu129-ubuntu22.04-sagemaker"),  # moving, no revision
        ("dlc-classic", "2.8.0-gpu-py312-cu129-ubuntu22.04-sagemaker-v1"),
        ("dlc-classic", "٢.8.0-gpu-py312"),  # digits of another script
        ("dlc-al2023", "2.13.0-amzn2023"),
        ("dlc-al2023", "2.13.0-cu133-amzn2023-ec2"),
        ("hf-classic", "2.9.0-gpu-py312-cu130-ubuntu22.04"),
        ("smp-v2", "sm-pytorch_gpt_oss_patch_pt-2.7_cuda12.8"),
        ("lmi", "0.36.0-lmi28.0.0"),
        ("local", "noble-py311-torch2.13.0-cpu"),
        ("dlc-classic", "latest"),
        ("dlc-al2023", "2.13.0-cu133-amzn2023\n"),
    ],
)
def test_a_tag_that_its_grammar_does_not_make_is_refused_with_the_grammars_shape(
    grammar: str, tag: str
) -> None:
    with pytest.raises(UsageError, match=grammar) as caught:
        parse_tag(grammar, tag)
    assert GRAMMARS[grammar].shape in (caught.value.cure or "")


def test_a_tag_of_another_grammar_is_told_so() -> None:
    with pytest.raises(UsageError) as caught:
        parse_tag("dlc-classic", "2.13.0-cu133-amzn2023")
    assert "this tag is of grammar dlc-al2023" in (caught.value.cure or "")


def test_an_unknown_grammar_names_those_that_exist() -> None:
    with pytest.raises(UsageError, match="dlc-3") as caught:
        parse_tag("dlc-3", "2.13.0-cu133-amzn2023")
    assert "dlc-al2023" in (caught.value.cure or "")


NUMBER = st.integers(0, 40).map(str)
XYZ = st.builds(lambda a, b, c: f"{a}.{b}.{c}", NUMBER, NUMBER, NUMBER)
XY = st.builds(lambda a, b: f"{a}.{b}", NUMBER, NUMBER)
PYTHON = st.integers(6, 30).map(lambda minor: f"3.{minor}")
CUDA = st.builds(lambda a, b: f"{a}.{b}", st.integers(10, 99), st.integers(0, 9))
UBUNTU = st.integers(16, 30).map(lambda year: f"ubuntu{year}.04")
FLAVOUR = st.sampled_from(["sagemaker", "ec2"])


@st.composite
def says(draw: st.DrawFn) -> ParsedTag:
    """Anything that one of the grammars can say."""
    grammar = draw(st.sampled_from(sorted(GRAMMARS)))
    cuda = draw(CUDA)
    parts: dict[str, Any] = {"torch": draw(XYZ), "python": draw(PYTHON), "cuda": cuda}
    parts |= {"os": draw(UBUNTU), "flavour": "sagemaker", "device": "gpu"}
    if grammar in ("dlc-classic", "dlc-al2023", "lmi") and draw(st.booleans()):
        parts |= {"device": "cpu", "cuda": None}
    if grammar == "dlc-classic":
        parts["flavour"] = draw(FLAVOUR)
        if draw(st.booleans()):
            parts |= {"os": None, "cuda": None, "torch": draw(XYZ | XY)}
        elif draw(st.booleans()):
            parts |= {"torch": draw(XY), "revision": draw(NUMBER)}
    elif grammar == "dlc-al2023":
        parts |= {"torch": draw(XYZ | XY), "python": None, "os": AL, "flavour": draw(FLAVOUR)}
    elif grammar == "hf-classic":
        parts["transformers"] = draw(XYZ)
    elif grammar == "smp-v2":
        smp = draw(st.none() | XYZ)
        revision = draw(st.none() | NUMBER) if smp else None
        parts |= {"smp": smp, "revision": revision, "os": parts["os"] if smp else None}
    elif grammar == "lmi":
        kind = draw(st.sampled_from(["lmi", "tensorrtllm"]))
        engine = "full" if parts["device"] == "cpu" else kind + draw(XYZ)
        parts = {"device": parts["device"], "cuda": parts["cuda"], "djl": draw(XYZ)}
        parts["engine"] = engine
    elif grammar == "local":
        debian = draw(st.sampled_from(["debian11", "debian12", "debian13"]))
        parts |= {"device": "cpu", "cuda": None, "os": debian}
    return ParsedTag(grammar, **parts)


@given(says())
def test_whatever_a_grammar_can_say_survives_being_written_and_read(tag: ParsedTag) -> None:
    assert parse_tag(tag.grammar, format_tag(tag)) == tag


FACTS = Facts("2.13.0", "3.12", AL, "gpu", "13.3", "13.0")


def test_a_tag_agrees_with_facts_that_say_more() -> None:
    tag = parse_tag("dlc-al2023", "2.13.0-cu133-amzn2023-sagemaker")
    assert disagreements(tag, FACTS, "sagemaker") == []


def test_a_tag_that_moves_agrees_with_every_patch_version_of_its_torch() -> None:
    tag = parse_tag("dlc-al2023", "2.13-cu133-amzn2023-sagemaker")
    assert disagreements(tag, FACTS, "sagemaker") == []
    assert disagreements(tag, Facts("2.1.3", "3.12", AL, "gpu", "13.3", "13.0"), "sagemaker") == [
        ("torch", "2.13", "2.1")
    ]


def test_every_field_in_which_tag_and_facts_differ_is_named() -> None:
    tag = parse_tag("dlc-classic", "2.8.0-gpu-py312-cu129-ubuntu22.04-ec2")
    facts = Facts("2.8.1", "3.13", AL, "gpu", "13.0", "12.9")
    assert disagreements(tag, facts, "sagemaker") == [
        ("torch", "2.8.0", "2.8.1"),
        ("python", "3.12", "3.13"),
        ("os", "ubuntu22.04", AL),
        ("cuda", "12.9", "13.0"),
        ("flavour", "ec2", "sagemaker"),
    ]
