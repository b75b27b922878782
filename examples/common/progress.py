"""What a run tells: one JSON line per logging step, one at the end. Needs nothing but Python."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


def emit(**values: Any) -> None:
    """One JSON line on stdout."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


@dataclass
class Progress:
    """Counts tokens against time, in windows that end where a line is printed.

    `tokens` are those of all ranks in one step. Time spent in `pause` (checkpoints) does not
    count. The first window warms up (compilation, allocator, first communication): the summary
    leaves it out unless it is the only one.
    """

    tokens: int
    world: int
    flops_per_token: float = 0.0
    clock: Callable[[], float] = time.monotonic
    losses: list[float] = field(default_factory=list)
    _began: float = 0.0
    _paused: float = 0.0
    _steps: int = 0
    _windows: list[tuple[int, float]] = field(default_factory=list)

    def start(self) -> None:
        """The first step is about to begin."""
        self._began = self.clock()

    def step(self) -> None:
        """A step has been issued."""
        self._steps += 1

    def pause(self, began: float) -> float:
        """Something else than training went on since `began`; for how many seconds."""
        seconds = self.clock() - began
        self._paused += seconds
        return seconds

    def close_window(self, loss: float) -> dict[str, float]:
        """The device has done all steps so far: their speed."""
        now = self.clock()
        seconds = max(now - self._began - self._paused, 1e-9)
        window = (self._steps, seconds)
        self._windows.append(window)
        self._began, self._paused, self._steps = now, 0.0, 0
        self.losses.append(loss)
        return self._speed([window])

    def speed(self) -> dict[str, float]:
        """Over the whole run; nothing if no window was closed."""
        return self._speed(self._windows[1:] or self._windows)

    def _speed(self, windows: list[tuple[int, float]]) -> dict[str, float]:
        steps, seconds = (
            (sum(column) for column in zip(*windows, strict=True)) if windows else (0, 0)
        )
        if not steps:
            return {}
        per_second = self.tokens * steps / seconds
        found = {
            "step_s": round(seconds / steps, 4),
            "tokens_per_s": round(per_second, 1),
            "tokens_per_s_per_rank": round(per_second / self.world, 1),
        }
        if self.flops_per_token:
            tera = per_second * self.flops_per_token / self.world / 1e12
            found["tflops_per_rank"] = round(tera, 4)
        return found
