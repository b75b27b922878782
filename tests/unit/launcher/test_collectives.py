"""Who is set apart by the collectives that ranks have issued."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.ranks.watch.collectives import find_odd_collective, groups_from_wire, parse_answer

DEFAULT = "0:default_pg"


def group(*ops: tuple[int, str, str, str]) -> dict[str, Any]:
    return {"last": max(op[0] for op in ops), "ops": [list(op) for op in ops]}


def find(*ranks: dict[str, Any], name: str = DEFAULT) -> Any:
    return find_odd_collective({n: groups_from_wire({name: one}) for n, one in enumerate(ranks)})


DONE, WAITS = (6, "all_reduce", "8 Float", "done"), (7, "all_reduce", "8 Float", "scheduled")
BEGUN = (7, "all_reduce", "8 Float", "started")


@pytest.mark.parametrize(
    ("odd", "ranks", "words"),
    [
        (group(DONE, (7, "broadcast", "8 Float", "scheduled")), (2,), "broadcast of 8 Float"),
        (group(DONE, (7, "all_reduce", "4 Float", "scheduled")), (2,), "all_reduce of 4 Float"),
        (group(DONE, (7, "all_reduce", "4 Float", "done")), (2,), "all_reduce of 4 Float"),
        (group(DONE, (7, "all_reduce", "8 Half", "scheduled")), (2,), "all_reduce of 8 Half"),
        (group(DONE), (2,), "all_reduce of 8 Float"),
        (group(DONE, WAITS), (2,), "collective number 7"),
        (group(DONE, BEGUN), (), ""),
    ],
)
def test_the_rank_whose_collectives_differ_is_named(
    odd: dict[str, Any], ranks: tuple[int, ...], words: str
) -> None:
    found = find(group(DONE, BEGUN), group(DONE, BEGUN), odd)
    assert (found.ranks if found else ()) == ranks
    assert words in (" ".join(found.details) if found else "")


def test_of_two_the_one_in_a_barrier_is_early_and_else_both_are_named() -> None:
    barrier = group((7, "all_reduce_barrier", "1 Float", "done"), (8, *WAITS[1:]))
    assert find(group(WAITS), barrier).ranks == (1,)
    assert find(group(WAITS), group((7, "broadcast", "8 Float", "scheduled"))).ranks == (0, 1)


def test_sizes_may_differ_where_the_operation_allows_it_and_nobody_waits_for_nothing() -> None:
    split = [group((7, "all_to_all", f"{n} Float", "scheduled")) for n in (4, 8)]
    assert find(*split) is None
    gathered = [group((6, "all_gather", f"{n} Float", "done"), WAITS) for n in (4, 8)]
    assert find(*gathered) is None
    assert find(group(DONE), group(DONE, (7, "broadcast", "", "done"))) is None


def test_who_is_behind_because_it_waits_in_another_group_is_not_the_cause() -> None:
    one, two = "1:a", "2:b"
    groups = {
        0: {one: group(DONE, WAITS)},
        1: {one: group(DONE), two: group(DONE, WAITS)},
        2: {two: group(DONE)},
    }
    found = find_odd_collective({rank: groups_from_wire(data) for rank, data in groups.items()})
    assert found is not None
    assert found.ranks == (2,)


@pytest.mark.parametrize(
    "data",
    [1, [], {"g": 1}, {"g": {"ops": []}}, {"g": {"last": 1, "ops": [[1, "a", "b"]]}},
     {"g": {"last": "x", "ops": []}}, {"g": {"last": 1, "ops": [[1, "a", "b", "lost"]]}}],
)  # fmt: skip
def test_what_is_no_list_of_groups_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        groups_from_wire(data)


def test_half_an_answer_is_none_and_an_error_is_passed_on() -> None:
    assert parse_answer('{"groups": {"g"') == ({}, "")
    assert parse_answer('{"error": "TypeError"}') == ({}, "TypeError")
