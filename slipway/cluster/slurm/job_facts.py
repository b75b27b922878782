"""What Slurm says of a job, whichever version says it: JSON of several shapes, or text. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

GOING = frozenset(
    {
        *("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "RESIZING", "SIGNALING"),
        *("STAGE_OUT", "STOPPED", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"),
    }
)
"""States of a job that has not ended for good (SchedMD's squeue manual, JOB STATE CODES)."""

ACCOUNTING_FIELDS = (
    *("JobIDRaw", "State", "ExitCode", "Restarts", "Submit", "Start", "End", "NodeList"),
    *("WorkDir", "Partition", "User", "JobName"),
)
"""Of `sacct --parsable2`; what may hold the separator stands last."""

QUEUE_FIELDS = ("%i", "%T", "%S", "%N", "%P", "%u", "%r", "%j")
"""Of squeue's --format, as `parse_queue_text` reads them."""

_SEPARATOR = "|"
_NOTHING = ("", "(null)", "None", "N/A", "Unknown", "None assigned")


@dataclass(frozen=True)
class JobFacts:
    """One job. Times in seconds since 1970, 0 where there is none yet."""

    id: str
    name: str = ""
    state: str = ""
    reason: str = ""
    exit_code: int = 0
    signal: int = 0
    nodes: str = ""  # as Slurm writes lists of nodes: n[1-4]
    restarts: int = 0
    start: int = 0
    end: int = 0
    partition: str = ""
    user: str = ""
    folder: str = ""
    log: str = ""
    begins: int = 0  # when it may begin, of one that waits
    submitted: int = 0  # of one that was requeued, when that was

    @property
    def is_going(self) -> bool:
        """Whether it has not ended for good."""
        return self.state in GOING

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def parse_job_json(text: str) -> list[JobFacts]:
    """Of `scontrol show job --json`, `squeue --json` or `sacct --json`; [] for anything else.

    Slurm 21.08 to 25: numbers are plain, or {"set", "infinite", "number"}; states one word or a
    list of words; sacct has times and states in objects of their own.
    """
    return [_job_of_json(job) for job in _jobs_of_json(text) or () if isinstance(job, Mapping)]


def is_job_json(text: str) -> bool:
    """Whether it is such a document, be it with no job in it."""
    return _jobs_of_json(text) is not None


def _jobs_of_json(text: str) -> list[Any] | None:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    jobs = document.get("jobs") if isinstance(document, Mapping) else None
    return jobs if isinstance(jobs, list) else None


def _job_of_json(job: Mapping[str, Any]) -> JobFacts:
    times = _mapping(job.get("time"))
    states = _mapping(job.get("state"))
    state = job.get("job_state", states.get("current"))
    reason = job.get("state_reason", states.get("reason"))
    code, signal = _exit_of_json(job.get("exit_code"))
    name = _word(job.get("name"))
    number = str(_number(job.get("job_id")))
    log = _word(job.get("standard_output", job.get("stdout_expanded")))
    state_word = _state_word(state)
    start = _number(job.get("start_time", times.get("start")))
    return JobFacts(
        id=number,
        name=name,
        state=state_word,
        reason=_word(reason),
        exit_code=code,
        signal=signal,
        nodes=_word(job.get("nodes")),
        restarts=_number(job.get("restart_cnt", job.get("restart_count"))),
        start=0 if state_word == "PENDING" else start,
        end=_number(job.get("end_time", times.get("end"))),
        partition=_word(job.get("partition")),
        user=_word(job.get("user_name", job.get("user"))),
        folder=_word(job.get("current_working_directory", job.get("working_directory"))),
        log=_expand_log(log, number, name, _word(job.get("user_name", job.get("user")))),
        begins=start if state_word == "PENDING" else 0,
        submitted=_number(job.get("submit_time", times.get("submission"))),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> int:
    if isinstance(value, Mapping):
        value = value.get("number") if value.get("set", True) else 0
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return int(value) if isinstance(value, (int, float)) else 0


def _word(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return "" if text in _NOTHING else text


def _state_word(value: object) -> str:
    """One word: of several, the one that says that it goes on, or else the first."""
    words = value if isinstance(value, list) else str(value or "").split()[:1]
    names = [str(word).upper().rstrip("+") for word in words]
    if "COMPLETING" in names and "COMPLETING" not in names[:1]:
        return "COMPLETING"
    return names[0] if names else ""


def _exit_of_json(value: object) -> tuple[int, int]:
    """(exit code, signal); plain numbers are what wait(2) gives."""
    if isinstance(value, Mapping):
        signal = _mapping(value.get("signal"))
        number = _number(signal.get("id", signal.get("signal_id")))
        return _number(value.get("return_code")), number
    raw = _number(value)
    return raw >> 8 & 0xFF, raw & 0x7F


def _expand_log(pattern: str, number: str, name: str, user: str) -> str:
    """Slurm 22.05 gives the log's name as it was asked for."""
    values = {"%x": name, "%j": number, "%A": number, "%u": user, "%%": "%"}
    return re.sub("%[xjAu%]", lambda match: values[match[0]], pattern)


def parse_job_text(text: str) -> list[JobFacts]:
    """Of `scontrol show job --oneliner`, with SLURM_TIME_FORMAT=%s."""
    return [_job_of_text(line) for line in text.splitlines() if line.startswith("JobId=")]


def _job_of_text(line: str) -> JobFacts:
    # A job's name is its user's, and may hold blanks and what looks like a field.
    head = re.match(r"JobId=(\S+) (?:ArrayJobId=.*?)?JobName=(.*) UserId=(\S+)\(\d+\) (.*)", line)
    number, name, user, rest = head.groups() if head else ("", "", "", line)
    fields: dict[str, str] = {}
    for part in re.split(r" (?=[A-Z][A-Za-z/:]*=)", rest):
        key, _, value = part.partition("=")
        fields.setdefault(key, value.strip())
    code, _, signal = fields.get("ExitCode", "").partition(":")
    state = _state_word(fields.get("JobState"))
    start = _number(fields.get("StartTime"))
    return JobFacts(
        id=number,
        name=name,
        state=state,
        reason=_word(fields.get("Reason")),
        exit_code=_number(code),
        signal=_number(signal),
        nodes=_word(fields.get("NodeList")),
        restarts=_number(fields.get("Restarts")),
        start=0 if state == "PENDING" else start,
        end=_number(fields.get("EndTime")),
        partition=_word(fields.get("Partition")),
        user=user,
        folder=_word(fields.get("WorkDir")),
        log=_word(fields.get("StdOut")),
        begins=start if state == "PENDING" else 0,
        submitted=_number(fields.get("SubmitTime")),
    )


def _rows(text: str, columns: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        row = line.split(_SEPARATOR, columns - 1)
        if len(row) == columns:
            yield row


def parse_accounting_text(text: str) -> list[JobFacts]:
    """Of `sacct --parsable2 --noheader` with ACCOUNTING_FIELDS; a job's steps are left out."""
    jobs = []
    for row in _rows(text, len(ACCOUNTING_FIELDS)):
        values = dict(zip(ACCOUNTING_FIELDS, row, strict=True))
        if not values["JobIDRaw"].isdecimal():
            continue
        code, _, signal = values["ExitCode"].partition(":")
        jobs.append(
            JobFacts(
                id=values["JobIDRaw"],
                name=values["JobName"],
                state=_state_word(values["State"]),
                exit_code=_number(code),
                signal=_number(signal),
                nodes=_word(values["NodeList"]),
                restarts=_number(values["Restarts"]),
                start=_number(values["Start"]),
                end=_number(values["End"]),
                partition=values["Partition"],
                user=values["User"],
                folder=_word(values["WorkDir"]),
                submitted=_number(values["Submit"]),
            )
        )
    return jobs


def parse_queue_text(text: str) -> list[JobFacts]:
    """Of `squeue --noheader` with QUEUE_FIELDS joined by "|"."""
    jobs = []
    for row in _rows(text, len(QUEUE_FIELDS)):
        number, state, start, nodes, partition, user, reason, name = row
        pending = state == "PENDING"
        jobs.append(
            JobFacts(
                id=number,
                name=name,
                state=_state_word(state),
                reason=_word(reason),
                nodes=_word(nodes),
                start=0 if pending else _number(start),
                partition=partition,
                user=user,
                begins=_number(start) if pending else 0,
            )
        )
    return jobs
