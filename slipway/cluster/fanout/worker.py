"""A worker: takes images that nobody has, ships each, and publishes what became of it.

There is no queue and no master. Whoever is free takes the next image by a lease; an image of a
dead worker is taken over when its lease is not touched any more.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from slipway.cluster.fanout.fanout_plan import PlannedImage
from slipway.cluster.fanout.image_results import ImageResult, result_of_ship
from slipway.cluster.fanout.run_folder import RunFolder
from slipway.core import INTERRUPTED, TERMINATED, Lease, LeaseFolder, say, wait_until

MOST_ATTEMPTS = 3
"""An image that killed so many workers is given up."""

_POLL_S = 2.0
_GRACE_S = 30.0
_TOLD_TO_STOP = (INTERRUPTED, TERMINATED, -signal.SIGINT, -signal.SIGTERM)


class FanoutWorker:
    """One worker of a run. `root` is its checkout; `number` spreads workers over bases."""

    def __init__(self, run: RunFolder, root: Path, name: str, number: int, patience: float) -> None:
        self.run, self.root, self.name, self.number = run, root, name, number
        self._leases = LeaseFolder(run.leases, patience, name)
        self._bases: set[str] = set()
        self._interrupted: Counter[str] = Counter()

    def work(self) -> int:
        """Until every image has a result; how many of those that came from here are failures."""
        failures = 0
        while todo := self.run.images_left():
            for image in self._order(todo):
                lease = self._leases.take(image.name)
                if lease is None:
                    continue
                with lease:
                    if not self.run.has_result(image):
                        failures += self._ship(image, lease)
                break
            else:
                time.sleep(_POLL_S)
        return failures

    def _order(self, todo: Sequence[PlannedImage]) -> Iterator[PlannedImage]:
        """First what has layers that this machine has; then bases that nobody works on.

        Each worker begins elsewhere, so that not all try for the same lease.
        """
        bases = {image.name: image.base for image in self.run.plan.images}
        leased = {path.name.rpartition(".")[0] for path in self.run.leases.iterdir()}
        busy = {bases[name] for name in leased if name in bases}
        start = self.number % len(todo)
        yield from sorted(
            (*todo[start:], *todo[:start]),
            key=lambda image: (
                image.name in leased,
                image.base not in self._bases,
                image.base in busy,
            ),
        )

    def _ship(self, image: PlannedImage, lease: Lease) -> bool:
        """Whether it failed."""
        if lease.number > MOST_ATTEMPTS:
            text = f"{MOST_ATTEMPTS} workers died while they made it; logs: {self.run.logs}"
            result = ImageResult(
                image.name, image.base, image.build_id, text, self.name, lease.number - 1
            )
        else:
            say(f"{image.name}: {self.name} begins (attempt {lease.number})")
            made = self._run_ship(image, lease)
            if made is None:
                return False
            result = made
        self._bases.add(image.base)
        if not self.run.publish(result):
            say(f"{image.name}: another worker's result stands already")
            return False
        say(f"{image.name}: {'shipped' if result.ok else 'FAILED'} in {result.seconds:.1f} s")
        return not result.ok

    def _run_ship(self, image: PlannedImage, lease: Lease) -> ImageResult | None:
        """None where the lease was lost meanwhile, or the ship was told to stop: the image is for
        another one then.
        """
        command = [str(self.root / "inv"), "ship", image.name, "--json", *self.run.plan.ship]
        if "--no-sqsh" not in command:
            command += ["--output", str(self.run.path / "sqsh")]
        log = self.run.logs / f"{image.name}.log"
        started, before = time.monotonic(), _children_cpu()
        with log.open("a+") as errors:
            errors.write(f"--- {self.name}, attempt {lease.number}: {' '.join(command)}\n")
            errors.flush()
            start = errors.tell()
            with subprocess.Popen(
                command,
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            ) as process:
                lease.call_on_loss(lambda: end_group(process))
                try:
                    output, _ = process.communicate()
                finally:
                    end_group(process)
            if lease.is_lost:
                say(f"{image.name}: its lease was lost, and with it the image")
                return None
            if process.returncode in _TOLD_TO_STOP:
                # What ends a task of Slurm's ends this process beside us, and us in a moment.
                self._interrupted[image.name] += 1
                if self._interrupted[image.name] < MOST_ATTEMPTS:
                    return None
            errors.seek(start)
            told = errors.read()
        return result_of_ship(
            image,
            process.returncode,
            output,
            told,
            worker=self.name,
            attempt=lease.number,
            seconds=time.monotonic() - started,
            cpu_seconds=_children_cpu() - before,
        )


def end_group(process: subprocess.Popen[str]) -> None:
    """End a process with all that it has started, where it has not ended by itself."""
    if process.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        if wait_until(lambda: process.poll() is not None, _GRACE_S):
            return


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
