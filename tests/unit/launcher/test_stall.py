"""Who is named when ranks wait for each other, from rows that nodes have sent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.ranks.watch.call_stack import BACKWARD, COLLECTIVE, DEBUGGER, DEVICE, OWN
from launcher.ranks.watch.stall import (
    HANG_KIND,
    WAITING,
    RankRow,
    describe_memory,
    judge_stall,
    row_from_wire,
)


def row(rank: int, kind: str = COLLECTIVE, **change: Any) -> RankRow:
    values: dict[str, Any] = {
        "rank": rank, "host": f"h{rank // 2}", "kind": kind, "call": "all_reduce",
        "where": "train.py:41 in step", "code": "dist.all_reduce(x)", "seconds": 40.0,
        "idle": 40.0, "doing": "asleep, 0% of a core", **change,
    }  # fmt: skip
    return RankRow(**values)


def odd(rank: int, kind: str, **change: Any) -> RankRow:
    change = {"call": "step", "where": "train.py:38 in step", "code": "spin()", **change}
    return row(rank, kind, **change)


@given(
    st.integers(2, 16).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))),
    st.sampled_from(["gone", "stopped", OWN, "silent", "unknown", DEBUGGER]),
    st.sampled_from([COLLECTIVE, DEVICE, BACKWARD]),
)
def test_the_one_that_does_not_wait_is_named(size: tuple[int, int], kind: str, wait: str) -> None:
    ranks, victim = size
    rows = [odd(r, kind) if r == victim else row(r, wait) for r in range(ranks)]
    report = judge_stall(rows, after=30, hang=600)
    assert report is not None
    assert (report.kind, report.ranks, report.host) == (WAITING, (victim,), f"h{victim // 2}")
    assert f"rank {victim} [host h{victim // 2}]" in report.text
    assert "train.py:41 in step" in report.text  # where the others wait
    assert "train.py:38 in step" in report.text  # where it is


@pytest.mark.parametrize(
    ("call", "where"),
    [
        ("destroy_process_group", "train.py:90 in main"),
        ("barrier", "train.py:80 in main"),
        ("broadcast", "train.py:41 in step"),
        ("all_reduce", "train.py:44 in step"),
    ],
)
@pytest.mark.parametrize("ranks", [3, 8])
def test_the_one_in_another_call_is_named(ranks: int, call: str, where: str) -> None:
    rows = [*(row(r) for r in range(ranks - 1)), row(ranks - 1, call=call, where=where)]
    report = judge_stall(rows, after=30, hang=0)
    assert report is not None
    assert report.ranks == (ranks - 1,)
    assert f"{call} at {where}" in report.text


def test_of_two_the_one_at_the_end_already_is_named_and_else_both() -> None:
    early = judge_stall([row(0), row(1, call="barrier", where="t.py:9 in f")], after=30, hang=0)
    assert early is not None
    assert early.ranks == (1,)
    both = judge_stall([row(0), row(1, call="broadcast", where="t.py:9 in f")], after=30, hang=0)
    assert both is not None
    assert both.ranks == (0, 1)
    assert "in different calls" in both.text


def test_a_broken_connection_is_named_where_all_wait_in_one_call() -> None:
    rows = [row(0), row(1), row(2, network="no answer from 10.0.0.7:4000"), row(3)]
    report = judge_stall(rows, after=30, hang=0)
    assert report is not None
    assert report.ranks == (2,)
    assert "no answer from 10.0.0.7:4000" in report.text


def test_where_none_is_odd_the_report_says_what_it_may_be() -> None:
    report = judge_stall([row(0, busy=100), row(1, busy=100)], after=30, hang=35)
    assert report is not None
    assert (report.kind, report.ranks) == (HANG_KIND, ())
    assert "a GPU kernel that does not end" in report.text
    assert "rank 0 100 %, rank 1 100 %" in report.text


def test_nothing_is_said_while_ranks_move() -> None:
    assert judge_stall([], after=30, hang=600) is None
    assert judge_stall([row(0, seconds=29.0), row(1, seconds=29.0)], after=30, hang=600) is None
    # One rank works for long, nobody waits for it: a download, a long step.
    busy = [odd(0, OWN, idle=1.0), odd(1, OWN, idle=1.0)]
    assert judge_stall(busy, after=30, hang=600) is None


def test_ranks_that_all_sleep_are_reported() -> None:
    report = judge_stall([odd(0, OWN), odd(1, OWN)], after=30, hang=600)
    assert report is not None
    assert report.text.startswith("no rank makes progress: ranks 0-1")


@given(st.floats(0, 1e5), st.floats(1, 1e4), st.sampled_from([OWN, "stopped", DEBUGGER, "gone"]))
def test_a_hang_is_what_shows_no_progress_for_as_long_as_is_set(
    idle: float, hang: float, kind: str
) -> None:
    report = judge_stall([row(0, seconds=1e6), odd(1, kind, idle=idle)], after=30, hang=hang)
    assert report is not None
    hung = kind != DEBUGGER and idle >= hang
    assert report.kind == (HANG_KIND if hung else WAITING)
    if kind != DEBUGGER:
        assert report.left == max(0.0, hang - idle)


def test_a_rank_that_works_keeps_others_waiting_for_any_time() -> None:
    rows = [row(0, seconds=1e6, idle=1e6), odd(1, OWN, idle=0.4, doing="computing")]
    report = judge_stall(rows, after=30, hang=60)
    assert report is not None
    assert report.kind == WAITING


def test_full_memory_names_zero_3() -> None:
    full = [row(0, memory=(80_000, 81_559)), row(1, memory=(40_000, 81_559))]
    assert "GPU memory left: 1.5 GiB of 79.6 GiB" not in describe_memory(full)
    assert describe_memory(full).startswith(
        "GPU memory left: 1.5 GiB of 79.6 on rank 0 (the least)"
    )
    assert "try ZeRO-3" in describe_memory(full)
    assert "ZeRO" not in describe_memory([row(0, memory=(40_000, 81_559))])
    assert describe_memory([row(0)]) == ""


@given(st.dictionaries(st.sampled_from(["rank", "host", "kind", "memory", "seconds"]), st.none()))
def test_a_row_that_is_none_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a rank's row"):
        row_from_wire(data)
