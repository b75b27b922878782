"""Images of the matrix as bases of others: what such a base is, what stays, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.core import BadInputError
from slipway.derive import render_dockerfile
from slipway.matrix import Image, Matrix, image_depth, images_below, load_matrix, tag_stem
from slipway.records import Locks, python_lock_keys
from tests.support.matrix_samples import SMALL, image_of

TEMPLATES = Path(__file__).parents[3] / "images" / "templates"
PARENT = "pytorch-2.8-sagemaker-ds0.19.8"
OURS = f"""\
bases:
  team: {{image: {PARENT}}}
  project: {{image: team-image}}

addons:
  team-packages:
    requires: [rich]
    env: {{TEAM: vision}}
    workdir: /team
    user: "1000"
    only: {{groups: [team]}}
    because: what all of the team use
  project-files:
    needs: [team-packages]
    files: [{{from: project/, to: /project/}}]
    workdir: /project
    only: {{groups: [project]}}
    because: what one project adds
  project-packages:
    requires: [tabulate]
    only: {{groups: [project]}}
    because: what one project adds

images:
  project:
    repository: project
    axes: {{base: [project], platform: [sagemaker, hyperpod]}}
    name: "{{series}}-{{platform}}"
    size_budget_mb: 20
  team:
    repository: team
    axes: {{base: [team], platform: [sagemaker]}}
    name: team-image
    size_budget_mb: 50
"""


def matrix_of(folder: Path, text: str = OURS) -> Matrix:
    path = folder / "versions.yaml"
    path.write_text(SMALL)
    (folder / "versions.d").mkdir(exist_ok=True)
    (folder / "versions.d" / "ours.yaml").write_text(text)
    return load_matrix(path)


@pytest.fixture
def matrix(tmp_path: Path) -> Matrix:
    return matrix_of(tmp_path)


def actions(image: Image) -> dict[str, str]:
    return {addon.name: addon.action for addon in image.addons}


def test_all_of_the_image_below_is_there_and_what_is_added_comes_last(matrix: Matrix) -> None:
    parent, team = image_of(matrix, PARENT), image_of(matrix, "team-image")
    project = image_of(matrix, "project-hyperpod")
    for below, image in ((parent, team), (team, project)):
        assert image.base.image == below
        kept = {addon.name for addon in below.addons}
        own = [addon.name for addon in image.own_addons]
        assert kept <= actions(image).keys()
        assert kept.isdisjoint(own)
        assert all(actions(image)[name] == "keep" for name in kept)
    assert [addon.name for addon in team.own_addons] == ["team-packages"]
    assert [addon.name for addon in project.own_addons] == ["project-files", "project-packages"]
    assert project.base.carries["deepspeed"] == "0.19.8"


def test_what_is_inherited_is_still_what_the_image_is_checked_for(matrix: Matrix) -> None:
    inherited = image_of(matrix, "project-sagemaker").addon("team-packages")
    assert inherited
    assert inherited.requirements == ("rich",)
    assert inherited.env == {"TEAM": "vision"}
    assert inherited.because == "team-image has it"


def test_facts_are_those_of_the_base_below_all(matrix: Matrix) -> None:
    parent, project = image_of(matrix, PARENT), image_of(matrix, "project-hyperpod")
    for fact in ("facts", "flavour", "end_of_patch", "cuda_mismatch"):
        assert getattr(project.base, fact) == getattr(parent.base, fact)
    assert project.torch == parent.torch
    assert project.base.root == parent.base
    assert project.base.tag == tag_stem(image_of(matrix, "team-image"))


def test_folder_and_user_are_those_below_until_an_addon_says_otherwise(matrix: Matrix) -> None:
    project = image_of(matrix, "project-sagemaker")
    assert (project.base.family.workdir, project.base.family.user) == ("/team", "1000")
    assert (project.workdir, project.user) == ("/project", "1000")


def test_the_dockerfile_adds_its_own_and_is_root_meanwhile(matrix: Matrix) -> None:
    project = image_of(matrix, "project-hyperpod")
    text = render_dockerfile(project, Locks({}, {}, {}), matrix.tools.values(), TEMPLATES)
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("FROM "))
    assert lines[start] == (
        "FROM ${BASE_REGISTRY}/sagemaker-slipway/team:"
        "2.8.0-py312-cu129-ubuntu22.04-sagemaker${BASE_BUILD}"
    )
    assert "ARG BASE_BUILD" in lines[:start]
    assert lines[start + 1] == "USER root"
    assert [line for line in lines if line.startswith(("WORKDIR", "USER 1"))] == [
        "WORKDIR /project",
        "USER 1000",
    ]
    assert "s5cmd /usr/local/bin" not in text
    assert "python/team-packages" not in text
    assert "python/project-packages" in text


def test_locks_go_on_from_those_below(matrix: Matrix) -> None:
    project, team = image_of(matrix, "project-hyperpod"), image_of(matrix, "team-image")
    (_, last) = python_lock_keys(team, {})[-1]
    ((_, own),) = python_lock_keys(project, {})
    assert own.startswith(f"{last}_tabulate-")
    assert last.startswith(python_lock_keys(image_of(matrix, PARENT), {})[-1][1])


def test_images_below_are_named_lowest_first_and_once(matrix: Matrix) -> None:
    project = [image_of(matrix, f"project-{platform}") for platform in ("sagemaker", "hyperpod")]
    assert [image.name for image in images_below(project)] == [PARENT, "team-image"]
    assert images_below(matrix.images) == ()
    assert [image_depth(image) for image in (*images_below(project), *project)] == [0, 1, 2, 2]


def test_another_version_replaces_what_is_below_and_a_lower_one_needs_a_reason(
    tmp_path: Path,
) -> None:
    varied = OURS.replace(
        "axes: {base: [project], platform: [sagemaker, hyperpod]}",
        "axes: {base: [project], platform: [sagemaker], deepspeed: [VERSION]}",
    )
    newer = matrix_of(tmp_path, varied.replace("VERSION", "0.20.0"))
    assert actions(image_of(newer, "project-sagemaker"))["deepspeed"] == "replace"
    (error,) = errors(tmp_path, varied.replace("VERSION", "0.18.0"))
    assert "would lower deepspeed from 0.19.8, which project carries, to 0.18.0" in error[1]


def errors(folder: Path, text: str) -> list[tuple[str, str]]:
    """(place, what) of each error."""
    with pytest.raises(BadInputError) as caught:
        matrix_of(folder, text)
    assert all(error.cure for error in caught.value.errors)
    return [((error.where or "").rpartition("/")[2], error.what) for error in caught.value.errors]


LINE = {"team": 2, "project": 3}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (f"image: {PARENT}", "image: pytorch-2.8-sagemaker-ds0.19.9", {"team", "project"}),
        (f"image: {PARENT}", "image: team-image", {"team", "project"}),  # stands on itself
        (f"image: {PARENT}", "image: project-hyperpod", {"team", "project"}),  # a circle of two
        ("image: team-image", "image: team-imag", {"project"}),
    ],
)
def test_an_image_that_never_comes_is_an_error_at_its_line(
    tmp_path: Path, old: str, new: str, expected: set[str]
) -> None:
    told = errors(tmp_path, OURS.replace(old, new))
    assert {place for place, _ in told} == {f"ours.yaml:{LINE[name]}" for name in expected}
    assert all("to stand on" in what for _, what in told)


def test_a_near_name_is_offered(tmp_path: Path) -> None:
    ((_, what),) = errors(tmp_path, OURS.replace("image: team-image", "image: team-imag"))
    assert "did you mean team-image" in what


def test_a_name_is_of_one_base(tmp_path: Path) -> None:
    taken = OURS.replace("  team: {image", "  pytorch-2.8-sagemaker-gpu: {image")
    told = errors(tmp_path, taken.replace("base: [team]", 'base: ["pytorch-2.8-sagemaker-gpu"]'))
    assert ("ours.yaml:2", "pytorch-2.8-sagemaker-gpu is a base already: of a series, by its "
            "flavour and device") in told  # fmt: skip


def test_nothing_else_can_be_stated_of_it(tmp_path: Path) -> None:
    ((place, what),) = errors(
        tmp_path, OURS.replace(f"image: {PARENT}", f"image: {PARENT}, facts: {{}}")
    )
    assert place == "ours.yaml:2"
    assert "unknown key 'facts'" in what
