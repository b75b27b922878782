"""Where a job's start went: its stages on each node, and over all of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from slipway.cluster import LauncherEvent
from slipway.report.job_log import START_UP_FORMATS, event_number, finite

#: The stages of a start, in order, as the launcher names them; with what each is for a person.
STAGES = {
    "container": "from the job's start to the launcher's first line: node checks, image, container",
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


@dataclass(frozen=True)
class StageSeconds:
    """One stage over all nodes."""

    stage: str
    meaning: str
    fastest: float
    middle: float
    slowest: float
    slowest_node: str
    start: float  # where its bar begins: the sum of the slowest of the stages before


def node_stages(events: Sequence[LauncherEvent]) -> dict[str, float]:
    """Seconds of each stage of one node's start; of an older launcher, from its events' times."""
    start = next((event for event in events if event.event == "start-up"), None)
    ranks = next((event.time for event in events if event.event == "ranks"), None)
    stages: dict[str, float] = {}
    if start is not None and start.fields.get("format") in START_UP_FORMATS:
        began, job_start = event_number(start, "began"), event_number(start, "job_start")
        if began is not None and job_start is not None and 0 <= began - job_start < 86_400:
            stages["container"] = began - job_start
        told = start.fields.get("stages")
        for name, value in told.items() if isinstance(told, dict) else ():
            seconds = finite(value)
            if name in STAGES and seconds is not None and seconds >= 0:
                stages[name] = seconds
        if began is not None and ranks is not None:
            inside = sum(seconds for name, seconds in stages.items() if name != "container")
            stages["launcher"] = max(ranks - began - inside, 0.0)
    elif ranks is not None:
        stages = _old_stages(events, ranks)
    output = next((event.time for event in events if event.event == "first-output"), None)
    if ranks is not None and output is not None:
        stages["import"] = max(output - ranks, 0.0)
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
                stage, meaning, min(values), median(values), seconds[slowest], slowest, start
            )
        )
        start += seconds[slowest]
    return tuple(table)
