"""What the launcher costs: seconds until ranks run, and CPU and memory while they do.

    ./inv build                                      # the default image, with this launcher
    .venv/bin/python -m bench.launcher_startup       # root; two minutes on a quiet machine
    .venv/bin/python -m bench.launcher_startup --engine unix:///var/run/docker.sock --image REF

Containers of one image, `launch local` and torchrun alone in turns. "start" is from the call that
starts the container to the first line of the last rank's script, by this machine's clock; the
script imports nothing, so that is when ranks have started. At rest ranks print a line a second.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from docker.models.containers import Container

from slipway.core import Project, SlipwayError
from slipway.engine import Engine, connect, daemon_status, stop_daemon
from slipway.matrix import load_matrix
from slipway.records import load_record

ROOT = Path(__file__).parents[1]
#: Whole lines by one call each: torchrun's ranks share one stdout.
SCRIPT = """\
import os, sys, time
os.write(1, f"started {os.environ['RANK']} {time.time()}\\n".encode())
for second in range(int(sys.argv[1])):
    time.sleep(1)
    os.write(1, f"step {second}\\n".encode())
"""
STARTED = re.compile(r"started \d+ ([\d.]+)")
EVENT = re.compile(r'"t": ([\d.]+).*"event": "ranks"')
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Rest:
    """One process over a while: its share of a core, and its memory, shared pages by share."""

    name: str
    cpu: float
    pss: int


class Stage:
    """An image, and a directory with the script that its containers run."""

    def __init__(self, engine: Engine, image: str, folder: Path, ranks: int) -> None:
        self._engine, self._image, self._folder, self._ranks = engine, image, folder, ranks
        (folder / "script.py").write_text(SCRIPT)

    def command(self, way: str, seconds: int) -> list[str]:
        """What the container is told to run."""
        if way == "launch local":
            return ["launch", "local", f"--nproc={self._ranks}", "--", "/b/script.py", str(seconds)]
        torchrun = ["torchrun", f"--nproc_per_node={self._ranks}", "--master_port=29571"]
        return [*torchrun, "/b/script.py", str(seconds)]

    @contextmanager
    def container(self, way: str, seconds: int) -> Iterator[Container]:
        """One that is made but not started."""
        made = self._engine.client.containers.create(
            self._image,
            self.command(way, seconds),
            network_mode="host",
            volumes={str(self._folder): {"bind": "/b", "mode": "ro"}},
        )
        try:
            yield made
        finally:
            made.remove(force=True)

    def start(self, way: str) -> tuple[float, float]:
        """Seconds to the last rank's first line, and of these the launcher's own until torchrun."""
        with self.container(way, 0) as made:
            began = time.time()
            made.start()
            code = made.wait(timeout=120)["StatusCode"]
            text = made.logs().decode()
        times = [float(match[1]) for match in STARTED.finditer(text)]
        if code != 0 or len(times) != self._ranks:
            sys.exit(f"{way} ended with {code}:\n{text}")
        own = EVENT.search(text)
        return max(times) - began, float(own[1]) - began if own else 0.0

    def rest(self, way: str, seconds: int) -> list[Rest]:
        """PID 1 and what it has started, but the ranks, while these run."""
        with self.container(way, seconds + 20) as made:
            made.start()
            until = time.monotonic() + 60
            while made.logs().count(b"step 2") < self._ranks:
                if time.monotonic() > until:
                    sys.exit(f"{way}: ranks do not run:\n{made.logs().decode()}")
                time.sleep(0.5)
            made.reload()
            names = dict(chain(made.attrs["State"]["Pid"]))
            before = {pid: ticks(pid) for pid in names}
            began = time.monotonic()
            time.sleep(seconds)
            spent = {pid: ticks(pid) - before[pid] for pid in names}
            while_ = time.monotonic() - began
            return [Rest(names[pid], spent[pid] / TICKS / while_, pss(pid)) for pid in names]


def chain(pid: int) -> list[tuple[int, str]]:
    """A process and its descendants, as long as each has one child: ranks are several."""
    found = [(pid, title(pid))]
    while True:
        # A child belongs to the thread that started it.
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
        below = [child for text in lists for child in text.split()]
        if len(below) != 1:
            return found
        pid = int(below[0])
        found.append((pid, title(pid)))


def title(pid: int) -> str:
    """What a process is, by the last part of its program's path."""
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    script = next((word for word in words[1:] if not word.startswith("-")), words[0])
    return "/".join(Path(script).parts[-2:])


def ticks(pid: int) -> int:
    """CPU time so far, in clock ticks (proc(5), utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def pss(pid: int) -> int:
    """Bytes of memory, pages that several processes share counted by share (proc(5))."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None, "smaps_rollup has a line Pss"
    return int(found[1]) * 1024


def default_image(project: Project) -> str:
    """The default image as it was last built."""
    name = load_matrix(project.versions).default_image
    built = load_record(project, name).built
    if built is None:
        sys.exit(f"{name} is not built: ./inv build")
    return built.reference


def table(stage: Stage, rounds: int, seconds: int) -> None:
    """Measure, and print both tables."""
    ways = ("torchrun", "launch local")
    times: dict[str, list[float]] = {way: [] for way in ways}
    own: list[float] = []
    for number in range(-1, rounds):  # the first pair fills the page cache
        for way in ways if number % 2 else reversed(ways):
            total, before = stage.start(way)
            if number >= 0:
                times[way].append(total)
                own += [before] if before else []
    print(f"{'start, s':44} {'median':>8} {'least':>8} {'most':>8}")
    for way in ways:
        print(f"{way:44} {_three(times[way])}")
    print(f"{'launch local, until it starts torchrun':44} {_three(own)}")
    pairs = [ours - bare for bare, ours in zip(*(times[way] for way in ways), strict=True)]
    print(f"{'launch local - torchrun, by pairs':44} {_three(pairs)}")
    print(f"\n{'at rest':44} {'CPU %':>8} {'PSS MB':>8}")
    for way in ways:
        for one in stage.rest(way, seconds):
            print(f"{f'{way}: {one.name}':44} {100 * one.cpu:8.2f} {one.pss / 1e6:8.1f}")


def _three(values: Sequence[float]) -> str:
    return f"{statistics.median(values):8.2f} {min(values):8.2f} {max(values):8.2f}"


def main() -> None:
    """Start an engine if need be, and measure."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--engine", default="embedded", help="embedded, or a daemon's URL")
    parser.add_argument("--image", help="default: the default image, as it was last built")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--rest", type=int, default=20, help="seconds to watch processes at rest")
    options = parser.parse_args()
    project = Project.at(ROOT)
    ran = daemon_status(project).running
    try:
        engine = connect(project, options.engine)
        try:
            image = options.image or default_image(project)
            with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder:
                stage = Stage(engine, image, Path(folder), options.ranks)
                print(f"{image}, {options.ranks} ranks, {options.rounds} rounds of each\n")
                table(stage, options.rounds, options.rest)
        finally:
            engine.close()
            if engine.embedded and not ran:
                stop_daemon(project)
    except SlipwayError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
