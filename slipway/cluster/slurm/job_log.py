"""A job's log -> how far it has come, and why it failed. Pure.

The log holds what all nodes have printed: the script's own lines, Slurm's, the launchers' events,
and the ranks' lines, which begin with "[rN]".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from slipway.cluster.launcher_events import LauncherEvent, parse_arrival
from slipway.cluster.slurm.job_facts import JobFacts
from slipway.core import human_bytes, human_seconds, printable

#: Events before the start that Slurm tells belong to an earlier attempt; clocks of nodes differ.
CLOCK_S = 2.0
_TASK_END = re.compile(
    r"tasks? \S+ ?: (?:Exited|Killed|Terminated)|^Terminating|^Timed out waiting"
)
#: The launcher's code on a node that only ends because another one has failed.
_PEER = 77
_STATES = {
    "TIMEOUT": "its time limit was reached",
    "NODE_FAIL": "Slurm has lost one of its nodes",
    "OUT_OF_MEMORY": "a process was killed for want of memory",
    "BOOT_FAIL": "a node did not boot",
    "DEADLINE": "its deadline was reached",
    "PREEMPTED": "a job of higher priority took its nodes",
    "CANCELLED": "it was cancelled",
    "REVOKED": "another cluster of the federation took it",
}
_REASONS = {
    "PartitionConfig": "it asks for more than its partition can ever give",
    "PartitionNodeLimit": "it asks for more nodes than its partition has, or lets one job have",
    "PartitionTimeLimit": "its --time is longer than its partition allows",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition is inactive",
    "BadConstraints": "no node has what it asks for",
    "ReqNodeNotAvail": "nodes that it needs are drained, down or reserved: `sinfo -R` says why",
    "JobHeldUser": "it is held: `scontrol release JOB` lets it go",
    "JobHeldAdmin": "an administrator holds it",
    "Resources": "it is the next one, and its nodes are not free",
    "Priority": "jobs before it in the queue wait, too",
    "BeginTime": "it may not begin before its time: after a requeue that is two minutes",
    "Dependency": "it waits for another job",
    "launch_failed_requeued_held": "it could not be started, and is held",
}
#: Of a job that waits for what does not come.
HOPELESS = frozenset(
    {
        *("PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints"),
        *("PartitionDown", "PartitionInactive"),
    }
)


@dataclass(frozen=True)
class LogExcerpt:
    """What of a log is needed here. Times in seconds since 1970, by the head node's clock."""

    events: tuple[LauncherEvent, ...] = ()
    other_lines: tuple[str, ...] = ()  # the last that are no event and of no rank
    rank_line: str = ""  # the last
    written: int = 0  # when the log was last written
    now: int = 0
    missing: bool = False


@dataclass(frozen=True)
class Phase:
    """One step of a job's way, and what is known of it."""

    name: str
    text: str


def current_events(excerpt: LogExcerpt, job: JobFacts) -> list[LauncherEvent]:
    """Those of the newest attempt: a job that begins again goes on in the same log."""
    return [event for event in excerpt.events if event.time >= job.start - CLOCK_S]


def describe_phases(excerpt: LogExcerpt, job: JobFacts) -> tuple[Phase, ...]:
    """How far a job has come, step by step; only steps of which something is known."""
    events = current_events(excerpt, job)
    steps: tuple[tuple[str, Callable[[], str]], ...] = (
        ("nodes", lambda: _nodes(excerpt, job)),
        ("gate", lambda: _gate(events)),
        ("preflight", lambda: _preflight(events)),
        ("fetch", lambda: _fetch(excerpt, events)),
        ("start-up", lambda: _start_up(events)),
        ("ranks", lambda: _ranks(events)),
        ("training", lambda: _training(excerpt, events, job)),
        ("waits", lambda: _stall(events)),
        ("checkpoints", lambda: _checkpoints(events)),
        ("upload", lambda: _upload(events)),
        ("stop", lambda: _stop(events)),
        ("end", lambda: _end(events)),
    )
    return tuple(Phase(name, text) for name, describe in steps if (text := describe()))


def _of(events: Sequence[LauncherEvent], *names: str) -> list[LauncherEvent]:
    return [event for event in events if event.event in names]


def _nodes(excerpt: LogExcerpt, job: JobFacts) -> str:
    """What the script found on the nodes before the start."""
    own = f"{job.name}: "
    lines = [line for line in excerpt.other_lines if line.startswith(own)]
    unpacks = [line for line in excerpt.other_lines if ": unpacks the image" in line]
    texts = [line.removeprefix(own) for line in lines if "every node" in line or "fetch" in line]
    if unpacks:
        nodes = sorted({line.partition(":")[0] for line in unpacks})
        texts.append(f"{', '.join(nodes)} unpack the image")
    return "; ".join(dict.fromkeys(texts))


def _gate(events: Sequence[LauncherEvent]) -> str:
    if met := _of(events, "met"):
        return f"{met[-1].count('nodes')} nodes have met"
    if waiting := _of(events, "waiting"):
        missing = waiting[-1].field("missing") or waiting[-1].field("why")
        return f"waits for {missing}"
    return "open, nobody is missed yet" if _of(events, "gate") else ""


def _preflight(events: Sequence[LauncherEvent]) -> str:
    checks = _of(events, "preflight")
    texts = [
        f"{event.field('level')}: {event.field('check')} on {event.host}: {event.field('text')}"
        for event in checks
    ]
    return _some(list(dict.fromkeys(texts)))


def _some(texts: Sequence[str], most: int = 3, separator: str = "; ") -> str:
    more = f"{separator}and {len(texts) - most} more" if len(texts) > most else ""
    return separator.join(texts[:most]) + more


def _fetch(excerpt: LogExcerpt, events: Sequence[LauncherEvent]) -> str:
    """The .sqsh (--fetch), which the script brings; data and a checkpoint, which launchers do."""
    texts = []
    came = [arrival for line in excerpt.other_lines if (arrival := parse_arrival(line))]
    if came:
        last = max(came, key=lambda arrival: arrival.seconds)
        nodes = len({arrival.host for arrival in came})
        texts.append(
            f".sqsh on {nodes} nodes, on {last.host} after {last.seconds:.1f} s: {last.text}"
        )
    texts += [
        f"{e.field('source')}: {e.count('files')} files, {human_bytes(e.count('bytes'))}"
        for e in _of(events, "prefetched")
    ]
    resumed = _of(events, "resume")
    if resumed and (path := resumed[-1].field("path")):
        texts.append(f"goes on from {path}")
    return _some(list(dict.fromkeys(texts)))


def _start_up(events: Sequence[LauncherEvent]) -> str:
    """Of the node that took longest from its launcher's start to its ranks': what took the time."""
    slowest: tuple[float, str] = (0.0, "")
    for event in _of(events, "start-up"):
        told = event.fields.get("stages")
        stages = told if isinstance(told, Mapping) else {}
        seconds = {str(k): float(v) for k, v in stages.items() if isinstance(v, (int, float))}
        longest = sorted(seconds.items(), key=lambda stage: -stage[1])[:3]
        text = ", ".join(f"{name} {human_seconds(took)}" for name, took in longest if took >= 0.1)
        total = sum(seconds.values())
        if total > slowest[0]:
            slowest = total, f"{human_seconds(total)} on {event.host}" + (text and f": {text}")
    return slowest[1]


def _ranks(events: Sequence[LauncherEvent]) -> str:
    if begun := _of(events, "begin-again"):
        return begun[-1].field("text")
    ranks = _of(events, "ranks")
    return f"{ranks[-1].count('world')} started" if ranks else ""


def _training(excerpt: LogExcerpt, events: Sequence[LauncherEvent], job: JobFacts) -> str:
    if not _of(events, "ranks"):
        return ""
    if not excerpt.rank_line:
        return "no rank has printed a line yet"
    age = ""
    if job.is_going and excerpt.now >= excerpt.written > 0:
        age = f" ({human_seconds(excerpt.now - excerpt.written)} ago)"
    return printable(excerpt.rank_line[:200]) + age


def _stall(events: Sequence[LauncherEvent]) -> str:
    """The last report of ranks that wait, unless they have gone on."""
    reports = [event for event in events if "stacks" in event.fields and event.field("text")]
    stragglers = _of(events, "straggler")
    resumed = _of(events, "resumed")
    if reports and not (resumed and resumed[-1].time >= reports[-1].time):
        return f"{reports[-1].field('text')} (stacks in {reports[-1].field('stacks')})"
    return stragglers[-1].field("text") if stragglers else ""


def _checkpoints(events: Sequence[LauncherEvent]) -> str:
    names = {event.field("name"): event for event in _of(events, "checkpoint")}
    failed = _of(events, "checkpoint-failed")
    texts = []
    if names:
        last = list(names.values())[-1]
        texts.append(
            f"{len(names)} uploaded, the last {last.field('name')} "
            f"({human_bytes(last.count('bytes'))} of {last.host})"
        )
    if failed:
        texts.append(f"{failed[-1].field('name')} was not uploaded: {failed[-1].field('error')}")
    return "; ".join(texts)


def _upload(events: Sequence[LauncherEvent]) -> str:
    sealed = _of(events, "complete", "uploaded")
    return f"{sealed[-1].count('files')} files in {sealed[-1].field('uri')}" if sealed else ""


def _stop(events: Sequence[LauncherEvent]) -> str:
    signals = _of(events, "signal")
    texts = []
    for name in sorted({event.field("signal") for event in signals}):
        hosts = sorted({event.host for event in signals if event.field("signal") == name})
        texts.append(f"{name} on {_some(hosts, 4, ', ')}")
    if stopping := _of(events, "stopping"):
        texts.append(f"ranks have {stopping[-1].count('seconds')} s to save")
    if _of(events, "stopped"):
        texts.append("saved and stopped")
    return "; ".join(texts)


def _end(events: Sequence[LauncherEvent]) -> str:
    done = _of(events, "done")
    if not done:
        return ""
    return f"done on {', '.join(sorted({event.host for event in done}))}"


def find_cause(excerpt: LogExcerpt, job: JobFacts) -> str:
    """Why a job has failed, or does not begin; "" where nothing is wrong.

    The launcher's own verdict first, then what the script found on a node, what Slurm's daemons
    complained of, and at last Slurm's word for it.
    """
    if job.state == "PENDING" and not job.restarts:
        return explain_wait(job)
    if job.state in ("COMPLETED", "RUNNING", "CONFIGURING", "SUSPENDED"):
        return ""
    events = current_events(excerpt, job)
    failures = sorted(
        _of(events, "failed"), key=lambda event: (event.count("code") == _PEER, -event.time)
    )
    stopped = _of(events, "stopped")
    texts = [
        *(_failure(event) for event in failures[:1] if event.field("cause")),
        *(("it was told to stop, and has saved",) if stopped and not failures else ()),
        _script_failure(excerpt, job),
        _complaint(excerpt),
        _STATES.get(job.state, ""),
        explain_wait(job) if job.state == "PENDING" else "",
        _last_words(excerpt, job),
    ]
    return next((text for text in texts if text), "")


def _failure(event: LauncherEvent) -> str:
    detail = event.field("detail").strip().splitlines()
    return "\n".join([event.field("cause"), *detail[-12:]])


def _script_failure(excerpt: LogExcerpt, job: JobFacts) -> str:
    """What the script itself ended with, and what its check of the nodes said before."""
    own = f"{job.name}: "
    lines = list(excerpt.other_lines)
    ends = [
        at
        for at, line in enumerate(lines)
        if line.startswith(own) and "every node starts" not in line and "begins again" not in line
    ]
    if not ends:
        return ""
    last = lines[ends[-1]].removeprefix(own)
    if "see above" not in last:
        return last
    places = [line for line in lines[: ends[-1]] if re.match(r"[\w.-]+: \S", line)]
    told = [
        line
        for line in places
        if not line.startswith(("srun:", "slurmstepd", own)) and "unpacks the image" not in line
    ]
    return "\n".join([last.partition(":")[0], *dict.fromkeys(told[-10:])])


def _complaint(excerpt: LogExcerpt) -> str:
    """The last error of Slurm's daemons that says more than that tasks have ended."""
    for line in reversed(excerpt.other_lines):
        match = re.match(r"(?:slurmstepd(?:-\S+)?|srun): (?:error|fatal): (.*)", line)
        if match and not _TASK_END.search(match[1]):
            return match[1].strip("* ")
    return ""


def _last_words(excerpt: LogExcerpt, job: JobFacts) -> str:
    if job.state not in ("FAILED", "NODE_FAIL", "OUT_OF_MEMORY"):
        return ""
    end = f"signal {job.signal}" if job.signal else f"exit code {job.exit_code}"
    words = next((line for line in reversed(excerpt.other_lines) if line.strip()), "")
    return f"{end}: {words}" if words else end


def explain_wait(job: JobFacts) -> str:
    """Why a job does not begin, in more words than Slurm's own."""
    word = job.reason.partition(",")[0]
    if not word:
        return ""
    known = _REASONS.get(word)
    if known is None and word.startswith("Nodes_required_for_job_are"):
        known = "nodes that it needs are down, drained or reserved: `sinfo -R` says why"
    if known is None and ("Assoc" in word or "QOS" in word):
        known = "a limit of its account or quality of service is reached"
    return f"{word}: {known}" if known else word.replace("_", " ")
