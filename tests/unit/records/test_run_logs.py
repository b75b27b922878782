"""The log of a run: what was told comes back, from a whole file and from a cut one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slipway.core import Event, Project, SlipwayError, remember_secret
from slipway.records import RunLog, load_image_layers, read_run_log, save_image_layers
from slipway.records.run_logs import KEPT_RUNS
from tests.support.report_samples import layers

EVENTS = [
    Event("start", "build x"),
    Event("start", "build x", "RUN a"),
    Event("log", "build x", "RUN a", "a line of output"),
    Event("progress", "build x", "RUN a", current=40, total=100, unit="B"),
    Event("progress", "build x", "checks", current=3, total=9),
    Event("done", "build x", "RUN a", "1.0s"),
    Event("cached", "build x", "RUN b"),
    Event("progress", "build x", "layer 1", current=7, unit="B"),
    Event("done", "build x", text="1.2 GB"),
]


def written(project: Project, *events: Event) -> Path:
    with RunLog(project, "ship x") as log:
        for event in events:
            log.on_event(event)
        log.note("stage", image="x", name="build")
    (path,) = project.runs.glob("*.jsonl")
    return path


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, tmp_path / "state")


def test_a_run_comes_back_as_it_was_told(project: Project) -> None:
    run = read_run_log(written(project, *EVENTS))
    steps = {(step.task, step.step): (step.state, step.bytes, step.text) for step in run.steps}
    assert steps == {
        ("build x", ""): ("done", 0, "1.2 GB"),
        ("build x", "RUN a"): ("done", 40, "1.0s"),
        ("build x", "RUN b"): ("cached", 0, ""),
        ("build x", "layer 1"): ("heard", 7, ""),
    }
    assert run.words == "ship x"
    assert run.ended is not None
    assert [note["what"] for note in run.notes] == ["stage", "end"]
    assert run.unread == ()


def test_a_log_that_is_cut_tells_what_it_has(project: Project) -> None:
    path = written(project, *EVENTS)
    whole = path.read_bytes()
    header = whole.index(b"\n") + 1
    for length in range(header, len(whole) - 1, 13):
        path.write_bytes(whole[:length])
        run = read_run_log(path)
        assert run.ended is None
        assert len(run.unread) <= 1
        assert all(step.end is None for step in run.steps if step.state == "open")
    path.write_bytes(whole[: header - 2])
    with pytest.raises(SlipwayError, match="names its format"):
        read_run_log(path)


def test_a_log_of_another_format_is_refused_by_name(project: Project) -> None:
    path = written(project)
    path.write_text(path.read_text().replace("slipway-run/1", "slipway-run/2"))
    with pytest.raises(SlipwayError, match="reads slipway-run/1"):
        read_run_log(path)


@settings(
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.text(max_size=40) | st.just('{"t": 1, "what": "done", "task": 3, "bytes": []}')))
def test_odd_lines_are_passed_over(tmp_path: Path, lines: list[str]) -> None:
    path = tmp_path / "run.jsonl"
    header = '{"t": 1, "format": "slipway-run/1", "words": "ship"}'
    path.write_text("\n".join([header, *lines]), errors="surrogatepass")
    assert read_run_log(path).words == "ship"


def test_old_runs_go_when_there_are_many(project: Project) -> None:
    project.runs.mkdir(parents=True)
    for number in range(KEPT_RUNS + 5):
        (project.runs / f"{number:08}T000000Z-1.jsonl").write_text("x")
    with RunLog(project, "ship"):
        left = sorted(path.name for path in project.runs.iterdir())
    assert len(left) == KEPT_RUNS
    assert left[0] == "00000006T000000Z-1.jsonl"


def test_a_run_goes_on_where_it_cannot_be_recorded(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.state.mkdir()
    project.runs.write_text("a file in the way")
    with RunLog(project, "ship") as log:
        log.on_event(EVENTS[0])
    assert "is not recorded" in capsys.readouterr().err


def test_a_run_that_fails_says_so_at_its_end(project: Project) -> None:
    with pytest.raises(ValueError, match="broken"), RunLog(project, "ship"):
        raise ValueError("broken")
    (path,) = project.runs.glob("*.jsonl")
    assert read_run_log(path).notes[-1]["failed"] is True


def test_secrets_are_not_recorded(project: Project) -> None:
    remember_secret("hunter2-hunter2")
    path = written(project, Event("done", "pull https://me:pass-word@host/x hunter2-hunter2"))
    assert "hunter2" not in path.read_text()
    assert "pass-word" not in path.read_text()


def test_layers_come_back_as_they_were_saved_and_damage_is_named(project: Project) -> None:
    assert load_image_layers(project, "x") is None
    save_image_layers(project, "x", layers("d0", "d1"))
    assert load_image_layers(project, "x") == layers("d0", "d1")
    path = project.layer_records / "x.json"
    for damage in ("", "[]", path.read_text().replace("layers/1", "layers/2"), '{"format": 1}'):
        path.write_text(damage)
        with pytest.raises(SlipwayError, match="its layers cannot be read"):
            load_image_layers(project, "x")
