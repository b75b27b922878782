"""Where a job's start went: its stages on each node, and over all of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from slipway.cluster import LauncherEvent
from slipway.report.job.job_log import START_UP_FORMATS, event_number, finite

#: The stages of a start, in order, as the launcher names them; with what each is for a person.
STAGES = {
    "queue": "from the submission to the job's start, as Slurm or SageMaker tell it",
    "fetch": "--fetch: the .sqsh on its way to the node's own disk",
    "container": "from there to the launcher's first line: node checks, image, container",
    "launcher": "the launcher itself, before it meets others",
    "gate": "all nodes meet and compare",
    "preflight": "quick checks of each node",
    "agree": "node 0 decides on attempt and checkpoint",
    "measure": "measured checks (--preflight full)",
    "code": "the training code and its requirements",
    "pre-cmd": "--pre-cmd",
    "prefetch": "--prefetch",
    "resume": "the checkpoint to go on from",
    "others": "waiting for the slowest node",
    "import": "from the ranks' start to the first line that one prints: imports, mostly",
}


#: Of them, those that are over when the launcher begins, and that it does not tell.
_BEFORE = ("queue", "fetch", "container")

CLOCK_S = 2.0
"""Clocks of a scheduler and of nodes differ by as much."""


@dataclass(frozen=True)
class JobTimes:
    """By whoever runs the job: when it was submitted, and started; 0 where nobody tells."""

    submitted: float = 0.0
    started: float = 0.0

    @property
    def queue(self) -> float | None:
        """Seconds in the queue; None where that is not known."""
        if 0 < self.submitted <= self.started:
            return self.started - self.submitted
        return None


@dataclass(frozen=True)
class StageSeconds:
    """One stage over all nodes."""

    stage: str
    meaning: str
    fastest: float
    middle: float
    slowest: float
    slowest_node: str
    start: float  # where its bar begins: the sum of the slowest of the stages before, queue aside


def node_stages(
    events: Sequence[LauncherEvent], times: JobTimes | None = None, fetch: float | None = None
) -> dict[str, float]:
    """Seconds of each stage of one node's start; of an older launcher, from its events' times.

    `fetch`: of them, before the launcher, those that the .sqsh took.
    """
    start = next((event for event in events if event.event == "start-up"), None)
    ranks = next((event.time for event in events if event.event == "ranks"), None)
    stages: dict[str, float] = {}
    times = times or JobTimes()
    if start is not None and start.fields.get("format") in START_UP_FORMATS:
        began, job_start = event_number(start, "began"), event_number(start, "job_start")
        job_start = job_start or times.started or None
        if began is not None and job_start is not None and 0 <= began - job_start < 86_400:
            stages["container"] = max(began - job_start - (fetch or 0.0), 0.0)
        told = start.fields.get("stages")
        for name, value in told.items() if isinstance(told, dict) else ():
            seconds = finite(value)
            if name in STAGES and name not in _BEFORE and seconds is not None and seconds >= 0:
                stages[name] = seconds
        if began is not None and ranks is not None:
            inside = sum(seconds for name, seconds in stages.items() if name not in _BEFORE)
            stages["launcher"] = max(ranks - began - inside, 0.0)
    elif ranks is not None:
        stages = _old_stages(events, ranks)
    output = next((event.time for event in events if event.event == "first-output"), None)
    if ranks is not None and output is not None:
        stages["import"] = max(output - ranks, 0.0)
    if fetch is not None:
        stages["fetch"] = fetch
    if times.queue is not None:
        stages["queue"] = times.queue
    return {name: stages[name] for name in STAGES if name in stages}


def _old_stages(events: Sequence[LauncherEvent], ranks: float) -> dict[str, float]:
    moment = events[0].time
    stages: dict[str, float] = {}
    for event in events:
        stage = {"met": "gate", "pre-cmd": "pre-cmd", "prefetched": "prefetch", "resume": "resume"}
        if name := stage.get(event.event):
            stages[name] = stages.get(name, 0.0) + max(event.time - moment, 0.0)
            moment = event.time
    stages["others"] = max(ranks - moment, 0.0)
    return stages


def stage_table(nodes: Mapping[str, Mapping[str, float]]) -> tuple[StageSeconds, ...]:
    """Each stage over all nodes: the slowest is what the job waited for."""
    table: list[StageSeconds] = []
    start = 0.0
    for stage, meaning in STAGES.items():
        seconds = {name: stages[stage] for name, stages in nodes.items() if stage in stages}
        if max(seconds.values(), default=0.0) == 0.0:
            continue
        slowest = max(seconds, key=lambda name: seconds[name])
        values = seconds.values()
        table.append(
            StageSeconds(
                stage, meaning, min(values), median(values), seconds[slowest],
                "all wait" if stage == "queue" else slowest, start,
            )
        )  # fmt: skip
        start += seconds[slowest] if stage != "queue" else 0.0
    return tuple(table)


def start_seconds(stages: Sequence[StageSeconds]) -> float:
    """Of the whole start, the queue aside: the slowest of each stage, one after another."""
    return sum(stage.slowest for stage in stages if stage.stage != "queue")


def queue_lead(queue: float | None, seconds: float) -> float:
    """How much of a queue is drawn before `seconds` of something else: at most as much again,
    for what comes after hours of waiting is to be seen, too."""
    return min(queue or 0.0, seconds)
