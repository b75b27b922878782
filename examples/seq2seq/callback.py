"""What joins the Hugging Face Trainer to the launcher: SIGTERM, and lines of progress."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from common import ranks as ranked
from common.progress import Progress, emit
from common.ranks import Ranks, Stop


class LauncherCallback(TrainerCallback):
    """Stops all ranks at the same step with a checkpoint; prints as the other examples do."""

    def __init__(self, ranks: Ranks, progress: Progress) -> None:
        self._ranks = ranks
        self._progress = progress
        self._stop = Stop(ranks.device)
        self._stepped = 0.0
        self._first = 0
        self._last = 0
        self._saved = 0
        self._stopped = False

    @property
    def found(self) -> dict[str, Any]:
        """What the summary says."""
        return {
            "status": "stopped" if self._stopped else "done",
            "first_step": self._first,
            "steps": self._last,
            "saved_step": self._saved,
            "losses": self._progress.losses,
            **self._progress.speed(),
        }

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The first step is about to begin."""
        self._first = state.global_step + 1
        self._saved = state.global_step
        self._progress.start()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask whether to stop."""
        self._progress.step()
        self._last = state.global_step
        self._stepped = self._progress.clock()
        if self._stop.agreed():
            self._stopped = True
            control.should_save = True
            control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """One line; the Trainer has just waited for the device."""
        if logs is None or "loss" not in logs:
            return
        loss = round(float(logs["loss"]), 4)
        speed = self._progress.close_window(loss)
        peak = max(ranked.peak_memory(self._ranks))
        if self._ranks.first:
            emit(
                event="step",
                step=state.global_step,
                loss=loss,
                lr=logs.get("learning_rate"),
                **speed,
                peak_memory_gib=peak,
            )
        self._stepped = self._progress.clock()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """A checkpoint has been written."""
        seconds = self._progress.pause(self._stepped)
        self._saved = state.global_step
        if self._ranks.first:
            emit(event="checkpoint", step=state.global_step, seconds=round(seconds, 3))
