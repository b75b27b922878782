"""Progress of long work: live bars on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from slipway.report.events import Event

PLAIN_INTERVAL_S = 15.0
"""Without a terminal, a progress line at most this often for each piece of work."""


def human_bytes(count: float) -> str:
    """Decimal units, three digits: what registries and disks are sold in."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def human_seconds(seconds: float) -> str:
    """`12.3 s`, `4 min 05 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def amount(event: Event, elapsed: float) -> str:
    """`120 MB of 500 MB, 40 MB/s, 9.5 s left`, as far as it is known."""
    if event.unit != "B":
        return f"{event.current} of {event.total}" if event.total else ""
    if not event.current:
        return ""
    rate = event.current / elapsed if elapsed > 0.5 else 0.0
    parts = [human_bytes(event.current)]
    if event.total:
        parts[0] += f" of {human_bytes(event.total)}"
    if rate:
        parts.append(f"{human_bytes(rate)}/s")
        if event.total > event.current:
            parts.append(f"{human_seconds((event.total - event.current) / rate)} left")
    return ", ".join(parts)


class Reporter:
    """Shows events. Use as a context manager; `on_event` may be called from any thread."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live = self._console.is_terminal
        self._lock = threading.Lock()
        self._rows: dict[str, TaskID] = {}
        self._step_start: dict[tuple[str, str], float] = {}
        self._last_line: dict[str, float] = {}
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )

    def __enter__(self) -> Reporter:
        if self._live:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._progress.stop()

    def say(self, text: str) -> None:
        """One line for a person, above the bars."""
        if self._live:
            self._console.print(text, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def on_event(self, event: Event) -> None:
        """Show one event."""
        with self._lock:
            now = time.monotonic()
            if event.kind == "start" and not event.step:
                self._forget(event.task)
            started = self._step_start.setdefault((event.task, event.step), now)
            if event.kind == "log":
                return  # in the log file
            note = amount(event, now - started) or event.text
            if self._live:
                self._row(event, note)
            if event.kind in ("done", "failed") and not event.step:
                took = human_seconds(now - self._step_start.get((event.task, ""), now))
                mark = "done" if event.kind == "done" else "FAILED"
                self.say(f"{event.task}: {mark} in {took}{': ' + event.text if event.text else ''}")
            elif not self._live:
                self._plain(event, note, now)

    def _forget(self, task: str) -> None:
        """Work of the same name may come again; its times start anew."""
        for key in [key for key in self._step_start if key[0] == task]:
            del self._step_start[key]
        self._last_line.pop(task, None)

    def _row(self, event: Event, note: str) -> None:
        if event.kind in ("done", "failed") and not event.step:
            if event.task in self._rows:
                self._progress.remove_task(self._rows.pop(event.task))
            return
        if event.task not in self._rows:
            self._rows[event.task] = self._progress.add_task(event.task, total=None, note="")
        step = event.step if len(event.step) <= 60 else event.step[:57] + "..."
        text = f"{step}  {note}".strip()
        total = event.total or None
        self._progress.update(
            self._rows[event.task], total=total, completed=event.current, note=text
        )

    def _plain(self, event: Event, note: str, now: float) -> None:
        label = f"{event.task}: {event.step}" if event.step else event.task
        if event.kind == "progress":
            if now - self._last_line.get(event.task, 0.0) < PLAIN_INTERVAL_S:
                return
            self._last_line[event.task] = now
            self.say(f"{label}  {note}")
        elif event.kind == "start" and not event.step:
            self.say(f"{label} ...")
        elif event.kind == "failed":
            self.say(f"{label} FAILED")
