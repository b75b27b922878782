"""A job by what names it: a file, or what Slurm has of it, on this machine or behind ssh."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.cluster import JobNotBegunError, JobReading
from slipway.core import Project, SlipwayError, UsageError
from slipway.report import WatchRequest, watch_work
from slipway.report.job import JobPlaces, JobSource, job_pages, parse_job_source
from slipway.report.job.job_log import take_reading
from slipway.report.job.job_page import JobPage
from slipway.report.job.job_stages import JobTimes, queue_lead, start_seconds
from tests.support.report_samples import BEGAN, job_lines, launcher_event, start_up
from tests.unit.cluster.test_slurm_jobs import SHOWN

QUEUED_S = 600.0


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("job-17.out", JobSource("file", "job-17.out")),
        ("17", JobSource("file", "17")),
        ("/a:b/c.out", JobSource("file", "/a:b/c.out")),
        ("slurm:17", JobSource("slurm", "17")),
        ("sagemaker:pretrain-2026", JobSource("sagemaker", "pretrain-2026")),
        ("cloudwatch:/aws/a", JobSource("cloudwatch", "/aws/a")),
        ("cloudwatch:/aws/a:job/algo", JobSource("cloudwatch", "/aws/a", "job/algo")),
    ],
)
def test_a_job_is_what_its_name_says(text: str, source: JobSource) -> None:
    assert parse_job_source(text) == source


@pytest.mark.parametrize(
    "text",
    ["slurm:", "slurm:0", "slurm:17;x", "slurm:-1", "slurm:\u0661", "sagemaker:", "sagemaker:a_b",
     "sagemaker:-a", "sagemaker:" + "a" * 64, "cloudwatch:", "cloudwatch::x", "cloudwatch:a b",
     "cloudwatch:a:b*", "cloudwatch:a:b:c", "cloudwatch:a:\x1b[2J"],
)  # fmt: skip
def test_a_name_that_no_job_can_have_is_refused_with_the_forms_that_there_are(text: str) -> None:
    with pytest.raises(UsageError, match="names no job") as refusal:
        parse_job_source(text)
    assert "slurm:NUMBER" in str(refusal.value)


def test_a_file_that_is_there_is_one_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("slurm:17").write_text("\n".join(job_lines()))
    assert parse_job_source("slurm:17") == JobSource("file", "slurm:17")


@given(st.text())
def test_any_text_is_a_job_or_refused(text: str) -> None:
    try:
        source = parse_job_source(text)
    except UsageError:
        return
    assert source.kind == "file" or text.startswith(f"{source.kind}:{source.name}")


# --- Slurm, by stand-ins of its programs that print what Slurm 22.05 did ---


class HeadNodePrograms:
    """scontrol knows job 7, in some state, with its log; ssh is a shell, as sshd gives one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "shared" / "job-7.out"
        self.log.parent.mkdir(parents=True)
        self.put(
            "ssh", 'while [ "$1" != -- ]; do shift; done; shift 2; cd /; exec sh -c "$*"'
        )  # its client's own words are gone, and with them this machine's folder
        self.state("COMPLETED")

    def put(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def state(self, state: str) -> None:
        """Submitted ten minutes before the sample's first second, and started with it."""
        shown = (
            SHOWN.format(name="job")
            .replace("/fsx/run/job-7.out", str(self.log))
            .replace("SubmitTime=990", f"SubmitTime={BEGAN - QUEUED_S:.0f}")
            .replace("StartTime=1000", f"StartTime={BEGAN:.0f}")
            .replace("JobState=FAILED", f"JobState={state}")
        )
        self.put("scontrol", f'case "$3$4" in *json*) exit 1;; esac; echo "{shown}"')


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HeadNodePrograms:
    monkeypatch.setenv("PATH", f"{tmp_path / 'programs'}:{os.environ['PATH']}")
    (tmp_path / "programs").mkdir()
    return HeadNodePrograms(tmp_path / "programs")


def places(folder: Path, ssh: str = "") -> JobPlaces:
    return JobPlaces(Project(folder, folder / "state"), ssh)


def slurm_page(folder: Path, ssh: str) -> JobPage:
    (page,) = job_pages(parse_job_source("slurm:7").read(places(folder, ssh)))
    return page


@pytest.mark.parametrize("ssh", ["", "me@head"])
def test_a_slurm_job_has_its_queue_and_its_log_under_stand_ins_of_slurm_and_ssh(
    head: HeadNodePrograms, tmp_path: Path, ssh: str
) -> None:
    others = [f"[r{n}] loss 3.{n}" for n in range(50)]
    others += ["host-0: 1,234.5 MB in 4.0 s: 1,234.5 MB from the origin",
               "host-1: 1,234.5 MB in 2.5 s: 1,234.5 MB from other nodes"]  # fmt: skip
    head.log.write_bytes("\n".join([*others, *job_lines(), "\x00\xff"]).encode("latin-1"))
    page = slurm_page(tmp_path, ssh)
    stages = {stage.stage: stage.slowest for stage in page.stages}
    assert (page.queue, stages["queue"]) == (QUEUED_S, QUEUED_S)
    # Of node 1's 12 s before its launcher the .sqsh took 2.5, of node 0's 10 it took 4.
    assert (stages["fetch"], stages["container"]) == (4.0, 9.5)
    assert [row.stages["container"] for row in page.node_rows] == [6.0, 9.5]
    assert all(row.stages["queue"] == QUEUED_S for row in page.node_rows)
    assert (page.nodes, page.world, len(page.steps), page.unread) == (2, 4, 2, 0)
    assert page.file.startswith(f"Slurm job 7 on {ssh or 'this machine'}")


def test_stacks_of_a_slurm_job_are_read_where_its_log_lies_here(
    head: HeadNodePrograms, tmp_path: Path
) -> None:
    stalls = head.log.parent / "stalls" / "001-hang"
    stalls.mkdir(parents=True)
    (stalls / "rank3.txt").write_text("File train.py, line 41")
    hang = launcher_event(91, 1, "hang", text="x", ranks=[3], stacks=str(stalls))
    head.log.write_text("\n".join([*job_lines(), hang]))
    assert [s.text for n in slurm_page(tmp_path, "").notices for s in n.stacks] == [
        "File train.py, line 41"
    ]
    assert [s for n in slurm_page(tmp_path, "head").notices for s in n.stacks] == []


@pytest.mark.parametrize("ssh", ["", "head"])
def test_a_job_that_waits_or_whose_log_is_elsewhere_says_so(
    head: HeadNodePrograms, tmp_path: Path, ssh: str
) -> None:
    with pytest.raises(SlipwayError, match="is not on") as away:
        slurm_page(tmp_path, ssh)
    assert str(head.log) in str(away.value)
    head.state("PENDING")
    with pytest.raises(JobNotBegunError, match="job 7 has not begun"):
        slurm_page(tmp_path, ssh)
    head.state("RUNNING")
    head.log.write_text("srun: error: nothing yet\n")
    with pytest.raises(JobNotBegunError, match="no log of a job"):
        slurm_page(tmp_path, ssh)


def test_a_slurm_job_is_watched_from_its_wait_in_the_queue_to_its_end(
    head: HeadNodePrograms, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = WatchRequest("slurm:7", ssh="head")
    head.state("PENDING")
    watch_work(tmp_path, request)
    assert "job 7 has not begun" in capsys.readouterr().err
    head.state("RUNNING")
    head.log.write_text("\n".join(job_lines()[:-2]))
    watch_work(tmp_path, request)
    assert "pretrain: at work" in capsys.readouterr().err
    head.log.write_text("\n".join(job_lines()))
    watch_work(tmp_path, request)
    told = capsys.readouterr()
    assert "pretrain: over" in told.err
    assert "failed (77)" in told.out
    head.put("scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    head.put("sacct", "exit 1")
    with pytest.raises(SlipwayError, match="knows no job 7"):
        watch_work(tmp_path, request)


def test_a_job_of_aws_needs_a_region(tmp_path: Path) -> None:
    for text in ("sagemaker:a", "cloudwatch:/g"):
        with pytest.raises(UsageError, match="--region is missing"):
            parse_job_source(text).read(places(tmp_path))


# --- the queue ---


def log_of(
    *lines: str, submitted: float = 0, started: float = 0, cut: bool = False
) -> tuple[JobPage, ...]:
    data = [line.encode() for line in lines]
    return job_pages(take_reading(JobReading("job", "a", None, data, submitted, started, cut)))


def test_the_queue_is_no_part_of_the_start_and_stands_before_the_job() -> None:
    (page,) = log_of(*job_lines(), submitted=BEGAN - 30, started=BEGAN)
    assert page.queue == page.lead == 30
    assert page.began == BEGAN
    assert start_seconds(page.stages) == 78.0
    for row in page.node_rows:
        assert (row.spans[0].kind, row.spans[0].start, row.spans[0].seconds) == ("queue", -30, 30)
        assert row.spans[1].start == 0


def test_a_start_that_only_the_scheduler_tells_is_where_the_container_begins() -> None:
    """As on SageMaker, whose containers are not told when their job began."""
    told = f'"job_start": {int(BEGAN)}'
    lines = [line.replace(told, '"job_start": null') for line in job_lines()]
    (page,) = log_of(*lines, submitted=BEGAN - 200, started=BEGAN - 100)
    stages = {stage.stage: stage.slowest for stage in page.stages}
    assert (stages["queue"], stages["container"]) == (100.0, 112.0)
    assert page.began == BEGAN - 100


def test_of_a_requeued_job_the_queue_is_that_of_its_last_start() -> None:
    later = [
        start_up(1050, 0, 1010, {"gate": 5}, job_start=int(BEGAN + 1000)),
        launcher_event(1051, 0, "ranks", first=0, here=2, world=2),
        launcher_event(1090, 0, "done", code=0),
    ]
    first, second = log_of(*job_lines(), *later, submitted=BEGAN + 100, started=BEGAN + 1000)
    assert (first.queue, second.queue) == (None, 900)
    (again,) = log_of(*later, submitted=BEGAN, started=BEGAN + 5000)
    assert again.queue is None  # of an attempt that has printed nothing yet


@given(st.floats(0, 1e10), st.floats(0, 1e10), st.floats(0, 1e6))
def test_what_is_drawn_of_a_queue_is_never_more_than_what_comes_after(
    submitted: float, started: float, seconds: float
) -> None:
    queue = JobTimes(submitted, started).queue
    assert queue is None or queue >= 0
    assert 0 <= queue_lead(queue, seconds) <= min(queue or 0.0, seconds)


def test_a_log_that_was_cut_on_its_way_says_so() -> None:
    (page,) = log_of(*job_lines(), cut=True)
    assert page.cut
