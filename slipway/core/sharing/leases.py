"""Leases: the right to make a thing, as a file on a shared folder that its holder keeps touching.

    FOLDER/NAME.00001       the first holder's; says who that is
    FOLDER/NAME.00002       of one that took over: the highest number holds the lease

A file appears by link(2), whole, and only where its number is free, so that of two takers one has
it. Whether a holder lives is judged by the one who looks, with its own clock: a lease whose file
has not been touched for `patience` seconds, as seen from here, is of a dead holder. A holder that
only slept finds a higher number than its own and knows that it has lost.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from slipway.core.errors import SlipwayError

LEASE_S = 60.0
"""Seconds after which an untouched lease may be taken over; holders touch theirs six times as
often."""

_BEATS = 6
_NUMBERED = re.compile(r"(?P<name>.+)\.(?P<number>\d{5})")


class Lease:
    """A lease that this process holds; `release`, or the end of a `with` block, gives it up.

    `number` is 1, and one more for each holder before that died.
    """

    def __init__(self, folder: Path, name: str, number: int, patience: float) -> None:
        self.name, self.number = name, number
        self.path = _numbered(folder, name, number)
        self._folder, self._patience = folder, patience
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._on_loss: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._beat, name=f"lease {name}", daemon=True)
        self._thread.start()

    @property
    def is_lost(self) -> bool:
        """Whether another one has taken over, having thought this process dead."""
        if not self._lost.is_set() and not self._ended.is_set() and not self._holds():
            self._lost.set()
        return self._lost.is_set()

    def call_on_loss(self, act: Callable[[], None]) -> None:
        """Have `act` called, in a thread, when the lease turns out to be lost."""
        self._on_loss = act

    def release(self) -> None:
        """Give it up; what other holders of it left behind goes, too."""
        self._ended.set()
        self._thread.join()
        for number in sorted(_numbers(self._folder, self.name)):
            if number <= self.number:
                _numbered(self._folder, self.name, number).unlink(missing_ok=True)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _holds(self) -> bool:
        return max(_numbers(self._folder, self.name), default=0) == self.number

    def _beat(self) -> None:
        while not self._ended.wait(self._patience / _BEATS):
            try:
                os.utime(self.path)
                holds = self._holds()
            except FileNotFoundError:
                holds = False
            except OSError:
                continue  # a shared folder may be away for a moment; others see the same
            if not holds:
                self._lost.set()
                if self._on_loss is not None:
                    self._on_loss()
                return


class LeaseFolder:
    """The leases of one folder, as this process sees and takes them.

    `who` is what a lease says of its holder (default: host and process).
    """

    def __init__(self, folder: Path, patience: float = LEASE_S, who: str = "") -> None:
        self.folder, self.patience = folder, patience
        self._who = who or f"{socket.gethostname()}, process {os.getpid()}"
        self._seen: dict[Path, tuple[int, float]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SlipwayError(
                f"leases cannot be kept there: {error.strerror}",
                where=str(folder),
                cure="It is a folder that all machines of the run can write.",
            ) from error

    def take(self, name: str) -> Lease | None:
        """The lease, where it is free or its holder is dead; None where somebody holds it.

        Whoever takes one looks again afterwards whether the thing has been made meanwhile.
        """
        number = max(_numbers(self.folder, name), default=0)
        if number and self._is_alive(_numbered(self.folder, name, number)):
            return None
        own = _numbered(self.folder, name, number + 1)
        if not _create(own, self._who):
            return None
        if number and not _numbered(self.folder, name, number).exists():
            # Its holder gave it up just now, and somebody else may have begun anew below us.
            own.unlink(missing_ok=True)
            return None
        return Lease(self.folder, name, number + 1, self.patience)

    def holder(self, name: str) -> str:
        """Who holds it, for a person: `n1, process 71`; "" where nobody does."""
        number = max(_numbers(self.folder, name), default=0)
        try:
            return _numbered(self.folder, name, number).read_text().strip()
        except OSError:
            return ""

    def _is_alive(self, path: Path) -> bool:
        """Whether it has been touched lately. The first look at a lease says nothing yet."""
        try:
            # An open file's attributes are the server's, not those that this machine has cached.
            with path.open("rb") as stream:
                touched = os.fstat(stream.fileno()).st_mtime_ns
        except FileNotFoundError:
            return True  # given up just now: free at the next look
        now = time.monotonic()
        before = self._seen.get(path)
        if before is None or before[0] != touched:
            self._seen[path] = (touched, now)
            return True
        return now - before[1] < self.patience


def _numbered(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}.{number:05}"


def _numbers(folder: Path, name: str) -> list[int]:
    found = []
    for entry in folder.iterdir():
        match = _NUMBERED.fullmatch(entry.name)
        if match is not None and match["name"] == name:
            found.append(int(match["number"]))
    return found


def _create(path: Path, text: str) -> bool:
    """Make the file, whole, unless it is there."""
    whole = path.with_name(f".{path.name}.{os.urandom(16).hex()}")
    try:
        whole.write_text(f"{text}\n")
        with contextlib.suppress(FileExistsError):
            os.link(whole, path)
        # An NFS server's answer to link(2) may be lost on the way; the count of links is not.
        return whole.stat().st_nlink == 2
    finally:
        whole.unlink(missing_ok=True)
