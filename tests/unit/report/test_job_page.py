"""A job's page by the log that the launcher left: whole, cut, old, or hostile."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.fetch import fetch_command
from launcher.fetch.fetch_run import FetchResult
from slipway.core import SlipwayError
from slipway.report.job.job_log import LONGEST_LINE, read_job_log
from slipway.report.job.job_page import JobPage, job_pages
from slipway.report.job.job_stages import start_seconds
from tests.support.report_samples import BEGAN, job_lines, launcher_event, start_up


def pages_of(folder: Path, *lines: str) -> tuple[JobPage, ...]:
    path = folder / "job.out"
    path.write_text("\n".join(lines) + "\n", errors="surrogatepass")
    return job_pages(read_job_log(path))


def test_each_stage_is_told_by_the_node_that_took_longest(tmp_path: Path) -> None:
    (page,) = pages_of(tmp_path, *job_lines())
    table = {stage.stage: (stage.slowest, stage.slowest_node) for stage in page.stages}
    assert table == {
        "container": (12.0, "1 host-1"),
        "launcher": (1.0, "0 host-0"),
        "gate": (5.0, "0 host-0"),
        "prefetch": (35.0, "1 host-1"),
        "others": (15.0, "0 host-0"),
        "import": (10.0, "0 host-0"),
    }
    assert start_seconds(page.stages) == 78.0
    starts = [stage.start for stage in page.stages]
    assert starts == [0, 12, 13, 18, 53, 68]


def test_a_job_is_told_by_nodes_ranks_steps_and_its_end(tmp_path: Path) -> None:
    (page,) = pages_of(tmp_path, *job_lines())
    assert (page.title, page.nodes, page.world, page.seconds) == ("pretrain", 2, 4, 95.0)
    assert page.whole
    assert [row.rank for row in page.rank_rows] == [0, 1, 2, 3]
    assert [row.notices for row in page.rank_rows] == [0, 0, 0, 1]
    assert [(point.step, point.speed) for point in page.steps] == [(1, 1000), (2, 800)]
    assert page.ends[0][:3] == ("failed", 77, "0 host-0")
    assert page.ends[1][3] == "Hang on host-1 rank 3\nTraceback"
    (checkpoint,) = page.transfers
    assert (checkpoint.name, checkpoint.bytes, checkpoint.seconds) == ("step-2", 4096, 3)
    (hang,) = page.notices
    assert (hang.event, hang.ranks, hang.at) == ("hang", (3,), 90.0)


def test_a_nodes_spans_follow_each_other_up_to_its_end(tmp_path: Path) -> None:
    (page,) = pages_of(tmp_path, *job_lines())
    for row in page.node_rows:
        for before, after in itertools.pairwise(row.spans):
            assert before.start + before.seconds == pytest.approx(after.start)
        assert row.spans[-1].start + row.spans[-1].seconds == pytest.approx(page.seconds)


def test_events_of_an_older_launcher_are_told_by_their_times(tmp_path: Path) -> None:
    (page,) = pages_of(
        tmp_path,
        launcher_event(0, 0, "gate", port=7777),
        launcher_event(4, 0, "met", nodes=1),
        launcher_event(20, 0, "prefetched", source="s3://b/m"),
        launcher_event(21, 0, "ranks", first=0, here=1, world=1),
        launcher_event(60, 0, "done", code=0),
    )
    assert page.old_launcher
    assert {stage.stage: stage.slowest for stage in page.stages} == {
        "gate": 4.0,
        "prefetch": 16.0,
        "others": 1.0,
    }
    assert page.ends == (("done", 0, "0 host-0", ""),)


def test_a_log_that_is_cut_in_the_middle_tells_what_it_has(tmp_path: Path) -> None:
    whole = "\n".join(job_lines())
    path = tmp_path / "job.out"
    for length in range(len(whole.splitlines()[0]), len(whole), 97):
        path.write_text(whole[:length])
        (page,) = job_pages(read_job_log(path))
        assert page.whole == (length >= len(whole) - 1)
        assert page.unread <= 1
    path.write_text(whole[: whole.rindex('"detail"')])
    (page,) = job_pages(read_job_log(path))
    assert not page.whole
    assert page.unread == 1


def test_events_are_found_behind_what_slurm_and_cloudwatch_put_before_them(tmp_path: Path) -> None:
    lines = [f"2026-11-28T10:00:00Z algo-1 1: {line}" for line in job_lines()]
    (page,) = pages_of(tmp_path, "srun: a step", *lines, "\x00\xff odd \r bytes")
    assert page.nodes == 2


def test_what_is_said_before_a_node_knows_its_place_is_no_node(tmp_path: Path) -> None:
    fetch = {"t": BEGAN + 1, "host": "host-1", "event": "fetch-alone", "why": "no node 0"}
    (page,) = pages_of(tmp_path, f"launch: {json.dumps(fetch)}", *job_lines())
    assert (page.nodes, page.whole) == (2, True)
    assert page.notices[0].event == "fetch-alone"


def test_a_requeued_job_is_a_page_for_each_attempt(tmp_path: Path) -> None:
    later = [
        start_up(1050, 0, 1010, {"gate": 5}),
        start_up(1050, 1, 1011, {"gate": 6}),
        launcher_event(1051, 0, "ranks", first=0, here=2, world=4),
        '[r0] {"step": 1, "tokens_per_s": 500.0}',
        launcher_event(1090, 0, "done", code=0),
        launcher_event(1090, 1, "done", code=0),
    ]
    first, second = pages_of(tmp_path, *job_lines(), *later)
    assert first.title == "pretrain, attempt 1 of 2"
    assert [end[0] for end in first.ends] == ["failed", "failed"]
    assert [end[0] for end in second.ends] == ["done"]
    assert second.began == BEGAN + 1010
    assert [point.speed for point in first.steps] == [1000, 800]
    assert [point.speed for point in second.steps] == [500]


def test_the_sqsh_of_each_attempt_is_a_stage_of_its_own_and_the_words_are_the_launchers(
    tmp_path: Path,
) -> None:
    def came(seconds: float, size: int) -> str:
        result = FetchResult(Path("a.sqsh"), size, from_origin=size, seconds=seconds)
        return f"host-0: {fetch_command._summary(result)}"

    later = [
        came(0.25, 0),
        start_up(1050, 0, 1010, {"gate": 5}, job_start=int(BEGAN + 1000)),
        launcher_event(1051, 0, "ranks", first=0, here=2, world=4),
        launcher_event(1090, 0, "done", code=0),
    ]
    first, second = pages_of(tmp_path, came(4.0, 10**9), *job_lines(), *later)
    told = [{s.stage: s.slowest for s in page.stages} for page in (first, second)]
    assert (told[0]["fetch"], told[1]["fetch"]) == (4.0, 0.2)  # the launcher tells tenths
    assert told[1]["container"] == pytest.approx(9.8)
    assert "fetch" not in first.node_rows[1].stages
    for row in first.node_rows:
        assert row.spans[0].start == 0


def test_a_file_without_an_event_is_no_log(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing of a launcher\nlaunch: {}\n")
    with pytest.raises(SlipwayError, match="no log of a job"):
        read_job_log(path)
    with pytest.raises(SlipwayError, match="cannot be read"):
        read_job_log(tmp_path / "missing")


def test_stacks_are_read_beside_the_log_and_nowhere_else(tmp_path: Path) -> None:
    secret = tmp_path / "elsewhere" / "stalls" / "001-hang"
    secret.mkdir(parents=True)
    (secret / "rank0.txt").write_text("secret")
    beside = tmp_path / "job" / "stalls" / "001-hang"
    beside.mkdir(parents=True)
    (beside / "0-odd-rank3.txt").write_text("File train.py, line 41")
    (beside / "rank1.txt").symlink_to(secret / "rank0.txt")
    (beside / "notes.md").write_text("no stack")
    log = tmp_path / "job" / "job.out"

    def stacks(named: str) -> list[tuple[str, bool, str]]:
        log.write_text(launcher_event(1, 0, "hang", text="x", ranks=[3], stacks=named))
        (page,) = job_pages(read_job_log(log))
        return [(s.name, s.odd, s.text) for s in page.notices[0].stacks]

    assert stacks(str(beside)) == [("rank3", True, "File train.py, line 41")]
    for named in (str(secret), "/etc", "", "\x00", str(beside.parent), str(beside / "..")):
        assert stacks(named) == []
    (tmp_path / "job" / "stalls" / "002-hang").symlink_to(secret)
    assert stacks(str(tmp_path / "job" / "stalls" / "002-hang")) == []


def test_a_line_of_megabytes_is_passed_over(tmp_path: Path) -> None:
    long = launcher_event(5, 0, "warning", text="x" * (3 * LONGEST_LINE))
    (page,) = pages_of(tmp_path, long, *job_lines())
    assert page.unread == 1
    assert page.nodes == 2


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = ["start-up", "ranks", "first-output", "hang", "failed", "done", "checkpoint", "met", "odd"]
FIELDS = [
    *("t", "host", "node_rank", "began", "job_start", "stages", "format", "first", "here"),
    *("world", "ranks", "stacks", "code", "cause", "bytes", "seconds", "name", "rank"),
]


@settings(
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(NAMES),
            st.dictionaries(st.sampled_from(FIELDS), values, max_size=5),
            st.integers(0, 100),
        ),
        max_size=8,
    ),
    st.lists(
        st.dictionaries(st.sampled_from(["step", "tokens_per_s", "loss"]), values), max_size=4
    ),
)
def test_odd_values_in_events_and_lines_break_nothing(
    tmp_path: Path,
    events: list[tuple[str, dict[str, object], int]],
    lines: list[dict[str, object]],
) -> None:
    written = [
        "launch: "
        + json.dumps({"t": BEGAN + at, "host": "h", "node_rank": 0, "event": event} | fields)
        for event, fields, at in events
    ]
    ranked = [f"[r0] {json.dumps(line)}" for line in lines]
    for page in pages_of(tmp_path, *job_lines(), *written, *ranked):
        assert page.seconds >= 0
        assert all(span.seconds >= 0 for row in page.node_rows for span in row.spans)
