"""Noticing that nothing happens any more, and writing down where every rank stands."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

from launcher.causes import HANG, Cause
from launcher.ranks import rank_processes

GPU_QUERY = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used,memory.total"]
POLL_SECONDS = 1.0
#: For a rank to write its stacks and die.
DUMP_SECONDS = 5.0
#: Above this share of memory ZeRO-2 has been seen to hang until NCCL's timeout.
NEARLY_FULL = 0.97


def query_gpus() -> list[tuple[int, int, int]]:
    """(utilisation in %, memory used, memory total in MiB) of each GPU; [] without a driver."""
    try:
        done = subprocess.run(
            [*GPU_QUERY, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_gpus(done.stdout) if done.returncode == 0 else []


def parse_gpus(text: str) -> list[tuple[int, int, int]]:
    """The rows of nvidia-smi's CSV; a GPU that does not report counts as busy."""
    rows = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 3 and all(cell.isdecimal() for cell in cells):
            rows.append((int(cells[0]), int(cells[1]), int(cells[2])))
        elif line.strip():
            rows.append((100, 0, 1))
    return rows


def describe_hang(seconds: float, gpus: Sequence[tuple[int, int, int]]) -> str:
    """What the failure says about a hang."""
    text = f"no rank has written anything for {seconds:g} s"
    if not gpus:
        return text
    text += ", and all GPUs are idle"
    if any(used > NEARLY_FULL * total for _, used, total in gpus):
        text += "; GPU memory is nearly full, where ZeRO-2 is known to hang: try ZeRO-3"
    return text


class HangWatch:
    """Calls `report` once when the ranks are silent for `seconds` while every GPU is idle."""

    def __init__(
        self, seconds: float, quiet_since: Callable[[], float], report: Callable[[Cause], None]
    ) -> None:
        self._seconds = seconds
        self._quiet_since = quiet_since
        self._report = report
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hang", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            if time.monotonic() - self._quiet_since() < self._seconds:
                continue
            gpus = query_gpus()
            if all(utilisation == 0 for utilisation, _, _ in gpus):
                message = describe_hang(self._seconds, gpus)
                self._report(Cause("Hang", message, HANG))
                return


def dump_stacks(pids: Sequence[int]) -> str:
    """Make every rank show its Python stacks: by py-spy where there is one, else by SIGABRT.

    faulthandler (PYTHONFAULTHANDLER, which the launcher sets when it watches for hangs) answers
    SIGABRT by writing all threads' stacks to the rank's log.
    """
    if not shutil.which("py-spy"):
        rank_processes.send_signal(pids, signal.SIGABRT)
        # A SIGTERM that came now would cut the writing short.
        deadline = time.monotonic() + DUMP_SECONDS
        while rank_processes.send_signal(pids, 0) and time.monotonic() < deadline:
            time.sleep(0.05)
        return ""
    texts = []
    for pid in pids:
        done = subprocess.run(
            ["py-spy", "dump", "--pid", str(pid)], capture_output=True, text=True, check=False
        )
        texts.append(done.stdout or done.stderr)
    return "\n".join(texts)
