"""The examples of versions.d: each is loaded beside versions.yaml, rendered and planned."""

from __future__ import annotations

import json
import re
import shutil
from datetime import date
from pathlib import Path

import pytest

from slipway.derive import BuildInputs, generated_dockerfiles
from slipway.pipeline import Checkout
from slipway.records import BuildRecord, ImageRecord

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples" / "matrix").glob("*.yaml"))


def checkout(folder: Path, *examples: Path) -> Checkout:
    """The repository with these files in its versions.d."""
    for name in ("versions.yaml", "images", "entrypoints"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "examples", folder / "examples")  # a link would leave the repository
    (folder / "versions.d").mkdir()
    for example in examples:
        (folder / "versions.d" / example.name).symlink_to(example)
    return Checkout.at(folder)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuildInputs]:
    plain = checkout(tmp_path_factory.mktemp("plain"))
    return plain.inputs(plain.matrix.images)


@pytest.mark.parametrize("example", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_an_example_is_planned_and_moves_only_the_images_that_it_is_for(
    example: Path, before: dict[str, BuildInputs], tmp_path: Path
) -> None:
    with_it = checkout(tmp_path, example)
    inputs = with_it.inputs(with_it.matrix.images)
    own = set(re.findall(r"^  ([a-z-]+):$", example.read_text(), re.MULTILINE))
    meant = {
        image.name
        for image in with_it.matrix.images
        if image.group in own or any(addon.name in own for addon in image.addons)
    }
    assert meant
    moved = {name for name, now in inputs.items() if name not in before or now != before[name]}
    assert moved == meant
    assert before.keys() <= inputs.keys()
    records = with_it.records(with_it.matrix.images)
    steps = with_it.plan(with_it.matrix.images, inputs, records, date(2026, 1, 1))
    assert {step.image.name for step in steps} == inputs.keys()
    texts = generated_dockerfiles(with_it.project, with_it.matrix, with_it.locks)
    assert len(texts) == len(inputs)


def test_what_changes_in_an_image_moves_all_that_stands_on_it_and_the_plan_says_so(
    tmp_path: Path,
) -> None:
    started = checkout(tmp_path, ROOT / "examples" / "matrix" / "base.yaml")
    before = started.inputs(started.matrix.images)
    records = {
        name: ImageRecord(
            BuildRecord(was.build_id, json.loads(json.dumps(was.as_json())), "r", "i", 1, 1)
        )
        for name, was in before.items()
    }
    own = tmp_path / "versions.d" / "base.yaml"
    text = own.read_text().replace("TEAM: vision", "TEAM: speech")
    own.unlink()
    own.write_text(text)
    now = Checkout.at(tmp_path)
    inputs = now.inputs(now.matrix.images)
    steps = now.plan(now.matrix.images, inputs, records, date(2026, 1, 1))
    moved = {step.image.name: step.because for step in steps if step.action != "up to date"}
    was, is_now = (found["team"].build_id[:12] for found in (before, inputs))
    assert moved == {
        "team": ("matrix cell changed",),
        "project": (f"the image below, team, moved {was} -> {is_now}",),
    }
    assert inputs["project"].base == inputs["team"].build_id
    assert inputs["team"].base == inputs["local-ds0.19.8"].build_id


def test_all_examples_can_stand_together(tmp_path: Path) -> None:
    together = checkout(tmp_path, *EXAMPLES)
    names = {image.name for image in together.matrix.images}
    assert {"ours", "ngc-pytorch-25.12-hyperpod"} <= names
    assert {base.series for base in together.matrix.waiting} >= {"ngc-nemo-25.11"}


def test_the_page_names_every_example() -> None:
    page = (ROOT / "examples" / "matrix" / "README.md").read_text()
    assert {path.name for path in EXAMPLES} == set(re.findall(r"\(([a-z0-9]+\.yaml)\)", page))
