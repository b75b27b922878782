"""The matrix: what is true of an image, how far its base is behind, and what to type next."""

from __future__ import annotations

import dataclasses
from datetime import date
from typing import Any

import pytest

from slipway.records import BaseLock, ImageRecord
from slipway.report.matrix_page import base_currency, matrix_page, matrix_row
from slipway.report.report_facts import ImageFacts
from tests.support.report_samples import (
    DIGEST,
    NAME,
    TODAY,
    image_facts,
    inputs,
    report_facts,
    small_image,
    whole_record,
)


def row_of(facts: ImageFacts) -> dict[str, str]:
    row = matrix_row(facts, [facts.image.base], TODAY)
    stages = ("digest", "built", "verified", "exported", "pushed")
    return {name: getattr(row, name).state for name in stages} | {"command": row.command}


def test_an_image_of_which_all_is_there_needs_nothing() -> None:
    assert row_of(image_facts()) == dict.fromkeys(
        ("digest", "built", "verified", "exported", "pushed"), "yes"
    ) | {"command": ""}


def test_what_was_made_of_an_earlier_build_is_old() -> None:
    row = row_of(image_facts(record=whole_record(inputs(launcher="l0"))))
    assert [row[name] for name in ("built", "verified", "exported", "pushed")] == ["old"] * 4
    assert row["command"] == f"./inv ship {NAME}"


@pytest.mark.parametrize(
    ("missing", "task"), [("verified", "verify"), ("exported", "sqsh"), ("pushed", "push")]
)
def test_the_one_thing_that_is_missing_has_a_command_of_its_own(missing: str, task: str) -> None:
    nothing: Any = {} if missing == "pushed" else None
    record = dataclasses.replace(whole_record(inputs()), **{missing: nothing})
    row = row_of(image_facts(record=record))
    assert row[missing] == "no"
    assert row["command"] == f"./inv {task} {NAME}"


def test_an_image_that_was_never_built_says_what_to_run() -> None:
    row = row_of(image_facts(record=ImageRecord()))
    assert (row["built"], row["command"]) == ("no", f"./inv ship {NAME}")
    assert matrix_page(report_facts(image_facts(record=ImageRecord()))).nothing_built


def test_a_file_that_is_gone_is_not_exported() -> None:
    facts = image_facts()
    assert facts.sqsh is not None
    gone = dataclasses.replace(facts, sqsh=dataclasses.replace(facts.sqsh, exists=False))
    assert row_of(gone)["exported"] == "old"
    assert row_of(gone)["command"] == f"./inv sqsh {NAME}"


def test_the_digest_of_a_base_is_recorded_moved_or_missing() -> None:
    facts = image_facts()
    name = facts.image.base.name
    moved = dataclasses.replace(facts, base_lock=BaseLock(name, "sha256:" + "b" * 64))
    missing = dataclasses.replace(facts, base_lock=BaseLock(name, unresolved="no login"))
    rows = [matrix_row(each, [], TODAY) for each in (facts, moved, missing)]
    assert [row.digest.state for row in rows] == ["yes", "old", "no"]
    assert rows[0].digest.text == DIGEST.removeprefix("sha256:")[:12]
    assert rows[2].command == f"./inv lock {NAME}"


def test_a_base_is_behind_by_its_date_and_by_newer_versions_of_its_kind() -> None:
    bases = [small_image(torch=version).base for version in ("2.8.0", "2.10.1", "2.9.0")]
    currency = base_currency(bases[0], bases, TODAY)
    assert (currency.days, currency.newer, currency.state) == (66, 2, "soon")
    assert base_currency(bases[1], bases, TODAY).newer == 0
    past = base_currency(small_image(end=date(2026, 5, 31)).base, bases, TODAY)
    assert (past.days, past.state) == (-1, "past")
    assert past.text == "past since 2026-05-31, 2 newer"


def test_the_plan_is_counted() -> None:
    other = image_facts(small_image("other"), ImageRecord())
    page = matrix_page(report_facts(image_facts(), other))
    assert page.counts == (("build", 1), ("up to date", 1))
    assert not page.nothing_built
