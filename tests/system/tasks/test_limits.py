"""A sample of bench/limits.py: what tasks do on a machine that lacks something, and leave."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.limit_tasks import TASKS, Place, Task, tiny_place
from bench.limits import LIMITS, Bench, Limit

#: One of each kind of limit, and each task; the whole matrix takes an hour.
SAMPLE = {
    "lock": ("no inode is left from the N-th on", "stdout closed"),
    "sqsh": (
        "stderr full",
        "the same, and SIGPIPE kills",
        "a disk with nr_inodes",
        "SIGHUP after N s",
        "a stopped process holds the lock N",
    ),
    "push": ("64 open files", "the clock jumps by -1 year", "the same, and LANG=C"),
    "ship": ("256 processes and threads", "512 MB of memory", "the disk is full from the N-th on"),
    "storage.move": ("paths with blanks and unicode",),
}
TASK_OF = {task.name: task for task in TASKS}
LIMIT_OF = {limit.name: limit for limit in LIMITS}


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="limits-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def place(scratch: Path) -> Iterator[Place]:
    with tiny_place(scratch) as made:
        yield made


@pytest.fixture(scope="module")
def bench(scratch: Path) -> Bench:
    return Bench(scratch)


@pytest.mark.parametrize(
    ("task", "limit"),
    [
        pytest.param(TASK_OF[task], LIMIT_OF[name], id=f"{task}-{name}")
        for task, names in SAMPLE.items()
        for name in names
    ],
)
def test_a_task_ends_well_or_says_why_and_leaves_nothing_half_made(
    bench: Bench, place: Place, task: Task, limit: Limit
) -> None:
    points = limit.points(bench, place, task)
    _, faults = bench.faults(place, task, limit, points[len(points) // 2])
    assert faults == []
