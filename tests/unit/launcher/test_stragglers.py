"""Who is named as slow: jobs in simulated time, sampled as the watch samples ranks."""

from __future__ import annotations

import bisect
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from launcher.peers import LonePeers
from launcher.ranks import RankLayout
from launcher.ranks.watch.hang_watch import WINDOW_SAMPLES
from launcher.ranks.watch.rank_judges import PaceJudge

#: Seconds of work of a rank in a step.
Work = Callable[[int, int], float]


class Told(LonePeers):
    """Keeps what is announced."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def announce(self, topic: str, data: Any, node: int | None = None) -> None:
        del topic, node
        self.texts += data["texts"]


def waits_of(ranks: int, steps: int, work: Work, communication: float) -> list[list[float]]:
    """For each rank the times at which its waits begin and end, in turns; each step ends alike."""
    times: list[list[float]] = [[] for _ in range(ranks)]
    now = 0.0
    for step in range(steps):
        ends = [now + work(rank, step) for rank in range(ranks)]
        now = max(ends) + communication
        for rank, end in enumerate(ends):
            times[rank] += [end, now]
    return times


def watch(
    times: Sequence[Sequence[float]], nodes: int, interval: float, seed: int
) -> list[tuple[int, str]]:
    """(window, text) of what node 0 says; the samples of nodes are taken at unlike times."""
    chance = random.Random(seed)
    ranks, each = len(times), len(times) // nodes
    layout = RankLayout(0, (each,) * nodes, ("h",) * nodes, "127.0.0.1", 1, "job")
    told = Told()
    judge = PaceJudge(layout, told)
    end = min(row[-1] for row in times)
    clocks = [chance.random() * interval for _ in range(nodes)]
    waits = [0] * ranks
    said: list[tuple[int, str]] = []
    window = 0
    while max(clocks) < end:
        for node in range(nodes):
            done: dict[int, list[int]] = {
                rank: [] for rank in range(node * each, node * each + each)
            }
            for _ in range(WINDOW_SAMPLES):
                clocks[node] += interval * chance.uniform(0.5, 1.5)
                for rank, ended in done.items():
                    if bisect.bisect(times[rank], clocks[node]) % 2:
                        waits[rank] += 1
                    elif waits[rank]:
                        ended.append(waits[rank])
                        waits[rank] = 0
            rows = [
                {"rank": rank, "samples": WINDOW_SAMPLES, "waits": ended, "wait": waits[rank],
                 "work": "t.py:3 in f", "starved": False}
                for rank, ended in done.items()
            ]  # fmt: skip
            judge.receive({"host": f"h{node}", "paces": rows})
        window += 1
        said += [(window, text) for text in told.texts]
        told.texts.clear()
    return said


@pytest.mark.parametrize("ranks", [2, 8])
@pytest.mark.parametrize("step", [0.05, 0.4, 2.0])
@pytest.mark.parametrize("slower", [1.3, 4.0])
def test_a_slow_rank_is_named_once_with_its_host_and_share(
    ranks: int, step: float, slower: float
) -> None:
    noise = random.Random(1)

    def work(rank: int, _: int) -> float:
        return step * noise.uniform(0.97, 1.03) * (slower if rank == ranks - 1 else 1.0)

    said = watch(waits_of(ranks, int(200 / step / slower), work, 0.05 * step), 2, 0.2, 7)
    window, text = said[0]
    assert f"rank {ranks - 1} [host h1] is slower than the others" in text
    # Steps of 2 s: twenty of them take four windows and more.
    assert window <= 8
    share = int(text.partition("wait for it ")[2].partition("%")[0]) / 100
    assert share == pytest.approx((slower - 1) / (slower + 0.05), abs=0.2)
    assert all("is slower" in text for _, text in said)
    assert len(said) <= 2


@pytest.mark.parametrize("ranks", [2, 8])
@pytest.mark.parametrize("step", [0.05, 0.4, 2.0])
@pytest.mark.parametrize("spread", [0.0, 0.3])
@pytest.mark.parametrize("pause", [0.0, 15.0, 60.0])
def test_equal_ranks_are_never_named_whatever_pauses_they_make(
    ranks: int, step: float, spread: float, pause: float
) -> None:
    noise = random.Random(3)
    between = int(120 / step)

    def work(rank: int, number: int) -> float:
        extra = pause if rank == 0 and number % between == between - 1 else 0.0
        return step * noise.uniform(1 - spread, 1 + spread) + extra

    assert watch(waits_of(ranks, int(600 / step), work, 0.5 * step), 2, 0.2, 7) == []


def test_a_rank_that_recovers_is_said_to_and_one_that_grows_slower_is_named_again() -> None:
    def work(rank: int, number: int) -> float:
        return 0.2 * (1.0 if rank != 1 else 1.4 if number < 300 else 3.0 if number < 600 else 1.0)

    said = [text for _, text in watch(waits_of(4, 1500, work, 0.01), 2, 0.2, 1)]
    assert "wait for it" in said[0]
    assert "wait for it" in said[1]
    assert said[-1] == "rank 1 [host h0] is as fast as the others again"
    assert len(said) <= 4


def test_a_rank_that_others_wait_for_for_good_is_no_straggler() -> None:
    def work(rank: int, number: int) -> float:
        return 1e5 if rank == 1 and number == 400 else 0.1

    times = waits_of(2, 401, work, 0.01)
    for row in times:
        row[-1] = 300.0
    times[1][-2:] = [299.0, 300.0]
    assert watch(times, 1, 0.2, 1) == []
