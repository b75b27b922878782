"""The plan says what would be done and why."""

from __future__ import annotations

import dataclasses
from datetime import date
from typing import Any

import pytest

from slipway.derive import BuildInputs, Note, disk_need, grouped_notes, is_locked, plan_steps
from slipway.derive.build_id import UNLOCKED
from slipway.derive.plan import notes_on
from slipway.matrix import Base, Image, Registry
from slipway.matrix.model import Facts, Family
from slipway.records import BaseLock, BuildRecord, ImageRecord

TODAY = date(2026, 6, 1)

BASE = Base(
    name="pytorch-2.8-sagemaker-gpu",
    registry=Registry("dlc", {"us-west-2": "763104351884"}),
    repository="pytorch-training",
    tag="2.8.0-gpu-py312-cu129-ubuntu22.04-sagemaker",
    grammar="dlc-classic",
    family=Family("dlc-system", "apt", "/usr/local/bin/python", "/", "root"),
    flavour="sagemaker",
    facts=Facts("2.8.0", "3.12", "ubuntu22.04", "gpu", "12.9", "12.9"),
    end_of_patch=date(2026, 8, 6),
)
IMAGE = Image("pytorch-2.8-sagemaker", "pytorch", BASE, "sagemaker", (), size_budget_mb=400)
INPUTS = BuildInputs(
    base="sha256:" + "a" * 64,
    dockerfile="d1",
    templates="t1",
    installer="i1",
    launcher="l1",
    addons={"s5cmd": "2.2.0 (install)", "deepspeed": "0.18.8 (install)"},
    python={"deepspeed": "p1"},
    tools={"s5cmd": "b1"},
)


def built(inputs: BuildInputs) -> ImageRecord:
    return ImageRecord(
        built=BuildRecord(inputs.build_id, inputs.as_json(), "ref", "sha256:1", 1, 1.0)
    )


def step(record: ImageRecord, inputs: BuildInputs = INPUTS, base: BaseLock | None = None) -> Any:
    bases = {BASE.name: base} if base else {}
    return plan_steps([IMAGE], {IMAGE.name: inputs}, {IMAGE.name: record}, bases, TODAY)[0]


def test_an_image_without_a_record_is_new() -> None:
    found = step(ImageRecord())
    assert (found.action, found.because) == ("build", ("new",))


def test_an_unchanged_image_is_up_to_date() -> None:
    assert step(built(INPUTS)).action == "up to date"


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"base": "sha256:" + "b" * 64}, "base digest moved aaaaaaaaaaaa -> bbbbbbbbbbbb"),
        (
            {"addons": {**INPUTS.addons, "s5cmd": "2.3.0 (install)"}},
            "pin s5cmd 2.2.0 (install) -> 2.3.0 (install)",
        ),
        ({"addons": {"s5cmd": "2.2.0 (install)"}}, "add-on deepspeed removed"),
        ({"python": {"deepspeed": "p2"}}, "locked requirements of deepspeed changed"),
        ({"tools": {"s5cmd": "b2"}}, "binary of s5cmd changed"),
        ({"launcher": "l2"}, "launcher changed"),
        ({"templates": "t2", "dockerfile": "d2"}, "template changed"),
        ({"dockerfile": "d2"}, "matrix cell changed"),
    ],
)
def test_a_changed_image_is_rebuilt_for_the_reason_named(
    change: dict[str, Any], because: str
) -> None:
    found = step(built(INPUTS), dataclasses.replace(INPUTS, **change))
    assert found.action == "rebuild"
    assert found.because == (because,)


def test_a_template_edit_that_changes_no_dockerfile_rebuilds_nothing() -> None:
    assert step(built(INPUTS), dataclasses.replace(INPUTS, templates="t2")).action == "up to date"


def test_a_base_past_its_support_is_usable_but_said_so() -> None:
    locked = BaseLock(BASE.name, digest="sha256:" + "a" * 64)
    assert notes_on(BASE, locked, date(2026, 8, 6)) == ()
    (note,) = notes_on(BASE, locked, date(2026, 8, 7))
    assert "2026-08-06" in note.text


@pytest.mark.parametrize("lock", [None, BaseLock(BASE.name, unresolved="no network")])
def test_a_base_without_a_digest_is_said_so(lock: BaseLock | None) -> None:
    (note,) = notes_on(BASE, lock, TODAY)
    assert "--unlocked" in note.text


def test_disk_counts_each_base_once_and_names_bases_of_unknown_size() -> None:
    twin = dataclasses.replace(IMAGE, name="twin")
    other = dataclasses.replace(IMAGE, name="x", base=dataclasses.replace(BASE, name="other"))
    images = [IMAGE, twin, other]
    bases = {BASE.name: BaseLock(BASE.name, digest="sha256:1", size=10_000_000_000)}
    steps = plan_steps(
        images,
        {i.name: INPUTS for i in images},
        {i.name: ImageRecord() for i in images},
        bases,
        TODAY,
    )
    need = disk_need(steps, bases)
    assert need.needed == 22_000_000_000 + 3 * 400_000_000
    assert need.unknown == ("other",)


@pytest.mark.parametrize(
    "change", [{"base": UNLOCKED}, {"python": {"a": UNLOCKED}}, {"tools": {"s5cmd": UNLOCKED}}]
)
def test_inputs_count_as_locked_only_when_everything_is_pinned(change: dict[str, Any]) -> None:
    assert is_locked(INPUTS)
    assert not is_locked(dataclasses.replace(INPUTS, **change))


def test_one_text_about_many_bases_is_one_line() -> None:
    lines = grouped_notes(
        [Note(f"base-{n}", "past support") for n in range(9)] + [Note("x", "other")]
    )
    assert lines == [
        "note: other: x",
        "note: past support: base-0, base-1, base-2, base-3, base-4, base-5 and 3 more",
    ]
