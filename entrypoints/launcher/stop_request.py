"""The reason to stop before the end, shared by everything that waits."""

from __future__ import annotations

import os
import queue
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Generic, TypeVar

from launcher.causes import Cause, CauseError

Item = TypeVar("Item")


class StoppedError(CauseError):
    """Raised by a step that was cut short; carries the cause of the halt."""


class StopRequest:
    """Set once with a cause; `hard` may follow a graceful request, never the other way round.

    Graceful (SIGTERM) leaves ranks their grace to write a checkpoint; hard (a peer is lost)
    does not, because a collective can no longer succeed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._listeners: list[Callable[[], None]] = []
        self.cause: Cause | None = None
        self.hard = False

    def request(self, cause: Cause, *, hard: bool) -> bool:
        """Ask everything to stop; whether this changed anything."""
        with self._lock:
            if self.cause is not None and (self.hard or not hard):
                return False
            self.cause = self.cause or cause
            self.hard = hard
            listeners = list(self._listeners)
        self._changed.set()
        for listener in listeners:
            listener()
        return True

    def tell(self, listener: Callable[[], None]) -> None:
        """Call `listener` on each request from now on; at once if one was made."""
        with self._lock:
            self._listeners.append(listener)
            requested = self.cause is not None
        if requested:
            listener()

    @contextmanager
    def telling(self, listener: Callable[[], None]) -> Iterator[None]:
        """Call `listener` on each request while the block runs; at once if one was made."""
        try:
            self.tell(listener)
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener)

    def sleep(self, seconds: float) -> None:
        """Wait; raises HaltedError as soon as a stop is requested."""
        self._changed.wait(seconds)
        self.check()

    def check(self) -> None:
        """Raise HaltedError if a stop was requested."""
        if self.cause is not None:
            raise StoppedError(self.cause)


@contextmanager
def end_on_stop(
    process: subprocess.Popen[str], halt: StopRequest, *, only_hard: bool = False
) -> Iterator[None]:
    """Terminate a helper process when a stop is requested while the block waits for it.

    With `only_hard` a graceful stop does not: that is when checkpoints are uploaded.
    """

    def listener() -> None:
        if halt.hard or not only_hard:
            process.terminate()

    with halt.telling(listener):
        yield
    if halt.hard or not only_hard:
        halt.check()


class SignalInbox(Generic[Item]):
    """Signals and items, in the order in which they come.

    A Python handler runs in the main thread only between two of its instructions, so a thread that
    is about to block in a queue can sleep on with a signal pending. The interpreter's C handler
    writes each signal's number to a pipe at once, and a pipe does not forget.
    """

    def __init__(self, signals: Iterable[int]) -> None:
        self._items: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer)
        for number in signals:
            signal.signal(number, _noted)

    def put(self, item: Item) -> None:
        """From any thread."""
        self._items.put(item)
        try:
            os.write(self._writer, b"\0")
        except BlockingIOError:
            return  # full of wake-ups already

    def get(self, timeout: float | None = None) -> list[int | Item]:
        """All signals and items so far, after waiting for at least one; [] after the timeout."""
        ready, _, _ = select.select([self._reader], [], [], timeout)
        if not ready:
            return []
        found: list[int | Item] = [number for number in os.read(self._reader, 4096) if number]
        while True:
            try:
                found.append(self._items.get_nowait())
            except queue.Empty:
                return found


def _noted(number: int, frame: FrameType | None) -> None:
    """A handler has to be there for the interpreter to write to the pipe."""
    del number, frame
