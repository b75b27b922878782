"""One JSON line on stderr for each thing that the launcher does or notices."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from launcher import events
from launcher.causes import Cause

#: Of the event `start-up`, for those who read it: inv report.
START_UP_FORMAT = 1

_lock = threading.Lock()
_place: dict[str, Any] = {}
_began = time.time()


def set_node(host: str, node_rank: int) -> None:
    """Name the node that the following events come from."""
    _place.update(host=host, node_rank=node_rank)


def emit(event: str, **fields: Any) -> None:
    """Print one event. `event` is a short verb or state; `fields` must be JSON values."""
    line = json.dumps({"t": round(time.time(), 3), **_place, "event": event, **fields})
    with _lock:
        sys.stderr.write(f"launch: {line}\n")
        sys.stderr.flush()


class StartUp:
    """The seconds of each stage before the ranks, told once, in one event a node."""

    def __init__(self, **job: Any) -> None:
        self._job = job
        self._stages: dict[str, float] = {}
        self._told = False

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage, for as long as the block runs; one that fails counts with what it took."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._stages[name] = round(time.monotonic() - began, 3)

    def tell(self) -> None:
        """Print the event, the first time."""
        if not self._told:
            self._told = True
            job = {"format": START_UP_FORMAT, "began": round(_began, 3), **self._job}
            emit("start-up", **job, stages=self._stages)


def write_failure(path: Path, cause: Cause) -> bool:
    """Write the cause; False when a file was there already, which is kept.

    The training script may have said why it failed better than we can
    (aws/sagemaker-training-toolkit#111).
    """
    if path.exists() and path.stat().st_size > 0:
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_text(cause.text() + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        # A full disk must not hide the exit code (aws/sagemaker-training-toolkit#204).
        events.emit("failure-file", path=str(path), error=str(error))
        return False
    return True


class FailureNote:
    """A failure file written ahead: what would have ended the job, should it be killed now.

    Taken back when that is not true any more, so that the real cause finds room.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._text = ""

    def write(self, cause: Cause) -> None:
        """Write, or write anew; what the script has written stands."""
        self.remove()
        if self._path is not None and write_failure(self._path, cause):
            self._text = cause.text() + "\n"

    def remove(self) -> None:
        """Take the text back, where it is still ours."""
        if self._path is None or not self._text:
            return
        try:
            if self._path.read_text(encoding="utf-8") == self._text:
                self._path.unlink()
        except OSError as error:
            emit("failure-file", path=str(self._path), error=str(error))
        self._text = ""
