"""The Dockerfiles: what every one of them promises, for every image of the real matrix."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from slipway.derive import render_dockerfile
from slipway.derive.dockerfile import comment_lines, dockerfile_quoted
from slipway.matrix import Image, explain_image, load_matrix
from slipway.records import BaseLock, Locks

ROOT = Path(__file__).parents[3]
MATRIX = load_matrix(ROOT / "versions.yaml")
TOOLS = MATRIX.tools.values()
NO_LOCKS = Locks({}, {}, {})
DIGEST = "sha256:" + "d" * 64


def dockerfile(image: Image, locks: Locks = NO_LOCKS) -> str:
    return render_dockerfile(image, locks, TOOLS, ROOT / "images" / "templates")


def named(name: str) -> Image:
    return next(image for image in MATRIX.images if image.name == name)


every_image = pytest.mark.parametrize("image", MATRIX.images, ids=lambda image: image.name)


def instructions(text: str) -> list[str]:
    joined = text.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line and not line.startswith("#")]


@every_image
def test_no_fabric_variable_is_baked_in(image: Image) -> None:
    assert not re.search(r"\b(NCCL|FI)_[A-Z]", "\n".join(instructions(dockerfile(image))))


@every_image
def test_only_syntax_that_every_engine_builds_the_same_way(image: Image) -> None:
    text = dockerfile(image)
    assert "<<" not in "\n".join(instructions(text))
    assert "--link" not in "\n".join(instructions(text))
    assert not re.match(r"#\s*syntax\s*=", text)
    assert [line.split()[0] for line in instructions(text)].count("FROM") == 1


@every_image
def test_layers_come_in_the_order_python_addons_then_tools_then_launcher(image: Image) -> None:
    steps = [line for line in instructions(dockerfile(image)) if line.startswith(("RUN", "COPY"))]
    kinds = [
        "python" if line.startswith("RUN") else "tool" if "tools/" in line else "launcher"
        for line in steps
    ]
    pythons = sum(1 for a in image.addons if a.action != "keep" and a.requirements)
    assert kinds == ["python"] * pythons + ["tool", "launcher"]


@every_image
def test_what_the_base_keeps_is_not_installed(image: Image) -> None:
    text = "\n".join(instructions(dockerfile(image)))
    for addon in image.addons:
        if addon.action == "keep":
            assert f"python/{addon.name}," not in text


@every_image
def test_the_label_is_the_resolved_cell(image: Image) -> None:
    text = dockerfile(image)
    found = re.search(r"io\.slipway\.matrix='(.*)'", text)
    assert found
    assert json.loads(found[1]) == json.loads(json.dumps(explain_image(image)))


def test_the_base_is_named_by_digest_once_it_is_known() -> None:
    image = named("pytorch-2.13-sagemaker-ds0.19.8")
    assert f"FROM ${{BASE_REGISTRY}}/pytorch:{image.base.tag}\n" in dockerfile(image)
    locked = Locks({image.base.name: BaseLock(image.base.name, digest=DIGEST)}, {}, {})
    text = dockerfile(image, locked)
    assert f"FROM ${{BASE_REGISTRY}}/pytorch:{image.base.tag}@{DIGEST}\n" in text
    assert f'org.opencontainers.image.base.digest="{DIGEST}"' in text


def test_a_cuda_mismatch_is_declared_to_deepspeed_and_only_there() -> None:
    for image in MATRIX.images:
        mismatch = bool(image.base.cuda_mismatch and image.addon("deepspeed"))
        assert ("DS_SKIP_CUDA_CHECK=1" in dockerfile(image)) == mismatch


def test_a_base_without_a_public_mirror_fails_by_name_when_no_region_is_given() -> None:
    assert "ARG BASE_REGISTRY=smp.needs-a-region.invalid" in dockerfile(named("smp-2.5-hyperpod"))


def test_a_base_with_another_user_gets_it_back() -> None:
    image = named("pytorch-2.8-sagemaker-ds0.19.8")
    family = dataclasses.replace(image.base.family, user="trainer")
    other = dataclasses.replace(image, base=dataclasses.replace(image.base, family=family))
    users = [line for line in instructions(dockerfile(other)) if line.startswith("USER")]
    assert users == ["USER root", "USER trainer"]
    assert "USER" not in "\n".join(instructions(dockerfile(image)))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("plain", '"plain"'),
        ('{"a": "$HOME"}', '\'{"a": "$HOME"}\''),
        ('it\'s "here" for $5\\', '"it\'s \\"here\\" for \\$5\\\\"'),
    ],
)
def test_label_values_are_one_word_whatever_they_hold(text: str, word: str) -> None:
    assert dockerfile_quoted(text) == word


def test_long_reasons_become_several_comment_lines() -> None:
    lines = comment_lines("reason " * 40).splitlines()
    assert len(lines) > 1
    assert all(line.startswith("# ") and len(line) <= 100 for line in lines)


def test_every_dockerfile_passes_hadolint(tmp_path: Path) -> None:
    paths = []
    for image in MATRIX.images:
        path = tmp_path / f"{image.name}.Dockerfile"
        path.write_text(dockerfile(image))
        paths.append(str(path))
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "hadolint"),
            "--config",
            str(ROOT / ".hadolint.yaml"),
            *paths,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
