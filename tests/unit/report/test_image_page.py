"""An image's page: layers, packages, ENV, checks, the file and the history, each by its facts."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.records import BaseLock, ImageRecord
from slipway.report.build_history import MOST_BUILDS, build_history
from slipway.report.image_page import (
    ImagePage,
    hot_bins,
    image_pages,
    package_change,
)
from tests.support.report_samples import (
    BEGAN,
    NAME,
    built_note,
    image_facts,
    inputs,
    layers,
    report_facts,
    run,
    small_image,
    whole_record,
)


def page_of(**changes: Any) -> ImagePage:
    return image_pages(report_facts(dataclasses.replace(image_facts(), **changes)))[0]


def test_layers_stand_on_each_other_and_know_who_shares_them() -> None:
    other = image_facts(small_image("other"), layers=layers("d0", "d1", "dX"))
    page, _ = image_pages(report_facts(image_facts(), other))
    assert [(layer.size, layer.start) for layer in page.layers] == [(1, 0), (10, 1), (100, 11)]
    assert [layer.shared for layer in page.layers] == [("other",), ("other",), ()]
    assert (page.base_bytes, page.added_bytes) == (1, 110)


def test_layers_of_another_build_are_not_shown() -> None:
    page = page_of(layers=layers("d0", image_id="sha256:other"))
    assert (page.layers, page.variables) == ((), ())


def test_packages_are_compared_with_the_base() -> None:
    rows = {row.name: (row.before, row.version, row.change) for row in page_of().packages}
    assert rows == {
        "deepspeed": ("", "0.19.8", "added"),
        "hjson": ("", "3.1", "added"),
        "numpy": ("2.0.0", "1.26.4", "down"),
        "tqdm": ("4.68.0", "4.68.0", "same"),
    }
    why = {row.name: row.why for row in page_of(may_move={"numpy": "deepspeed wants 1"}).packages}
    assert why["numpy"] == "deepspeed wants 1"
    assert why["deepspeed"] == "the base has none"
    assert why["hjson"] == "a requirement of what is asked for"


def test_packages_of_a_base_that_no_lock_knows_are_not_called_added() -> None:
    page = page_of(base_lock=BaseLock("b", "sha256:1"))
    assert {row.change for row in page.packages} == {"set"}
    assert page.base_packages is None


def test_the_base_is_told_by_its_inventory_where_there_is_one() -> None:
    base = page_of().base
    assert base is not None
    assert (base.distribution, base.python, base.system) == ("debian 12", 1, 1)
    assert (base.layers, base.compressed) == (2, 777)
    assert page_of(base_inventory=None).base is None


def test_versions_move_by_their_order_not_by_their_letters() -> None:
    assert package_change("2.9.0", "2.10.0") == "up"
    assert package_change("2.10.0", "2.9.0") == "down"
    assert package_change("1.0", "1.0.0") == "same"
    assert package_change("?", "1.0") == "set"


def test_env_is_compared_with_the_base() -> None:
    rows = [(row.name, row.change) for row in page_of().variables]
    assert rows == [("PATH", "changed"), ("SLIPWAY_PYTHON", "added"), ("LANG", "base")]


def test_checks_come_slowest_first_and_say_when_they_are_of_another_run() -> None:
    page = page_of()
    assert [check.seconds for check in page.checks] == [2.5, 0.7, 0.1]
    assert page.checks_note == ""
    fewer = page_of(checks=image_facts().checks[:1])
    assert "a later run with 1 that passed" in fewer.checks_note
    never = page_of(record=ImageRecord(), checks=())
    assert "No verification" in never.checks_note
    record = whole_record(inputs())
    assert record.verified is not None
    older = dataclasses.replace(record, verified=dataclasses.replace(record.verified, image_id="x"))
    assert "on an earlier build" in page_of(record=older).checks_note


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 10**4)), max_size=20),
    st.integers(1, 2 * 10**6),
)
def test_what_a_start_reads_is_drawn_to_the_byte(
    stretches: list[tuple[int, int]], size: int
) -> None:
    hot = [(start, start + length) for start, length in stretches]
    bins = hot_bins(hot, size)
    assert sum(part.size for part in bins) == sum(end - start for start, end in hot)
    assert [part.start for part in bins] == sorted({part.start for part in bins})


def test_the_history_says_what_changed_between_any_two_builds() -> None:
    first, second = inputs(launcher="l0"), inputs()
    third = inputs(addons={"deepspeed": "0.19.9 (install)"})
    notes = [built_note(each, BEGAN + at) for at, each in enumerate((first, second, third))]
    builds, pairs = build_history(notes)
    assert [build.changed for build in builds] == [
        ("pin deepspeed 0.19.8 (install) -> 0.19.9 (install)",),
        ("launcher changed",),
        ("the first",),
    ]
    (pair,) = pairs
    assert (pair.old, pair.new) == (first.build_id, third.build_id)
    assert pair.changed == (
        "pin deepspeed 0.19.8 (install) -> 0.19.9 (install)",
        "launcher changed",
    )


def test_a_build_that_another_slipway_recorded_is_shown_as_such() -> None:
    old = {**built_note(inputs()), "inputs": {"base": "x", "of": "another time"}}
    builds, _ = build_history([built_note(inputs()), old, {"what": "built"}])
    assert builds[0].changed == ("recorded by another version of Slipway",)
    assert len(builds) == 2


def test_the_history_is_bounded_and_of_this_image_alone() -> None:
    notes = tuple(built_note(inputs(launcher=f"l{n}"), BEGAN + n) for n in range(MOST_BUILDS + 5))
    other = {**built_note(inputs()), "image": "other"}
    facts = report_facts(image_facts(), runs=(run(notes=(*notes, other)),))
    page = image_pages(facts)[0]
    assert len(page.builds) == MOST_BUILDS
    assert page.builds[0].at == notes[-1]["t"]
    assert page.row.name == NAME
