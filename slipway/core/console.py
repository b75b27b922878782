"""Progress of long work: live bars on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from slipway.core.errors import SlipwayError, printable
from slipway.core.events import Event, OnEvent, silent
from slipway.core.redaction import redact
from slipway.core.units import amount, human_seconds

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PIPE_WIDTH = 500
"""Columns when stdout is not a terminal: no cell is cut or wrapped, so grep and awk work."""

PLAIN_INTERVAL_S = 15.0
"""Without a terminal, a progress line at most this often for each piece of work."""


class Reporter:
    """Shows events. Use as a context manager; `on_event` may be called from any thread.

    `record` hears each event, too.
    """

    def __init__(self, record: OnEvent = silent) -> None:
        self._record = record
        self._progress = _live_progress() if sys.stderr.isatty() else None
        self._lock = threading.Lock()
        self._rows: dict[str, TaskID] = {}
        self._step_start: dict[tuple[str, str], float] = {}
        self._last_line: dict[str, float] = {}

    def __enter__(self) -> Reporter:
        if self._progress:
            try:
                self._progress.start()
            except BaseException:  # Ctrl-C in the middle of it: the cursor is hidden already
                self._progress.stop()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress:
            self._progress.stop()

    def say(self, text: str) -> None:
        """One line for a person, above the bars."""
        text = printable(text)
        if self._progress:
            self._progress.console.print(text, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def on_event(self, event: Event) -> None:
        """Show one event."""
        self._record(event)
        with self._lock:
            now = time.monotonic()
            if event.kind == "start" and not event.step:
                self._forget(event.task)
            started = self._step_start.setdefault((event.task, event.step), now)
            if event.kind == "log":
                return  # in the log file
            if event.kind == "notice":
                self.say(f"{event.task}: {event.text}")
                return
            note = amount(event, now - started) or event.text
            if self._progress:
                self._row(self._progress, event, note)
            if event.kind in ("done", "failed") and not event.step:
                took = human_seconds(now - self._step_start.get((event.task, ""), now))
                mark = "done" if event.kind == "done" else "FAILED"
                self.say(f"{event.task}: {mark} in {took}{': ' + event.text if event.text else ''}")
            elif not self._progress:
                self._plain(event, note, now)

    def _forget(self, task: str) -> None:
        """Work of the same name may come again; its times start anew."""
        for key in [key for key in self._step_start if key[0] == task]:
            del self._step_start[key]
        self._last_line.pop(task, None)

    def _row(self, progress: Progress, event: Event, note: str) -> None:
        if event.kind in ("done", "failed", "cached") and not event.step:
            if event.task in self._rows:
                progress.remove_task(self._rows.pop(event.task))
            return
        if event.task not in self._rows:
            self._rows[event.task] = progress.add_task(event.task, total=None, note="")
        step = event.step if len(event.step) <= 60 else event.step[:57] + "..."
        text = printable(f"{step}  {note}".strip())
        total = event.total or None
        progress.update(self._rows[event.task], total=total, completed=event.current, note=text)

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


def _live_progress() -> Progress:
    """A line a running thing, gone when it is done. rich is imported when it is needed."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        console=Console(stderr=True, highlight=False),
        transient=True,
    )


def print_fields(value: Any, *, as_json: bool) -> None:
    """Print a status dataclass."""
    assert is_dataclass(value)
    assert not isinstance(value, type)
    if as_json:
        print_json(value)
    else:
        rows = [(name, _field_text(field)) for name, field in asdict(value).items()]
        print_table(("", ""), rows)


def _field_text(value: Any) -> str:
    """A field for a person."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value["host"] if isinstance(value, dict) else value)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table on stdout; its lines are cut to the terminal's width, never elsewhere."""
    plain = None if sys.stdout.isatty() or title else _plain_table(headers, rows)
    if plain is not None:
        print(plain)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    table = Table(title=title or None, box=None, pad_edge=False, title_justify="left")
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table, markup=False)


def _plain_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str | None:
    """The lines that rich makes of it for a pipe, which takes it a third of a plan of 2,000 images.

    None for what is left to rich: lines that are too wide, columns without a letter, letters that
    may be two columns wide.
    """
    cells = [[*headers], *([printable(cell) for cell in row] for row in rows)]
    if not all(cell.isascii() and cell.isprintable() for line in cells for cell in line):
        return None
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if not all(widths) or sum(widths) + 2 * len(widths) > PIPE_WIDTH:
        return None
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )


def print_json(value: Any) -> None:
    """JSON on stdout; dataclasses as objects, and what JSON does not have as text."""
    print(json.dumps(value, indent=2, sort_keys=True, default=_as_json))


def _as_json(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def say(text: str) -> None:
    """A line for a person, on stderr: stdout is for results."""
    print(text, file=sys.stderr, flush=True)


class OutputError(SlipwayError):
    """What is printed cannot be written: its disk is full, or its terminal is gone."""


class RedactingStream:
    """stdout or stderr with the secrets of all that is written to it hidden.

    Raises OutputError where it cannot be written; a reader that has gone is BrokenPipeError.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write it; the length is that of the text that was given."""
        with self._told():
            self._stream.write(redact(text))
        return len(text)

    def flush(self) -> None:
        """Have it written."""
        with self._told():
            self._stream.flush()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            name = getattr(self._stream, "name", "the output")
            raise OutputError(f"cannot write to {name}: {error.strerror}") from error

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
