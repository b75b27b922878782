"""`inv watch`: a live table on the terminal, which is left as it was."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from slipway.cluster import JobNotBegunError, read_fanout_run
from slipway.core import Project, SlipwayError, UsageError, print_table, printable, say
from slipway.records import read_run_log
from slipway.report.job import (
    JobPage,
    JobPlaces,
    JobSource,
    job_pages,
    parse_job_source,
    read_job_log,
)
from slipway.report.live_table import (
    LiveTable,
    job_table,
    results_table,
    run_table,
    waiting_table,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

INTERVAL_S, ASK_INTERVAL_S = 0.5, 10.0
"""Between two looks: at files, and where a look asks Slurm's controller or AWS."""

Content = TypeVar("Content")


@dataclass(frozen=True)
class WatchRequest:
    """What to watch: a job (`parse_job_source`), a fan-out by its folder, else the last run here.

    `ssh` is the head node of a Slurm job, `region` that of a job of AWS.
    """

    job: str = ""
    fanout: str = ""
    ssh: str = ""
    region: str = ""


@dataclass(frozen=True)
class WatchSource:
    """Where the tables come from: `look` gives the one of a moment, seconds since 1970."""

    look: Callable[[float], LiveTable]
    interval: float = INTERVAL_S


class FileReading(Generic[Content]):
    """A file's content by `read`, read again only when the file has changed."""

    def __init__(self, path: Path, read: Callable[[Path], Content]) -> None:
        self._path, self._read = path, read
        self._seen: tuple[int, int, int] | None = None
        self._content: Content | None = None

    def content(self) -> Content:
        """Raises as `read`."""
        try:
            status = self._path.stat()
        except OSError:
            return self._read(self._path)  # which says that it has gone
        seen = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._content is None or seen != self._seen:
            self._content, self._seen = self._read(self._path), seen
        return self._content


def watch_work(root: Path, request: WatchRequest) -> None:
    """Show it until it is over; without a terminal once, as it stands.

    Raises UsageError where there is nothing to watch, SlipwayError where it cannot be read.
    """
    source = _source(Project.at(root), request)
    table = source.look(time.time())
    if sys.stdout.isatty():
        table = _live(source, table)
    print_table(table.headers, table.rows)
    for text in (table.title, *table.notes):
        say(text)


def _source(project: Project, request: WatchRequest) -> WatchSource:
    if request.job and request.fanout:
        raise UsageError("--job and --fanout were both given", cure="Give one of them.")
    if request.fanout:
        folder = Path(request.fanout)
        return WatchSource(lambda _: _fanout(folder), ASK_INTERVAL_S)
    if request.job:
        return _job_source(parse_job_source(request.job), project, request)
    newest = max(project.runs.glob("*.jsonl"), default=None)
    if newest is None:
        raise UsageError(
            "nothing has run here yet",
            cure="Run `./inv ship` beside this, or name a log: `./inv watch --job FILE`.",
        )
    run = FileReading(newest, read_run_log)
    return WatchSource(lambda now: run_table(run.content(), now, alive=_is_alive(newest)))


def _fanout(folder: Path) -> LiveTable:
    images, results, going = read_fanout_run(folder)
    return results_table(images, results, going=going)


def _is_alive(path: Path) -> bool:
    """Whether the process that writes a log is there: its pid is in the name, and it has it open.

    A process of another user cannot be looked into; it counts as alive while it is there.
    """
    pid = path.stem.rpartition("-")[2]
    try:
        handles = list(Path("/proc", pid, "fd").iterdir())
    except PermissionError:
        return True
    except OSError:
        return False
    return any(_leads_to(handle, path) for handle in handles)


def _leads_to(handle: Path, path: Path) -> bool:
    try:
        return handle.samefile(path)
    except OSError:
        return False


def _job_source(job: JobSource, project: Project, request: WatchRequest) -> WatchSource:
    if job.kind == "file":
        path = Path(job.name)
        if not path.exists():
            raise UsageError("there is no such log", where=str(path))
        pages = FileReading(path, lambda log: job_pages(read_job_log(log)))
        return WatchSource(lambda now: _job(path, pages, now))
    places = JobPlaces(project, request.ssh, request.region)

    def look(now: float) -> LiveTable:
        try:
            return job_table(job_pages(job.read(places))[-1], now)
        except JobNotBegunError as error:  # all else ends the watch, as a job that is none
            return waiting_table(error.what)

    return WatchSource(look, ASK_INTERVAL_S)


def _job(path: Path, pages: FileReading[tuple[JobPage, ...]], now: float) -> LiveTable:
    try:
        return job_table(pages.content()[-1], now)
    except SlipwayError:
        return waiting_table(f"{path}: no launcher has begun")


def _live(source: WatchSource, table: LiveTable) -> LiveTable:
    """On the terminal's other screen, so that what was on this one is there again afterwards."""
    from rich.live import Live

    live = Live(_render(table), screen=True, auto_refresh=False)
    try:  # Ctrl-C may come while it starts, when `with` would not end it
        live.start(refresh=True)
        while not table.over:
            time.sleep(source.interval)
            table = source.look(time.time())
            live.update(_render(table), refresh=True)
    finally:
        live.stop()
    return table


def _render(table: LiveTable) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = Table(*table.headers, box=None, pad_edge=False)
    for row in table.rows:
        shown.add_row(*(Text(printable(cell), overflow="ellipsis") for cell in row))
    notes = [Text(printable(note), overflow="ellipsis") for note in table.notes]
    return Group(Text(printable(table.title), style="bold"), Text(""), shown, Text(""), *notes)
