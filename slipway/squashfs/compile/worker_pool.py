"""Packing on all cores: worker processes, each with a thread here that feeds it."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import IO

from slipway.core import cpu_count, public_environment
from slipway.squashfs.compile.pack_job import (
    PackedPart,
    PackFailure,
    PackJob,
    receive_message,
    send_message,
)
from slipway.squashfs.format import CacheError, LayerError

_PACKAGE_PARENT = Path(__file__).resolve().parents[3]


class PackPool:
    """Runs jobs in `size` processes, started at the first job. A context manager.

    Leaving it in peace waits for what is running; leaving it with an exception ends the processes.
    """

    def __init__(self, size: int | None = None) -> None:
        self._size = size or cpu_count()
        self._jobs: queue.SimpleQueue[tuple[PackJob, Future[PackedPart]] | None] = (
            queue.SimpleQueue()
        )
        self._threads: list[threading.Thread] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> PackPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            for process in self._processes:
                process.kill()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def submit(
        self, job: PackJob, on_done: Callable[[Future[PackedPart]], None]
    ) -> Future[PackedPart]:
        """Queue a job. The future's exception is a SlipwayError or, if killed, a CacheError."""
        future: Future[PackedPart] = Future()
        future.add_done_callback(on_done)
        self._jobs.put((job, future))
        if len(self._threads) < self._size:
            process = self._start()
            self._processes.append(process)
            thread = threading.Thread(target=self._serve, args=(process,), daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def _start(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, [str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH")]))
        return subprocess.Popen(
            [sys.executable, "-m", "slipway.squashfs.compile.pack_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**public_environment(os.environ), "PYTHONPATH": path},
            start_new_session=True,  # a Ctrl-C is the parent's to handle
        )

    def _serve(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with process:
                self._feed(process, process.stdin, process.stdout)
        except BrokenPipeError:
            # Closing its pipe sends what is left of a job that it was ended with. That job has
            # its error already.
            process.wait()

    def _feed(self, process: subprocess.Popen[bytes], jobs: IO[bytes], done: IO[bytes]) -> None:
        while (item := self._jobs.get()) is not None:
            job, future = item
            try:
                send_message(jobs, job)
                result = receive_message(done)
                if not isinstance(result, PackedPart):
                    raise _error(result, process, job)
                future.set_result(result)
            except OSError:  # its end of the pipe is closed
                future.set_exception(_error(None, process, job))
            except BaseException as error:  # noqa: BLE001 - for whoever waits for the future
                future.set_exception(error)


def _error(failed: PackFailure | None, process: subprocess.Popen[bytes], job: PackJob) -> Exception:
    if failed is None:
        return CacheError(
            f"a packing process ended early (exit {process.poll()})", where=str(job.output)
        )
    if failed.code:
        return CacheError(f"packing a layer failed: {failed.what}", where=failed.where)
    return LayerError(failed.what, where=failed.where, cure=failed.cure)
