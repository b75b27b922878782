"""Add-ons of one image, a group or all: packages that are asked for, ENV, labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slipway.derive import labels_of, render_dockerfile
from slipway.matrix import Matrix
from slipway.records import Locks, python_lock_keys
from tests.support.matrix_samples import SMALL, errors_of, image_of, loaded

TEMPLATES = Path(__file__).parents[3] / "images" / "templates"
NOTHING = Locks({}, {}, {})
NEW, OLD, HYPERPOD = (
    "pytorch-2.13-sagemaker-ds0.19.8",
    "pytorch-2.8-sagemaker-ds0.19.8",
    "pytorch-2.13-hyperpod-ds0.19.8",
)


def with_addon(text: str) -> str:
    """SMALL with one more add-on, after the others."""
    return SMALL.replace("\ntools:\n", f"  ours:\n    because: we need it\n{text}\ntools:\n")


def has(matrix: Matrix) -> set[str]:
    return {image.name for image in matrix.images if image.addon("ours")}


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ("", {NEW, OLD, HYPERPOD}),
        (f"only: {{images: [{OLD}]}}", {OLD}),
        ("only: {images: ['*-hyperpod-*']}", {HYPERPOD}),
        ("only: {groups: [hyperpod]}", {HYPERPOD}),
        ("only: {bases: ['pytorch-2.13-*'], groups: [sagemaker]}", {NEW}),
        ("only: {families: [system]}", {OLD}),
        ("only: {torch: '>=2.10'}", {NEW, HYPERPOD}),  # versions, not strings
        ("only: {torch: '<2.10', python: '>=3.12'}", {OLD}),
        ("only: {device: cpu}", set()),
        ("platforms: [hyperpod]", {HYPERPOD}),
    ],
)
def test_an_addon_is_for_the_images_that_meet_every_condition(
    tmp_path: Path, only: str, expected: set[str]
) -> None:
    matrix = loaded(tmp_path, with_addon(f"    requires: [rich]\n    {only}\n"))
    assert has(matrix) & {NEW, OLD, HYPERPOD} == expected


def test_what_is_asked_for_is_a_layer_with_a_lock_of_its_own(tmp_path: Path) -> None:
    text = "    requires: ['transformers[torch]>=5,<6', rich]\n    env: {STYLE: plain}\n"
    image = image_of(loaded(tmp_path, with_addon(text)), OLD)
    addon = image.addon("ours")
    assert addon is not None
    assert addon.requirements == ("transformers[torch]>=5,<6", "rich")
    keys = {found.name: key for found, key in python_lock_keys(image, {})}
    assert "transformers-torch" in keys["ours"]
    assert "/" not in keys["ours"]
    dockerfile = render_dockerfile(image, NOTHING, (), TEMPLATES)
    assert "# --- ours ---\n# install: we need it\n" in dockerfile
    assert '"/mnt/install_addons.py", "ours"]\nENV STYLE=plain\n' in dockerfile


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "WORD=plain"),
        ("two words", 'WORD="two words"'),
        ("a$b", 'WORD="a\\$b"'),
        ('say "so"', "WORD='say \"so\"'"),
    ],
)
def test_env_alone_is_an_addon_and_keeps_its_value(
    tmp_path: Path, value: str, written: str
) -> None:
    quoted = value.replace("'", "''")
    image = image_of(loaded(tmp_path, with_addon(f"    env: {{WORD: '{quoted}'}}\n")), OLD)
    dockerfile = render_dockerfile(image, NOTHING, (), TEMPLATES)
    assert f"# --- ours ---\n# install: we need it\nENV {written}\n" in dockerfile
    assert "python/ours" not in dockerfile


def test_labels_stand_beside_ours(tmp_path: Path) -> None:
    text = "    labels: {com.example.team: vision}\n    only: {groups: [hyperpod]}\n"
    matrix = loaded(tmp_path, with_addon(text))
    labels: dict[str, Any] = labels_of(image_of(matrix, HYPERPOD), NOTHING)
    assert labels["com.example.team"] == "vision"
    assert labels["org.opencontainers.image.title"] == HYPERPOD
    assert "com.example.team" not in labels_of(image_of(matrix, OLD), NOTHING)
    assert "--- ours" not in render_dockerfile(image_of(matrix, HYPERPOD), NOTHING, (), TEMPLATES)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("    only: {device: gpu}\n", "ours adds nothing"),
        ("    requires: ['a b']\n", "'a b' is not a requirement"),
        ("    requires: ['a @ https://example.invalid/a.whl']\n", "names a place and no version"),
        ("    requires: [rich]\n    version: 1.0\n", "addons.ours.version must be text"),
        ("    requires: [rich]\n    version: 1.0.0\n", "ours has both `version` and `requires`"),
        ("    env: {NCCL_DEBUG: INFO}\n", "NCCL_DEBUG must not be in an image"),
        ("    env: {FI_PROVIDER: efa}\n", "FI_PROVIDER must not be in an image"),
        ('    env: {A: "x\\ny"}\n', "the value of A is more than a line of text"),
        ("    labels: {io.slipway.matrix: x}\n", "io.slipway.matrix is written by Slipway"),
        ("    labels: {Team: x}\n", "'Team' cannot name a label"),
        ("    env: {A: b}\n    only: {torch: two}\n", "'two' names no versions"),
        ("    env: {A: b}\n    only: {grups: [x]}\n", "unknown key 'grups' (did you mean groups"),
        ("    env: {A: b}\n    with: {c: 1.0.0}\n", "ours has no `version`"),
        ("    env: {A: b}\n    index: team\n", "ours has an `index`, and no packages"),
        ("    requires: [a]\n    index: 'https://a.invalid'\n", "addons.ours.index is"),
    ],
)
def test_a_mistake_is_said_where_it_is(tmp_path: Path, text: str, what: str) -> None:
    assert any(what in said for _, said, _ in errors_of(tmp_path, with_addon(text)))
