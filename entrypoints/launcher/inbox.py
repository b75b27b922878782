"""Where the main thread waits for signals and for messages of other threads, missing neither."""

from __future__ import annotations

import os
import queue
import select
import signal
from collections.abc import Iterable
from types import FrameType
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Inbox(Generic[Item]):
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
