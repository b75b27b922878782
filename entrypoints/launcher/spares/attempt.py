"""One beginning of a job on one node: a launcher process of its own, and how it ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from launcher import spares
from launcher.causes import Cause, cause_from_wire
from launcher.platforms import PLACE_VARIABLE, AttemptPlace
from launcher.ranks import kill_tree

PROGRAM = Path(spares.__file__).parents[1] / "__main__.py"
#: As much of a verdict as is taken; it is written in one piece.
VERDICT_BYTES = 1 << 16


@dataclass(frozen=True)
class AttemptEnd:
    """The exit code, and what the launcher below says that the job failed of."""

    restart: int
    code: int
    cause: Cause | None


class Attempt:
    """Starts at once; `ended` is called from a thread when nothing of it is left."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        place: AttemptPlace,
        ended: Callable[[AttemptEnd], None],
    ) -> None:
        reader, writer = os.pipe()
        place = replace(place, verdict_file=writer)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(PROGRAM), *command],
                env={**env, PLACE_VARIABLE: place.to_variable()},
                stdin=subprocess.DEVNULL,
                pass_fds=(writer,),
            )
        finally:
            os.close(writer)
        self._gone = threading.Event()
        self._thread = threading.Thread(
            target=self._wait, args=(reader, place.restart, ended), name="attempt", daemon=True
        )
        self._thread.start()

    def signal(self, number: int) -> None:
        """Pass a signal on; nobody gets it where it has ended."""
        if self._process.returncode is None:
            self._process.send_signal(number)

    def end_within(self, seconds: float) -> None:
        """It ends by itself, or is killed with all its ranks."""
        if self._gone.wait(seconds):
            return
        kill_tree(self._process.pid)
        self._process.kill()
        self._gone.wait()

    def _wait(self, reader: int, restart: int, ended: Callable[[AttemptEnd], None]) -> None:
        code = self._process.wait()
        self._gone.set()
        os.set_blocking(reader, False)
        cause = None
        try:
            text = os.read(reader, VERDICT_BYTES)
            wired = json.loads(text)["cause"] if text else None
            cause = cause_from_wire(wired) if wired else None
        except (BlockingIOError, ValueError):
            cause = None  # killed before it could say, or something else holds the pipe
        finally:
            os.close(reader)
        ended(AttemptEnd(restart, 128 - code if code < 0 else code, cause))
