"""What a live view shows: one table of a run, a job or a fan-out, as it stands. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from slipway.cluster import ImageResult, PlannedImage
from slipway.core import human_bytes, human_seconds
from slipway.records import RecordedRun
from slipway.report.job import JobPage

MOST_NOTES = 8
"""The last things that were noticed; a page of `inv report` has all of them."""

Row = tuple[str, ...]


@dataclass(frozen=True)
class LiveTable:
    """`over`: nothing of it will change any more. Texts are as they came: clean them to show."""

    title: str
    headers: Row
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    over: bool = False


def run_table(run: RecordedRun, now: float, *, alive: bool) -> LiveTable:
    """A run: each piece of work, what it is at, and for how long."""
    going = run.ended is None and alive
    until = now if going else run.started + run.seconds
    tasks = [step for step in run.steps if not step.step]
    named = {step.task for step in tasks}
    tasks += [step for step in run.steps if step.step and step.task not in named]
    rows = []
    for task in sorted(tasks, key=lambda step: step.start):
        inside = [step for step in run.steps if step.task == task.task and step.step]
        at = next((step for step in reversed(inside) if step.state == "open"), None)
        size = sum(step.bytes for step in (task, *inside))
        state = task.state if task.state != "open" or not going else "at work"
        rows.append((
            task.task, state, human_seconds(max((task.end or until) - task.start, 0.0)),
            human_bytes(size) if size else "",
            (at.step if at else "") or task.text,
        ))  # fmt: skip
    state = "at work" if going else "done" if run.ended is not None else "cut off"
    notes = [f"{note.get('image', '')}: {note.get('text', '')}" for note in run.notes
             if note.get("what") == "failure"]  # fmt: skip
    return LiveTable(
        f"inv {run.words}: {state}, {human_seconds(max(until - run.started, 0.0))}",
        ("work", "state", "took", "moved", "at"),
        tuple(rows),
        tuple(notes[-MOST_NOTES:]),
        not going,
    )


def job_table(page: JobPage, now: float) -> LiveTable:
    """The newest attempt of a job: its nodes, the step it is at, what was noticed."""
    over = page.whole
    seconds = page.seconds if over else max(now - page.began, 0.0)
    rows = tuple(
        (
            node.name,
            node.state if node.code is None else f"{node.state} ({node.code})",
            human_seconds(node.start_up) if node.start_up else "",
            ", ".join(f"{name} {human_seconds(took)}" for name, took in _longest(node.stages)),
        )
        for node in page.node_rows
    )
    notes = [f"{human_seconds(notice.at)}  {notice.node}  {notice.event}: {notice.text}"
             for notice in page.notices[-MOST_NOTES:]]  # fmt: skip
    if page.steps:
        last = page.steps[-1]
        speed = f", {last.speed:,.0f} tokens/s" if last.speed is not None else ""
        loss = f", loss {last.loss:g}" if last.loss is not None else ""
        notes.insert(0, f"step {last.step:g}{speed}{loss}")
    notes += [f"ended: {how} ({code}) on {nodes}: {cause}" for how, code, nodes, cause in page.ends]
    left = f", {page.nodes_left_out} more nodes" if page.nodes_left_out else ""
    state = "over" if over else "at work"
    return LiveTable(
        f"{page.title}: {state}, {human_seconds(seconds)}, {page.nodes} nodes, "
        f"{page.world} ranks{left}",
        ("node", "state", "ranks began after", "longest stages"),
        rows,
        tuple(notes),
        over,
    )


def _longest(stages: object) -> Sequence[tuple[str, float]]:
    items = stages.items() if isinstance(stages, dict) else ()
    return sorted(items, key=lambda item: -item[1])[:3]


def waiting_table(what: str) -> LiveTable:
    """Before there is anything."""
    return LiveTable(what, ("",), ())


def results_table(
    images: Sequence[PlannedImage], results: Iterable[ImageResult], *, going: bool
) -> LiveTable:
    """A fan-out: what became of each image so far."""
    by_name = {result.name: result for result in results}
    rows = []
    for image in images:
        result = by_name.get(image.name)
        if result is None:
            rows.append((image.name, "", "", "not yet" if going else "not reached"))
        else:
            rows.append((
                image.name, result.worker, human_seconds(result.seconds),
                "shipped" if result.ok else str(result.failure),
            ))  # fmt: skip
    good = sum(result.ok for result in by_name.values())
    return LiveTable(
        f"{good} of {len(images)} images shipped, {len(by_name) - good} failed",
        ("image", "worker", "took", "result"),
        tuple(rows),
        over=not going,
    )
