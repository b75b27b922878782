"""What the GPU bench makes of its figures."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

import pytest

from bench.gpu import main as bench_main
from bench.gpu.bench import Bench
from bench.gpu.collectives import bus_bandwidth, compare
from bench.gpu.examples import said, shape_for
from bench.gpu.health import checks_of
from bench.gpu.host import Host
from bench.gpu.report import NotHereError, Result, Table
from bench.gpu.running import OutOfTimeError, events
from bench.gpu.training import worlds


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(Host("cpu", (), 0, {}), 2, tmp_path, io.StringIO(), 1, 0.5)


@pytest.mark.parametrize(
    ("gpus", "expected"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])]
)
def test_scaling_goes_by_powers_of_two_up_to_any_number_of_gpus(
    gpus: int, expected: list[int]
) -> None:
    assert worlds(gpus) == expected


def test_bus_bandwidth_is_that_of_nccl_tests() -> None:
    # Two ranks send and receive each byte once; many ranks approach twice that.
    assert bus_bandwidth(10**9, 1.0, 2) == pytest.approx(1.0)
    assert bus_bandwidth(10**9, 1.0, 1000) == pytest.approx(1.998)


def test_the_ratio_is_of_median_speeds_and_scatter_is_torchruns_own() -> None:
    bare = [{1: 1.0}, {1: 1.1}, {1: 5.0}]
    ours = [{1: 2.2}, {1: 0.1}, {1: 2.2}]
    assert compare(bare, ours)[1] == pytest.approx((1.1, 2.2, 0.5, 4.0))


@pytest.mark.parametrize("parameters", [1e9, 3e9, 7e9, 20e9, 70e9])
def test_a_model_has_nearly_the_wanted_size_and_heads_of_128(parameters: float) -> None:
    shape = shape_for(parameters)
    assert shape.parameters == pytest.approx(parameters, rel=0.03)
    assert shape.hidden == 128 * shape.heads


def test_ranks_and_the_launcher_are_told_apart_in_what_is_printed() -> None:
    lines = [
        'launch: {"event": "ranks", "world": 2}',
        '[r0] {"event": "step", "step": 3}',
        '[r1] {"event": "summary", "steps": 3}',
        "[r0] {not json",
        "a warning",
    ]
    assert events(lines) == [{"event": "ranks", "world": 2}]
    assert said(lines, "step") == [{"event": "step", "step": 3}]


def test_the_preflights_json_is_found_among_other_lines() -> None:
    document = json.dumps({"host": "h", "checks": [{"name": "gpus"}]}, indent=1).splitlines()
    assert checks_of(["launch: {}", "[r0] x", *document, "bye"]) == [{"name": "gpus"}]
    assert checks_of(["Traceback (most recent call last):"]) == []


def test_a_table_is_markdown_with_cells_of_one_width() -> None:
    assert Table("T", ("a", "bb"), [("1", "2"), ("10", "")]).text().splitlines() == [
        "### T",
        "",
        "| a  | bb |",
        "|----|----|",
        "| 1  | 2  |",
        "| 10 |    |",
    ]


def test_a_command_that_outlasts_its_part_is_ended_with_all_it_started(
    bench: Bench, tmp_path: Path
) -> None:
    bench.deadline = time.monotonic() + 60
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    child = "import os, time; print('pid', os.getpid(), flush=True); time.sleep(600)"
    run = bench.start([sys.executable, "-c", code, child], first=0, count=1)
    (said,) = run.wait_for(r"pid (\d+)")
    run.deadline = time.monotonic()
    with pytest.raises(OutOfTimeError):
        run.end()
    bench.end_all()
    assert not Path("/proc", said[1]).exists()


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (None, "done"),
        (NotHereError("needs two GPUs"), "not here"),
        (OutOfTimeError("it ran 9 s"), "failed"),
        (RuntimeError("a defect"), "failed"),
        (Result(problems=["98 %"]), "failed"),
    ],
)
def test_a_parts_end_becomes_its_state(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, outcome: object, state: str
) -> None:
    def part(_: Bench, result: Result) -> None:
        result.data["kept"] = True
        if isinstance(outcome, Result):
            result.problems += outcome.problems
        if isinstance(outcome, Exception):
            raise outcome

    monkeypatch.setitem(bench_main.PARTS, "part", (part, 60))
    found = bench_main.run_part(bench, "part", 60)
    assert (found["state"], found["data"]) == (state, {"kept": True})
    assert bool(found["problems"]) == (state != "done")


def test_a_part_for_which_no_time_is_left_is_not_begun(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bench_main.PARTS, "part", (lambda *_: pytest.fail("begun"), 60))
    assert bench_main.run_part(bench, "part", 10)["state"] == "failed"


def test_an_unknown_part_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "--gpus=1", f"--out={tmp_path}", "--only=fsdp,x"])
    with pytest.raises(SystemExit, match="--only x: choose from allreduce,"):
        bench_main.main("")
