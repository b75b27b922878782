"""The reason to stop before the end, shared by everything that waits."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from launcher.causes import Cause, CauseError


class HaltedError(CauseError):
    """Raised by a step that was cut short; carries the cause of the halt."""


class Halt:
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

    @contextmanager
    def telling(self, listener: Callable[[], None]) -> Iterator[None]:
        """Call `listener` on each request while the block runs; at once if one was made."""
        with self._lock:
            self._listeners.append(listener)
            requested = self.cause is not None
        try:
            if requested:
                listener()
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
            raise HaltedError(self.cause)


@contextmanager
def ending(
    process: subprocess.Popen[str], halt: Halt, *, only_hard: bool = False
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
