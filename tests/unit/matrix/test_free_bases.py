"""Bases of anyone: a registry that is one host, tags of no grammar, facts that are stated."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from slipway.derive import describe_image, render_dockerfile
from slipway.matrix import image_uri
from slipway.records import Locks
from tests.support.matrix_samples import SMALL, errors_of, image_of, loaded

TEMPLATES = Path(__file__).parents[3] / "images" / "templates"
REGISTRY = "  ngc: {host: nvcr.io}\n"
BASE = """\
  free-2.10:
    registry: ngc
    repository: nvidia/pytorch
    grammar: free
    family: system
    facts: {torch: 2.10.0a0, python: "3.12", os: ubuntu24.04, cuda: "13.1", torch_cuda: "13.1"}
    flavours:
      plain: {gpu: 25.12-py3}
"""
ADDON = """\
  new-torch:
    env: {A: b}
    only: {torch: ">=2.10.0a0"}
    because: new
"""
GROUP = """\
  free:
    repository: free
    axes: {base: ["free-*"], platform: [sagemaker, hyperpod]}
    name: "{series}-{flavour}-{platform}"
    size_budget_mb: 9
"""
FREE = (
    SMALL.replace("\nfamilies:", f"{REGISTRY}\nfamilies:").replace(
        "\naddons:\n", f"{BASE}\naddons:\n{ADDON}"
    )
    + GROUP
)
IMAGE = "free-2.10-plain-hyperpod"


def test_such_a_base_is_had_from_its_host_whatever_the_region(tmp_path: Path) -> None:
    base = image_of(loaded(tmp_path, FREE), IMAGE).base
    assert base.registry is not None
    for region in (None, "us-east-1", "eu-west-1"):
        uri = image_uri(base.registry, region, base.repository, base.tag)
        assert (uri.host, uri.login_host) == ("nvcr.io", None)
        assert uri.reference == "nvcr.io/nvidia/pytorch:25.12-py3"


@pytest.mark.parametrize(
    ("registry", "reference", "login"),
    [
        ("{host: docker.io}", "docker.io/nvidia/pytorch:25.12-py3", None),
        ("{host: 'host.example:5000/mirror'}", "host.example:5000/mirror/nvidia/pytorch", None),
        ("{host: nvcr.io, login: true}", "nvcr.io/nvidia/pytorch:25.12-py3", "nvcr.io"),
        (
            '{accounts: {"123456789012": [us-east-1]}}',
            "123456789012.dkr.ecr.us-east-1.amazonaws.com/nvidia/pytorch:25.12-py3",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com",
        ),
    ],
)
def test_any_registry_will_do(
    tmp_path: Path, registry: str, reference: str, login: str | None
) -> None:
    text = FREE.replace("{host: nvcr.io}", registry)
    base = image_of(loaded(tmp_path, text), IMAGE).base
    assert base.registry is not None
    uri = image_uri(base.registry, "us-east-1", base.repository, base.tag)
    assert uri.reference.startswith(reference)
    assert uri.login_host == login


def test_its_dockerfile_and_its_description_name_the_host(tmp_path: Path) -> None:
    matrix = loaded(tmp_path, FREE)
    image = image_of(matrix, IMAGE)
    text = render_dockerfile(image, Locks({}, {}, {}), (), TEMPLATES)
    assert "ARG BASE_REGISTRY=nvcr.io\nFROM ${BASE_REGISTRY}/nvidia/pytorch:25.12-py3\n" in text
    for region in ("", "us-east-1"):
        cell = describe_image(matrix, image, date(2026, 1, 1), region)
        assert cell["base_uris"] == {"everywhere": "nvcr.io/nvidia/pytorch:25.12-py3"}


def test_a_version_before_a_release_is_compared_as_one(tmp_path: Path) -> None:
    matrix = loaded(tmp_path, FREE)
    has = {image.base.series for image in matrix.images if image.addon("new-torch")}
    assert has == {"free-2.10", "pytorch-2.13"}


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("{host: nvcr.io}", "{}", "ngc has both `host` and `accounts`, or none of them"),
        ("{host: nvcr.io}", "{host: 'https://nvcr.io'}", "registries.ngc.host is"),
        ("{host: nvcr.io}", "{host: nvcr.io/}", "registries.ngc.host is"),
        (
            "{host: nvcr.io}",
            '{login: true, accounts: {"123456789012": [us-east-1]}}',
            "`login` is for a host",
        ),
        (" os: ubuntu24.04,", "", "`os` is missing from bases.free-2.10.facts"),
        ("torch: 2.10.0a0, ", "", "`torch` is missing from bases.free-2.10.facts"),
        (', torch_cuda: "13.1"', "", "states both `cuda` (nvcc) and `torch_cuda`"),
        ("25.12-py3", "'25.12 py3'", "'25.12 py3' cannot be a tag"),
    ],
)
def test_what_is_not_stated_or_not_one_is_said(
    tmp_path: Path, old: str, new: str, what: str
) -> None:
    assert FREE.count(old) == 1
    found = errors_of(tmp_path, FREE.replace(old, new))
    assert any(what in said for _, said, _ in found), found
