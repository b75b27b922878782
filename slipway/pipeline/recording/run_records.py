"""How a run went, recorded while it goes: what each stage of an image took, and what was built."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from slipway.pipeline.checkout import Checkout
from slipway.pipeline.image_run import ImageRun
from slipway.records import RunLog

MOST_NAMES = 6
"""Of images in a run's own name."""


@contextlib.contextmanager
def recorded_run(
    checkout: Checkout, runs: Sequence[ImageRun], stages: Sequence[str]
) -> Iterator[RunLog]:
    """The log of a run; when it ends, however it ends, with what became of its images."""
    task = "ship" if "setup" in stages else stages[-1]
    words = " ".join([task, *(run.image.name for run in runs[:MOST_NAMES])])
    more = f" and {len(runs) - MOST_NAMES} more" if len(runs) > MOST_NAMES else ""
    with RunLog(checkout.project, words + more) as log:
        try:
            yield log
        finally:
            for run in runs:
                note_image_run(log, run)


def note_image_run(log: RunLog, run: ImageRun) -> None:
    """What became of one image: its stages, a new build with all that decided it, its failure."""
    name = run.image.name
    for step in run.steps:
        log.note("stage", image=name, **asdict(step))
        if step.name == "build" and step.fresh and run.record.built:
            log.note("built", image=name, **asdict(run.record.built))
    if run.failure:
        log.note("failure", image=name, text=str(run.failure))
