"""The training loop: steps, lines of progress, checkpoints, and the way out on SIGTERM."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any, Protocol

import torch

from common import ranks as ranked
from common.progress import Progress, emit
from common.ranks import Ranks, Stop
from common.weights import Weight

Batch = dict[str, torch.Tensor]


class Engine(Protocol):
    """A model that trains and keeps itself: FSDP2 (sharded.py), DeepSpeed (zero_engine.py)."""

    def train_step(self, batch: Batch, lr: float) -> torch.Tensor:
        """One optimizer step; the loss of this rank."""

    def save(self, step: int) -> None:
        """Write a checkpoint, and delete old ones."""

    def load(self) -> int:
        """Go on from --resume-from: the step that it was written at; 0 without one."""

    def weights(self) -> list[Weight]:
        """Every weight of the model, to be gathered one by one."""


def learning_rate(peak: float, step: int, steps: int) -> float:
    """A rise over the first twentieth, then half a cosine down to a tenth."""
    rise = max(1, steps // 20)
    if step <= rise:
        return peak * step / rise
    way = (step - rise) / max(1, steps - rise)
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, way))))


def train(
    engine: Engine,
    batch: Callable[[int], Batch],
    options: argparse.Namespace,
    ranks: Ranks,
    stop: Stop,
    progress: Progress,
    done: int,
) -> dict[str, Any]:
    """From step `done` + 1 to the last, or to a SIGTERM; what the summary says of it.

    Batches and learning rates follow from the step's number alone, so a resumed run goes on as
    if it had never stopped.
    """
    status, step, saved = "done", done, done
    progress.start()
    for step in range(done + 1, options.steps + 1):
        lr = learning_rate(options.lr, step, options.steps)
        loss = engine.train_step(batch(step), lr)
        progress.step()
        if step == done + 1 or step % options.log_every == 0 or step == options.steps:
            _report(step, loss, lr, ranks, progress)
        stopping = stop.agreed()
        if stopping or (options.checkpoint_every > 0 and step % options.checkpoint_every == 0):
            began = progress.clock()
            engine.save(step)
            seconds, saved = progress.pause(began), step
            if ranks.first:
                emit(event="checkpoint", step=step, seconds=round(seconds, 3))
        if stopping:
            status = "stopped"
            break
    return {
        "status": status,
        "first_step": done + 1,
        "steps": step,
        "saved_step": saved,
        "losses": progress.losses,
        **progress.speed(),
    }


def _report(step: int, loss: torch.Tensor, lr: float, ranks: Ranks, progress: Progress) -> None:
    average = ranked.mean(loss)  # waits for the device
    speed = progress.close_window(round(average, 4))
    peak = max(ranked.peak_memory(ranks))
    if ranks.first:
        emit(event="step", step=step, loss=round(average, 4), lr=lr, **speed, peak_memory_gib=peak)


def summary(example: str, ranks: Ranks, found: dict[str, Any], **more: Any) -> None:
    """The last line of a run."""
    peaks = ranked.peak_memory(ranks)
    cuda = ranks.device.type == "cuda"
    name = torch.cuda.get_device_name(ranks.device) if cuda else "cpu"
    if ranks.first:
        emit(
            event="summary",
            example=example,
            **found,
            peak_memory_gib=peaks,
            world=ranks.world,
            device=name,
            torch=torch.__version__,
            **more,
        )
