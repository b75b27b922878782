"""Jobs on Slurm: what its versions say becomes the same facts, and a log becomes a cause."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.cluster import (
    HeadNode,
    SubmitPlace,
    follow_job,
    show_job,
    show_queue,
    stop_job,
    submit_job,
)
from slipway.cluster.launcher_events import LauncherEvent, parse_event
from slipway.cluster.slurm import head_node, job_facts, job_log, jobs
from slipway.cluster.slurm.job_facts import JobFacts
from slipway.cluster.slurm.job_log import LogExcerpt
from slipway.cluster.slurm.submissions import Submission, save_submission
from slipway.core import Project, SlipwayError, UsageError
from tests.support.cluster_samples import request

ROOT = Path(__file__).parents[3]

ENDED = JobFacts(
    id="7",
    name="job",
    state="FAILED",
    reason="NonZeroExitCode",
    exit_code=3,
    nodes="n[1-2]",
    restarts=1,
    start=1000,
    end=1060,
    partition="all",
    user="ann",
    folder="/fsx/run",
    log="/fsx/run/job-7.out",
    submitted=990,
)
RUNNING = replace(ENDED, state="RUNNING", reason="", exit_code=0, end=0)


def of_json(job: JobFacts, generation: str) -> dict[str, object]:
    """The job in the JSON of a version (its keys and shapes as `squeue --json` there has them)."""

    def number(value: int) -> object:
        return value if generation == "22.05" else {"set": True, "infinite": False, "number": value}

    code = {
        "22.05": job.exit_code << 8,
        "23.02": {"status": "ERROR", "return_code": job.exit_code},
        "24.05": {
            "status": ["ERROR"],
            "return_code": number(job.exit_code),
            "signal": {"id": {"set": False, "infinite": False, "number": 0}, "name": ""},
        },
    }[generation]
    common = {"name": job.name, "nodes": job.nodes, "partition": job.partition}
    return common | {
        "job_id": int(job.id),
        "job_state": [job.state] if generation == "24.05" else job.state,
        "state_reason": job.reason or "None",
        "exit_code": code,
        "restart_cnt": job.restarts,
        "submit_time": number(job.submitted),
        "start_time": number(job.start),
        "end_time": number(job.end),
        "user_name": job.user,
        "current_working_directory": job.folder,
        "standard_output": "/fsx/run/%x-%j.out" if generation == "22.05" else job.log,
    }


@pytest.mark.parametrize("generation", ["22.05", "23.02", "24.05"])
@pytest.mark.parametrize("job", [ENDED, RUNNING])
def test_jobs_of_all_shapes_of_json_are_the_same_job(job: JobFacts, generation: str) -> None:
    text = json.dumps({"jobs": [of_json(job, generation)]})
    assert job_facts.parse_job_json(text) == [job]


def test_a_log_named_by_a_pattern_is_where_slurm_puts_it() -> None:
    row = {**of_json(ENDED, "22.05"), "name": "50%j", "standard_output": "/logs/%u/%x-%A%%.%b"}
    (job,) = job_facts.parse_job_json(json.dumps({"jobs": [row]}))
    assert job.log == "/logs/ann/50%j-7%.%b"


#: Recorded of Slurm 22.05, SLURM_TIME_FORMAT=%s, cut to what is read.
SHOWN = (
    "JobId=7 JobName={name} UserId=ann(1000) GroupId=ann(1000) MCS_label=N/A Priority=1 Nice=0 "
    "JobState=FAILED Reason=NonZeroExitCode Dependency=(null) Requeue=1 Restarts=1 BatchFlag=1 "
    "ExitCode=3:0 RunTime=00:01:00 SubmitTime=990 StartTime=1000 EndTime=1060 Partition=all "
    "AllocNode:Sid=c0:30108 ReqNodeList=(null) ExcNodeList=(null) NodeList=n[1-2] BatchHost=n1 "
    "NtasksPerN:B:S:C=1:0:*:* Command=/fsx/run/job.sbatch WorkDir=/fsx/run "
    "StdErr=/fsx/run/job-7.out StdIn=/dev/null StdOut=/fsx/run/job-7.out Power= "
)


@pytest.mark.parametrize("name", ["job", "two words", "x JobState=COMPLETED Restarts=9", "a=b"])
def test_text_is_read_whatever_the_job_is_called(name: str) -> None:
    assert job_facts.parse_job_text(SHOWN.format(name=name)) == [replace(ENDED, name=name)]


def test_accounting_is_read_as_text_and_as_json() -> None:
    text = (
        "7|FAILED|3:0|1|990|1000|1060|n[1-2]|/fsx/run|all|ann|a|b\n"
        "7.batch|FAILED|3:0||990|1000|1060|n1||||batch\n"
    )
    known = replace(ENDED, reason="", log="", name="a|b")
    assert job_facts.parse_accounting_text(text) == [known]
    document = {
        "job_id": 7,
        "name": "a|b",
        "state": {"current": ["FAILED"], "reason": "None"},
        "time": {"submission": 990, "start": 1000, "end": 1060},
        "exit_code": {"status": ["ERROR"], "return_code": {"set": True, "number": 3}},
        "nodes": "n[1-2]",
        "partition": "all",
        "user": "ann",
        "restart_cnt": 1,
        "working_directory": "/fsx/run",
    }
    assert job_facts.parse_job_json(json.dumps({"jobs": [document]})) == [known]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"jobs": 3}', '{"jobs": [1, null]}', "[" * 9999])
def test_what_is_no_list_of_jobs_is_no_job(text: str) -> None:
    assert job_facts.parse_job_json(text) == []


@pytest.mark.parametrize(
    ("states", "word"),
    [
        (["RUNNING", "COMPLETING"], "COMPLETING"),
        (["PENDING", "REQUEUED"], "PENDING"),
        ("CANCELLED by 1000", "CANCELLED"),
        ("COMPLETED+", "COMPLETED"),
    ],
)
def test_a_state_is_one_word(states: object, word: str) -> None:
    (job,) = job_facts.parse_job_json(json.dumps({"jobs": [{"job_id": 1, "job_state": states}]}))
    assert job.state == word


def event(kind: str, /, t: float = 1001, host: str = "n1", **fields: object) -> LauncherEvent:
    line = "launch: " + json.dumps({"t": t, "host": host, "node_rank": 0, "event": kind, **fields})
    parsed = parse_event(line)
    assert parsed is not None
    return parsed


FAILURES = (
    event("failed", code=77, cause="TrainingError: bad batch on rank 1 [host n2]", detail=""),
    event("failed", host="n2", code=1, cause="TrainingError: bad batch on rank 1 [host n2]",
          detail="Traceback\n  raise ValueError"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("excerpt", "job", "cause"),
    [
        (LogExcerpt(), RUNNING, ""),
        (LogExcerpt(), replace(ENDED, state="COMPLETED"), ""),
        (
            LogExcerpt(FAILURES, ("slurmstepd-n1: error: *** STEP 7.0 ON n1 CANCELLED ***",)),
            ENDED,
            "TrainingError: bad batch on rank 1 [host n2]\nTraceback\n  raise ValueError",
        ),
        # An earlier attempt's failure is not this one's.
        (LogExcerpt((event("failed", 900, cause="Old: x"),)), ENDED, "exit code 3"),
        (
            LogExcerpt(
                other_lines=(
                    "n2: /fsx/x.sqsh is not there, or not readable",
                    "srun: error: n2: task 1: Exited with exit code 1",
                    "job: not every node is ready: see above",
                )
            ),
            ENDED,
            "not every node is ready\nn2: /fsx/x.sqsh is not there, or not readable",
        ),
        (LogExcerpt(other_lines=("job: n1: /x is gone",)), ENDED, "n1: /x is gone"),
        (
            LogExcerpt(
                other_lines=(
                    "slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 1 DUE TO TIME LIMIT ***",
                    "srun: error: n1: task 0: Killed",
                )
            ),
            replace(ENDED, state="TIMEOUT"),
            "JOB 7 ON n1 CANCELLED AT 1 DUE TO TIME LIMIT",
        ),
        (LogExcerpt(), replace(ENDED, state="NODE_FAIL"), "Slurm has lost one of its nodes"),
        (LogExcerpt(other_lines=("bash: x: not found",)), ENDED, "exit code 3: bash: x: not found"),
        (LogExcerpt(missing=True), replace(ENDED, exit_code=0, signal=9), "signal 9"),
        (
            LogExcerpt((event("stopped", code=143),)),
            ENDED,
            "it was told to stop, and has saved",
        ),
        (
            LogExcerpt(),
            replace(RUNNING, state="PENDING", reason="PartitionConfig", restarts=0),
            "PartitionConfig: it asks for more than its partition can ever give",
        ),
    ],
)
def test_the_cause_is_the_first_of_those_who_know(
    excerpt: LogExcerpt, job: JobFacts, cause: str
) -> None:
    assert job_log.find_cause(excerpt, job) == cause


def test_phases_say_how_far_a_job_has_come() -> None:
    events = (
        event("met", nodes=9, t=900),  # of an earlier attempt
        event("waiting", missing="n2"),
        event("met", nodes=2),
        event("preflight", check="shm", level="warn", text="small"),
        event("prefetched", source="s3://b/d", to="/tmp/d", files=3, bytes=2_000_000),
        event("resume", path="/fsx/ck/step-3"),
        event("start-up", stages={"gate": 2.0, "fetch": 0.01}),
        event("start-up", host="n2", stages={"gate": 1.5, "fetch": 70.0, "agree": 0.01, "x": "y"}),
        event("start-up", host="n3", stages=[3]),
        event("ranks", first=0, here=2, world=4),
        event("checkpoint", name="step-7", files=1, bytes=1000),
        event("checkpoint", name="step-7", files=1, bytes=1000),
        event("checkpoint", name="step-9", files=1, bytes=3000),
        event("signal", signal="SIGTERM"),
        event("stopping", ranks=2, seconds=255),
        event("stopped", code=143),
    )
    lines = (
        "n1: 1,700.0 MB in 3.1 s: 1,700.0 MB from the origin",
        "n2: 1,700.0 MB in 12.5 s: 1,700.0 MB from other nodes",
        "job: every node starts from the file",
        "n2: unpacks the image (no squashfuse)",
    )
    excerpt = LogExcerpt(events, lines, "[r0] step 10", written=1100, now=1105)
    assert {phase.name: phase.text for phase in job_log.describe_phases(excerpt, RUNNING)} == {
        "nodes": "every node starts from the file; n2 unpack the image",
        "gate": "2 nodes have met",
        "preflight": "warn: shm on n1: small",
        "fetch": ".sqsh on 2 nodes, on n2 after 12.5 s: 1,700.0 MB from other nodes; "
        "s3://b/d: 3 files, 2 MB; goes on from /fsx/ck/step-3",
        "start-up": "1 min 12 s on n2: fetch 1 min 10 s, gate 1.5 s",
        "ranks": "4 started",
        "training": "[r0] step 10 (5.0 s ago)",
        "checkpoints": "2 uploaded, the last step-9 (3 kB of n1)",
        "stop": "SIGTERM on n1; ranks have 255 s to save; saved and stopped",
    }


def test_ranks_that_wait_are_named_until_they_go_on() -> None:
    report = event("hang", text="rank 1 sleeps", stacks="/logs/stalls/001-hang")
    named = job_log.describe_phases(LogExcerpt((report,)), RUNNING)
    assert [p.text for p in named] == ["rank 1 sleeps (stacks in /logs/stalls/001-hang)"]
    assert job_log.describe_phases(LogExcerpt((report, event("resumed", t=1002))), RUNNING) == ()


@pytest.mark.parametrize(
    "line",
    ["", "launch: {", 'launch: {"event": "x"}', 'launch: {"t": 1e999, "event": "x"}',
     'launch: {"t": [], "event": 3}', "launch: {}", 'launch: {"t": NaN, "event": "x"}'],
)  # fmt: skip
def test_a_line_that_is_cut_or_another_programs_is_no_event(line: str) -> None:
    assert parse_event(line) is None


# --- the edge, with stand-ins for Slurm's programs ---


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first in PATH, and where sh finds nothing of Slurm's after it."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(jobs, "LOOK_S", 0.01)
    monkeypatch.setattr(jobs, "ASK_S", 0.02)
    return folder


def program(programs: Path, name: str, text: str) -> None:
    (programs / name).write_text(f"#!/bin/sh\n{text}\n")
    (programs / name).chmod(0o755)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, tmp_path / "state")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("exit 127", None),
        ("echo 'sh: scontrol: not found' >&2; exit 127", "there is no Slurm on this machine"),
        ("echo 'squeue: error: Unable to contact slurm controller (connect failure)' >&2; exit 1",
         "Slurm's controller does not answer on this machine: Unable to contact"),
        ("echo 'x: fatal: Could not establish a configuration source' >&2; exit 1",
         "Slurm has no configuration on this machine"),
    ],
)  # fmt: skip
def test_a_cluster_that_is_not_there_is_one_paragraph(
    programs: Path, text: str, told: str | None
) -> None:
    program(programs, "squeue", text)
    with pytest.raises(SlipwayError, match=told or "squeue on this machine: exit code 127"):
        show_queue(HeadNode(), as_json=False)


@pytest.mark.parametrize(
    ("sbatch", "options", "told"),
    [
        ("echo 'sbatch: error: Batch job submission failed: Requested topology configuration is'"
         " 'not available' >&2; exit 1", (), "is not available\n  `./inv cluster.check`"),
        ("echo 'sbatch: error: invalid partition specified: cpu' >&2; exit 1", ("partition=cpu",),
         "invalid partition specified: cpu\n  --sbatch partition=NAME; there are cpus, gpu"
         " (did you mean cpus?)."),
        ("echo 'sbatch: error: Batch job submission failed: Requested time limit is invalid' >&2;"
         " exit 1", (), "Requested time limit is invalid"),
        ("echo 'sbatch: error: Unable to contact slurm controller' >&2; exit 1", (),
         "Slurm's controller does not answer on this machine"),
    ],
)  # fmt: skip
def test_what_sbatch_refuses_is_told_with_what_there_is(
    programs: Path, tmp_path: Path, sbatch: str, options: tuple[str, ...], told: str
) -> None:
    program(programs, "sbatch", sbatch)
    program(programs, "sinfo", "echo gpu; echo cpus")
    (tmp_path / "train.py").touch()
    asked = replace(request("train.py"), sbatch=options)
    with pytest.raises(SlipwayError) as caught:
        submit_job(
            ROOT,
            "pytorch-2.13-hyperpod-ds0.19.8",
            asked,
            SubmitPlace(HeadNode(), str(tmp_path)),
            current_build_id=lambda _image: "b",
            sqsh="/fsx/x.sqsh",
        )
    assert told in str(caught.value)


def test_ssh_gets_a_host_its_words_and_no_options_of_anybody_else(programs: Path) -> None:
    """As sshd does: words joined by blanks, for a shell."""
    program(programs, "ssh", 'while [ "$1" != -- ]; do shift; done; echo "$2"; shift 2; sh -c "$*"')
    odd = ["it's", "two words", "$HOME", "", "*", "ü"]
    answer = HeadNode("me@head").run_script('for word; do echo "<$word>"; done', *odd)
    assert answer.out.splitlines() == ["me@head", *(f"<{word}>" for word in odd)]
    program(programs, "ssh", "echo 'ssh: no route' >&2; exit 255")
    with pytest.raises(SlipwayError, match="ssh head: ssh: no route"):
        HeadNode("head").run("true")
    for bad in ("-oProxyCommand=x", "a b", "head;x"):
        with pytest.raises(UsageError, match="is no name of a host"):
            HeadNode(bad)


def test_a_machine_that_does_not_answer_is_waited_for_a_while_only() -> None:
    with pytest.raises(SlipwayError, match="has not answered within"):
        HeadNode().run("sleep", "60", timeout=0.2)


def test_a_job_that_slurm_has_forgotten_is_told_from_what_was_noted_and_its_log(
    programs: Path, project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(
        programs, "scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
    )
    program(programs, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    with pytest.raises(SlipwayError, match=r"knows no job 7 .*Invalid job id.*storage is disabled"):
        show_job(HeadNode(), "7", project, as_json=False)
    log = tmp_path / "it's-7.out"
    log.write_text('launch: {"t": 5, "host": "n1", "event": "failed", "cause": "Odd: x"}\n')
    save_submission(project, Submission("7", "job", str(log), str(tmp_path), ""))
    show_job(HeadNode(), "7", project, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "7 job: Slurm has forgotten it",
        "cause: Odd: x",
        f"log          {log}",
    ]
    with pytest.raises(UsageError, match="'7; x' is no number of a job"):
        show_job(HeadNode(), "7; x", project, as_json=False)


def test_accounting_answers_for_a_job_that_the_controller_has_forgotten(
    programs: Path, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    program(programs, "scontrol", "exit 1")
    row = "7|TIMEOUT|0:15|0|990|1000|1060|n1|/fsx/run|all|ann|job"
    program(programs, "sacct", f'[ "$1" != --json ] && echo "{row}"')
    show_job(HeadNode(), "7", project, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], told["cause"], told["log"]) == (
        *("TIMEOUT", "its time limit was reached"),
        "/fsx/run/job-7.out",
    )


def test_a_log_is_followed_to_its_last_byte_also_of_a_job_that_has_yet_to_begin(
    programs: Path, project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each look at the job moves it on: it waits, runs, prints half a line, and ends."""
    log, looks = tmp_path / "job-7.out", tmp_path / "looks"
    shown = SHOWN.format(name="job").replace("/fsx/run/job-7.out", str(log))
    program(
        programs,
        "scontrol",
        f"""
[ "$3" != --json ] || exit 1
echo x >>{looks}
case $(wc -l <{looks}) in
1) state=PENDING ;;
2) state=RUNNING; printf 'one\\ntw' >{log} ;;
3) state=RUNNING; printf 'o\\n\\033[31mthree' >>{log} ;;
*) state=FAILED; printf ' end' >>{log} ;;
esac
echo "{shown}" | sed "s/JobState=FAILED/JobState=$state/"
""",
    )
    follow_job(HeadNode(), "7", project, follow=True)
    told = capsys.readouterr()
    assert told.out == "one\ntwo\n\\x1b[31mthree end\n"
    assert told.err.splitlines()[0].startswith("job 7 is PENDING")
    assert told.err.splitlines()[-1].startswith("7 job: FAILED after 1 min 00 s with exit code 3")


def stoppable(programs: Path, state: str, script: str) -> Path:
    """A cluster with job 7 in a state; the file that notes what scancel was given."""
    calls = programs / "calls"
    shown = SHOWN.format(name="job").replace("JobState=FAILED", f"JobState={state}")
    program(
        programs,
        "scontrol",
        f'case "$1 $3" in "show --json") exit 1;; show*) echo "{shown}";;'
        f' write*) echo "{script}";; *) echo "$@" >>{calls};; esac',
    )
    program(programs, "squeue", "echo 7.batch; echo 7.0; echo 7.extern")
    program(programs, "scancel", f'echo "$@" >>{calls}')
    return calls


OURS = "# Written by './inv slurm.script'.".replace("'", "\\`")


@pytest.mark.parametrize(
    ("how", "state", "calls"),
    [
        ("urg", "RUNNING", ["--signal=URG 7"]),
        ("term", "RUNNING", ["7"]),
        (
            "kill",
            "RUNNING",
            ["update JobId=7 Requeue=0", "--signal=KILL 7.0", "--batch --signal=KILL 7"],
        ),
        ("urg", "PENDING", ["7"]),
    ],
)
def test_a_stop_is_what_it_says(
    programs: Path, project: Project, how: str, state: str, calls: list[str]
) -> None:
    noted = stoppable(programs, state, OURS)
    stop_job(HeadNode(), "7", project, how=how)
    assert noted.read_text().splitlines() == calls


def test_a_job_that_does_not_listen_or_has_ended_is_not_told_to_save(
    programs: Path, project: Project
) -> None:
    noted = stoppable(programs, "RUNNING", "#!/bin/bash")
    with pytest.raises(UsageError, match="nothing in it listens to URG"):
        stop_job(HeadNode(), "7", project, how="urg")
    stoppable(programs, "COMPLETED", OURS)
    with pytest.raises(UsageError, match="has ended already: COMPLETED"):
        stop_job(HeadNode(), "7", project, how="term")
    with pytest.raises(UsageError, match="one of urg, term, kill"):
        stop_job(HeadNode(), "7", project, how="softly")
    assert not noted.exists()


def test_scancels_refusal_is_told(programs: Path, project: Project) -> None:
    stoppable(programs, "RUNNING", OURS)
    program(programs, "scancel", "echo 'scancel: error: Access/permission denied' >&2; exit 1")
    with pytest.raises(SlipwayError, match="can not be stopped on this machine: Access"):
        stop_job(HeadNode(), "7", project, how="urg")


def test_slurms_folders_come_after_the_users_own(programs: Path) -> None:
    path = HeadNode().run_script('echo "$PATH"').out.strip()
    assert path.startswith(f"{programs}:")
    assert path.endswith(":".join(head_node.SLURM_FOLDERS))
