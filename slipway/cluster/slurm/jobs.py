"""Jobs of a cluster: looked at, read along, stopped. All by Slurm's own commands."""

from __future__ import annotations

import base64
import re
import sys
import time
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from slipway.cluster.launcher_events import LauncherEvent, parse_event
from slipway.cluster.option_values import one_of_values
from slipway.cluster.script import MARK
from slipway.cluster.slurm.head_node import Answer, HeadNode
from slipway.cluster.slurm.job_facts import (
    ACCOUNTING_FIELDS,
    QUEUE_FIELDS,
    JobFacts,
    is_job_json,
    parse_accounting_text,
    parse_job_json,
    parse_job_text,
    parse_queue_text,
)
from slipway.cluster.slurm.job_log import (
    LogExcerpt,
    Phase,
    current_events,
    describe_phases,
    explain_wait,
    find_cause,
)
from slipway.cluster.slurm.submissions import Submission, load_submission
from slipway.core import (
    Project,
    SlipwayError,
    UsageError,
    human_seconds,
    print_json,
    print_table,
    printable,
    say,
)

STOPS = ("urg", "term", "kill")
"""How a job is stopped: as `slurm.stop --how` takes it."""

#: Between two looks at a log, and at the job itself: its controller serves all jobs.
LOOK_S = 1.0
ASK_S = 5.0
_CHUNK = 1 << 20
_LAST_EVENTS = 12
_SECTION = "\x1e"

# A log may have gigabytes of ranks' lines: only what is needed leaves the head node. Bars that are
# drawn anew all the time are events, too.
_READ_LOG = rf"""
date +%s
[ -f "$1" ] && [ -r "$1" ] || exit 3
stat -L -c %Y -- "$1"
printf '{_SECTION}\n'
grep -aE '^([0-9]+: )?launch: \{{' -- "$1" | grep -avF '"event": "progress"' | tail -n 5000
printf '{_SECTION}\n'
grep -avE '^\[r[0-9]+\] |^([0-9]+: )?launch: \{{' -- "$1" | tail -n 60 | cut -c -1000
printf '{_SECTION}\n'
grep -aE '^\[r[0-9]+\] ' -- "$1" | tail -n 1 | cut -c -1000
"""
_SHOW_JOB = 'scontrol show job --json "$1" 2>/dev/null || scontrol show job --oneliner "$1"'
_ACCOUNT = f"""
sacct --json --jobs="$1" 2>/dev/null || sacct --parsable2 --noheader --jobs="$1" \\
    --format={",".join(ACCOUNTING_FIELDS)}
"""
_QUEUE = f"""
squeue --me --json 2>/dev/null || squeue --me --noheader --format='{"|".join(QUEUE_FIELDS)}'
"""


@dataclass(frozen=True)
class SlurmJobState:
    """What Slurm and the launcher say of a job. `cause` is why it failed, or does not begin."""

    facts: JobFacts
    cause: str
    phases: tuple[Phase, ...]
    events: tuple[LauncherEvent, ...]
    log_missing: bool

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            **self.facts.as_json(),
            "cause": self.cause or None,
            "phases": [{"phase": phase.name, "text": phase.text} for phase in self.phases],
            "events": [
                {"time": event.time, "host": event.host, "event": event.event, "text": event.text}
                for event in self.events
            ],
        }


def find_job(head: HeadNode, number: str, project: Project) -> JobFacts:
    """What Slurm says of a job: its controller, else its accounting, else what was noted here.

    Raises SlipwayError for one that nobody knows.
    """
    if not re.fullmatch(r"[1-9]\d*", number, re.ASCII):
        raise UsageError(f"{number!r} is no number of a job: `./inv slurm.queue` lists yours")
    submission = load_submission(project, head.ssh, number)
    answer = head.run_script(_SHOW_JOB, number)
    for job in (*parse_job_json(answer.out), *parse_job_text(answer.out)):
        if job.id == number:
            return job
    account = head.run_script(_ACCOUNT, number)
    for job in (*parse_job_json(account.out), *parse_accounting_text(account.out)):
        if job.id == number:
            return _with_log(job, submission)
    if submission is not None:
        gone = JobFacts(number, submission.name, "GONE", submitted=submission.submitted)
        return _with_log(gone, submission)
    raise SlipwayError(
        f"Slurm knows no job {number} (any more) on {head.name}: {answer.complaint}"
        + (f"; its accounting: {account.complaint}" if account.code else ""),
        cure="A controller forgets a job minutes after its end (MinJobAge); its log is NAME-"
        f"{number}.out where it was submitted. `./inv slurm.queue` lists the queue.",
    )


def _with_log(job: JobFacts, submission: Submission | None) -> JobFacts:
    """Accounting has no path of a log before Slurm 24.11."""
    if job.log:
        return job
    if submission is not None:
        return replace(job, log=submission.log, folder=submission.folder)
    return replace(job, log=f"{job.folder}/{job.name}-{job.id}.out" if job.folder else "")


def read_log_excerpt(head: HeadNode, job: JobFacts) -> LogExcerpt:
    """What a log says of the job's way, its ranks' lines left out."""
    if not job.log:
        return LogExcerpt(missing=True)
    answer = head.run_script(_READ_LOG, job.log)
    return parse_excerpt(answer)


def parse_excerpt(answer: Answer) -> LogExcerpt:
    """What the script has printed of a log."""
    head, *sections = answer.out.split(f"{_SECTION}\n")
    if answer.code == 3 or len(sections) != 3:
        return LogExcerpt(missing=True)
    now, written = (int(word) for word in head.split())
    events, others, rank = sections
    return LogExcerpt(
        events=tuple(e for line in events.splitlines() if (e := parse_event(line)) is not None),
        other_lines=tuple(printable(line) for line in others.splitlines()),
        rank_line=rank.strip(),
        written=written,
        now=now,
    )


def inspect_job(head: HeadNode, number: str, project: Project) -> SlurmJobState:
    """A job as it is now. Raises SlipwayError where there is none."""
    facts = find_job(head, number, project)
    excerpt = read_log_excerpt(head, facts)
    return SlurmJobState(
        facts,
        find_cause(excerpt, facts),
        describe_phases(excerpt, facts),
        tuple(current_events(excerpt, facts)[-_LAST_EVENTS:]),
        excerpt.missing,
    )


def show_job(head: HeadNode, number: str, project: Project, *, as_json: bool) -> None:
    """Print a job: why it failed on top, then how far it has come."""
    state = inspect_job(head, number, project)
    if as_json:
        print_json(state.as_json())
        return
    facts = state.facts
    print(_headline(facts))
    if state.cause:
        print(f"cause: {printable(state.cause)}")
    rows = [(phase.name, phase.text) for phase in state.phases]
    if facts.log:
        place = " (not there)" if state.log_missing else ""
        rows.append(("log", f"{facts.log}{place}"))
    for name, text in rows:
        print(f"{name:<12} {printable(text)}")


def _headline(job: JobFacts) -> str:
    words = [f"{job.id} {printable(job.name)}: {_STATE_TEXTS.get(job.state, job.state)}"]
    if job.start:
        until = job.end if job.end and not job.is_going else int(time.time())
        took = human_seconds(max(0, until - job.start))
        words.append(f"for {took}" if job.is_going else f"after {took}")
    if not job.is_going and (job.exit_code or job.signal):
        words.append(
            f"with signal {job.signal}" if job.signal else f"with exit code {job.exit_code}"
        )
    if job.nodes:
        words.append(f"on {job.nodes}")
    if job.restarts:
        words.append(f"(begun again {job.restarts} times)")
    if job.state == "PENDING" and job.begins > time.time():
        words.append(f"expected at {datetime.fromtimestamp(job.begins):%Y-%m-%d %H:%M:%S}")
    return " ".join(words)


_STATE_TEXTS = {"GONE": "Slurm has forgotten it"}


def show_queue(head: HeadNode, *, as_json: bool) -> None:
    """Print the user's own jobs in the queue."""
    answer = head.run_script(_QUEUE)
    if answer.code:
        raise SlipwayError(f"squeue on {head.name}: {answer.complaint}")
    known = parse_job_json(answer.out)
    if not known and not is_job_json(answer.out):
        known = parse_queue_text(answer.out)
        if len(known) < sum(bool(line.strip()) for line in answer.out.split("\n")):
            raise SlipwayError(
                f"squeue on {head.name} lists no jobs: {answer.complaint}",
                cure="`squeue` there shows what it prints.",
            )
    jobs = [job for job in known if job.is_going]
    if as_json:
        print_json([job.as_json() for job in jobs])
        return
    rows = [(job.id, job.name, job.state, job.nodes or explain_wait(job)) for job in jobs]
    if rows:
        print_table(("job", "name", "state", "nodes, or why it waits"), rows)
    else:
        say(f"no job of yours is in the queue of {head.name}")


def follow_job(head: HeadNode, number: str, project: Project, *, follow: bool) -> None:
    """Print a job's log; with `follow`, until the job has ended for good.

    Raises SlipwayError for a log that is not to be read on the head node.
    """
    job = find_job(head, number, project)
    offset = 0
    asked = time.monotonic()
    told_to_wait = False
    rest = b""
    while True:
        ended = not job.is_going
        part = _read_part(head, job.log, offset)
        if part is None:
            if ended or not follow:
                raise SlipwayError(
                    f"the log of job {number} is not on {head.name}: {job.log or 'unknown'}",
                    cure="It is made when the job begins, by its first node: the folder has to be "
                    "on storage that the head node shares.",
                )
            if not told_to_wait:
                why = explain_wait(job) or "its log is not there yet"
                say(f"job {number} is {job.state}: {why}")
                told_to_wait = True
        elif part:
            offset += len(part)
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                print(printable(line.decode(errors="replace")))
            sys.stdout.flush()
            continue  # there may be more
        elif ended or not follow:
            break
        time.sleep(LOOK_S)
        if time.monotonic() - asked >= ASK_S:
            asked = time.monotonic()
            job = find_job(head, number, project)
    if rest:
        print(printable(rest.decode(errors="replace")), flush=True)
    if follow:
        say(_headline(job))


_READ_PART = 'exec 3<"$1" || exit 3; tail -c +"$2" <&3 | head -c "$3" | base64 -w 0'


def _read_part(head: HeadNode, path: str, offset: int) -> bytes | None:
    """The next bytes of a log; None where it is not there."""
    if not path:
        return None
    answer = head.run_script(_READ_PART, path, str(offset + 1), str(_CHUNK))
    return base64.b64decode(answer.out) if answer.code == 0 else None


_WHAT_STOPS_DO = {
    "urg": "the ranks are told to save (SIGTERM, by their launchers alone) and have all the time "
    "that --signal gave; the job ends with 143, and does not begin again",
    "term": "every process gets SIGTERM, data loaders included, and SIGKILL after Slurm's KillWait "
    "(30 s by default): ranks have that time to save",
    "kill": "every process is killed at once: nothing is saved",
}

# Slurm's own SIGKILL to a job is a SIGTERM first, and KillWait; to a step and to the batch shell it
# is what it says. A job whose shell was killed must not begin again.
_KILL = r"""
scontrol update JobId="$1" Requeue=0 2>/dev/null
for step in $(squeue --steps --noheader --jobs="$1" --format=%i); do
    case $step in
    *.batch | *.extern) ;;
    *) scancel --signal=KILL "$step" ;;
    esac
done
exec scancel --batch --signal=KILL "$1"
"""


def stop_job(head: HeadNode, number: str, project: Project, *, how: str) -> None:
    """Stop a job: `how` is one of STOPS. Says what that does.

    Raises UsageError for a job that has ended, or that does not listen.
    """
    one_of_values(how, "--how", STOPS)
    job = find_job(head, number, project)
    if not job.is_going:
        raise UsageError(f"job {number} has ended already: {job.state}")
    if job.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT"):
        _require(head, head.run("scancel", number), number)
        say(f"job {number} had not begun: it is taken out of the queue")
        return
    if how == "urg":
        script = head.run("scontrol", "write", "batch_script", number, "-")
        if script.code == 0 and MARK not in script.out:
            raise UsageError(
                f"job {number} was not written by slurm.script: nothing in it listens to URG",
                cure=f"`./inv slurm.stop {number}{head.flag} --how term` ends it as scancel does.",
            )
        answer = head.run("scancel", "--signal=URG", number)
    elif how == "term":
        answer = head.run("scancel", number)
    else:
        answer = head.run_script(_KILL, number)
    _require(head, answer, number)
    say(f"job {number}: {_WHAT_STOPS_DO[how]}")
    say(f"next: ./inv slurm.status {number}{head.flag}")


def _require(head: HeadNode, answer: Answer, number: str) -> None:
    if answer.code or "error:" in answer.err:
        raise SlipwayError(
            f"job {number} can not be stopped on {head.name}: {answer.complaint}",
            cure="Only its own user and Slurm's operators may: `scontrol show job` names the user.",
        )
