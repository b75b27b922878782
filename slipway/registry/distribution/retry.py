"""When to try again: full-jitter exponential backoff, and one quiet time for each host."""

from __future__ import annotations

import email.utils
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how patiently a request is tried. Times are in seconds."""

    attempts: int = 7
    base: float = 0.5
    cap: float = 20.0
    obey: float = 120.0  # the longest Retry-After that is waited for

    def delay(
        self,
        failures: int,
        retry_after: float | None = None,
        *,
        rand: Callable[[], float] = random.random,
    ) -> float:
        """Seconds to wait after so many failures (1 or more).

        Full jitter spreads clients that were refused together ("Exponential Backoff And
        Jitter", AWS Architecture Blog). A Retry-After is a floor, never shortened by chance.
        """
        jitter = rand() * min(self.cap, self.base * 2.0 ** (failures - 1))
        if retry_after is None:
            return jitter
        return min(self.obey, retry_after + jitter)


def retry_after(header: str | None, *, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks for: a number or a date (RFC 9110, 10.2.3)."""
    if not header:
        return None
    header = header.strip()[:64]
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        date = email.utils.parsedate_to_datetime(header)
    except (ValueError, OverflowError, TypeError):  # TypeError: what Python 3.9 says
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - (now or datetime.now(timezone.utc))).total_seconds())


class HostPause:
    """One host's quiet time, shared by all threads that talk to it.

    When a host says "too many requests" to one of them, the others wait as well: that is what
    the host asked for. `down` remembers that the host could not be reached, so that the next of
    forty questions to it fails at once and not after its own minute of patience.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0.0
        self.down = False

    def hold(self, seconds: float) -> None:
        """Nobody talks to the host for so long."""
        with self._lock:
            self._until = max(self._until, time.monotonic() + seconds)

    def wait(self) -> None:
        """Until the host may be talked to."""
        pause = self._until - time.monotonic()
        if pause > 0:
            time.sleep(pause)


@cache
def host_pause(host: str) -> HostPause:
    """The one gate of a host in this process."""
    del host
    return HostPause()
