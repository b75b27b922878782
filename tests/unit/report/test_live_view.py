"""`inv watch`: what it shows of a run, a job and a fan-out, and how it leaves a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.cluster import ImageResult, PlannedImage
from slipway.core import Event, Project, UsageError
from slipway.records import RunLog, read_run_log
from slipway.report import WatchRequest, watch_work
from slipway.report.job.job_log import read_job_log
from slipway.report.job.job_page import job_pages
from slipway.report.live_table import job_table, results_table, run_table
from slipway.report.live_view import FileReading

ROOT = Path(__file__).parents[3]
OTHER_SCREEN, BACK, SHOW_CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


def project(tmp_path: Path) -> Project:
    return Project(ROOT, tmp_path / "state")


def test_a_run_shows_what_each_piece_of_work_is_at(tmp_path: Path) -> None:
    made = project(tmp_path)
    with RunLog(made, "ship local") as log:
        log.on_event(Event("start", "base local"))
        log.on_event(Event("done", "base local"))
        log.on_event(Event("start", "build local"))
        log.on_event(Event("progress", "build local", "COPY wheels", current=5_000_000, unit="B"))
        log.on_event(Event("start", "build local", "RUN install"))
        (path,) = made.runs.iterdir()
        run = read_run_log(path)
        table = run_table(run, run.started + 10.0, alive=True)
        assert not table.over
        assert table.title == "inv ship local: at work, 10.0 s"
        assert [row[:2] for row in table.rows] == [
            ("base local", "done"),
            ("build local", "at work"),
        ]
        assert table.rows[1][4] == "RUN install"
        # The process has gone without a word of its end.
        cut = run_table(run, run.started + 10.0, alive=False)
        assert (cut.over, cut.title.split(": ")[1].split(",")[0]) == (True, "cut off")
    ended = run_table(read_run_log(path), time.time(), alive=True)
    assert (ended.over, "done" in ended.title) == (True, True)


def event(node: int, at: float, name: str, **fields: Any) -> str:
    line = {"t": at, "host": f"n{node}", "node_rank": node, "event": name, **fields}
    return f"launch: {json.dumps(line)}\n"


def test_a_job_shows_its_nodes_its_step_and_how_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "job.out"
    start = [event(node, 100.0 + node, "met", nodes=2) for node in range(2)]
    start += [event(node, 110.0, "ranks", first=node, here=1, world=2) for node in range(2)]
    path.write_text("".join(start) + '[r0] {"step": 7, "loss": 2.5, "tokens_per_s": 1200}\n')
    table = job_table(job_pages(read_job_log(path))[-1], 160.0)
    assert not table.over
    assert "2 nodes, 2 ranks" in table.title
    assert "1 min" in table.title
    assert len(table.rows) == 2
    assert table.notes[0].startswith("step 7")
    ends = [event(0, 170.0, "failed", code=1, cause="ScriptFailed: boom"), event(1, 171.0, "over")]
    path.write_text(path.read_text() + "".join(ends))
    over = job_table(job_pages(read_job_log(path))[-1], 999.0)
    assert over.over
    assert any("boom" in note for note in over.notes)


@given(done=st.lists(st.booleans(), max_size=6), left=st.integers(0, 3), going=st.booleans())
def test_a_fanout_shows_each_image_once(done: list[bool], left: int, going: bool) -> None:
    names = [f"image-{number}" for number in range(len(done) + left)]
    images = [PlannedImage(name, "base", "b" * 64) for name in names]
    results = [
        ImageResult(name, "base", "b" * 64, None if ok else "exit code 1", worker="w", seconds=1.0)
        for name, ok in zip(names, done, strict=False)
    ]  # fmt: skip
    table = results_table(images, results, going=going)
    assert [row[0] for row in table.rows] == names
    assert table.title == f"{sum(done)} of {len(names)} images shipped, {done.count(False)} failed"
    last = ["not yet" if going else "not reached"] * left
    assert [row[3] for row in table.rows[len(done) :]] == last
    assert table.over != going


NOTHING = (
    WatchRequest(),
    WatchRequest(job="/gone.out"),
    WatchRequest(fanout="/gone"),
    WatchRequest("a", "b"),
)


@pytest.mark.parametrize("request_", NOTHING)
def test_nothing_to_watch_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: WatchRequest
) -> None:
    monkeypatch.setenv("SLIPWAY_STATE", str(tmp_path))
    with pytest.raises(UsageError):
        watch_work(ROOT, request_)


@contextmanager
def on_a_terminal(state: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    main, other = pty.openpty()
    command = [sys.executable, "-m", "slipway.tasks.cli", "--search-root", str(ROOT), "watch"]
    env = {
        **os.environ,
        "SLIPWAY_STATE": str(state),
        "TERM": "xterm",
        "COLUMNS": "100",
        "LINES": "30",
    }
    process = subprocess.Popen(
        command, stdin=other, stdout=other, stderr=other, env=env, cwd=ROOT, start_new_session=True
    )
    os.close(other)
    try:
        yield process, main
    finally:
        process.kill()
        process.wait()
        os.close(main)


def read_until(handle: int, wanted: bytes, seen: bytes = b"") -> bytes:
    until = time.monotonic() + 60
    while wanted not in seen:
        assert time.monotonic() < until, seen
        if select.select([handle], [], [], 1.0)[0]:
            try:
                seen += os.read(handle, 65536)
            except OSError:  # the program has ended, and with it its side of the terminal
                break
    assert wanted in seen, seen
    return seen


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_terminal_is_left_as_it_was(tmp_path: Path, interrupted: bool) -> None:
    made = project(tmp_path)
    with RunLog(made, "ship \x1b[31mlocal") as log:
        log.on_event(Event("start", "build local"))
        with on_a_terminal(made.state) as (process, handle):
            seen = read_until(handle, b"build local")
            assert seen.index(OTHER_SCREEN) < seen.index(b"build local")
            assert b"\x1b[31mlocal" not in seen
            if interrupted:
                process.send_signal(signal.SIGINT)
            else:
                log.on_event(Event("done", "build local"))
                log.__exit__(None, None, None)
            seen = read_until(handle, BACK, seen)
            assert seen.rindex(SHOW_CURSOR) > seen.rindex(b"\x1b[?25l")
            assert process.wait(timeout=60) == (130 if interrupted else 0)


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("one")
    read: list[str] = []

    def reading(file: Path) -> str:
        read.append(file.read_text())
        return read[-1]

    content = FileReading(path, reading)
    assert [content.content() for _ in range(3)] == ["one"] * 3
    path.write_text("one, two")
    assert content.content() == "one, two"
    assert read == ["one", "one, two"]
    path.unlink()
    with pytest.raises(FileNotFoundError):
        content.content()
