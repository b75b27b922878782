"""How long the pure work takes for a large matrix, and a `ship` that finds everything done.

    .venv/bin/python bench/matrix.py                 # 2,000 images over five axes
    .venv/bin/python bench/matrix.py --no-ship       # the pure part only

Medians of `--runs` runs, each in a process of its own, so that imports and memory count as they do
for a user; processor time tells what the machine's other work adds. Peak memory is the largest
resident set of any run. The matrix is the real one, every group of which varies over base,
platform, DeepSpeed and two more add-ons. The no-op `ship` needs one finished `./inv ship` before
it; where a command fails, or does not end, what it said is told.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from bench.startup import user_environment
from slipway.matrix import load_matrix

ROOT = Path(__file__).parents[1]

LIMIT = 300
"""Seconds after which a command counts as one that does not end."""


def enlarged(path: Path, count: int) -> None:
    """Write the real versions.yaml with five axes a group and at least `count` images."""
    yaml = YAML()
    data: Any = yaml.load((ROOT / "versions.yaml").read_text())
    for name in ("first", "second"):
        data["addons"][name] = {"version": "axis", "because": "the benchmark varies over it"}
    cells = count // len(load_matrix(ROOT / "versions.yaml").images) + 1
    for group in data["images"].values():
        side = math.isqrt(cells)
        group["axes"]["first"] = [f"1.0.{number}" for number in range(side)]
        others = range(math.ceil(cells / side) - 1)
        group["axes"]["second"] = ["none", *(f"2.{number}" for number in others)]
        more = "-a{first}-b{second}"
        group["name"] += more
        group["aliases"] = {alias + more: cells for alias, cells in group["aliases"].items()}
    data["default"] = "local-ds0.19.8-a1.0.0-bnone"
    with path.open("w") as stream:
        yaml.dump(data, stream)


@dataclass(frozen=True)
class Seconds:
    """What something took: on the clock, and of processors."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Seconds:
        """Both clocks of this process."""
        return cls(time.perf_counter(), time.process_time())

    def since(self, before: Seconds) -> Seconds:
        """What has passed."""
        return Seconds(self.wall - before.wall, self.cpu - before.cpu)

    @classmethod
    def median(cls, runs: Sequence[Seconds]) -> Seconds:
        """The middle of each."""
        walls, cpus = [run.wall for run in runs], [run.cpu for run in runs]
        return cls(statistics.median(walls), statistics.median(cpus))


def pure(versions: Path, count: int) -> dict[str, Seconds]:
    """Load, render and plan in this process."""
    started = Seconds.now()
    from datetime import date

    from slipway.core import Project
    from slipway.pipeline import Checkout
    from slipway.records import load_locks

    imported = Seconds.now()
    matrix = load_matrix(versions)
    loaded = Seconds.now()
    project = Project(ROOT, ROOT / ".slipway")
    checkout = Checkout(project, matrix, load_locks(project))
    images = matrix.images[:count]
    assert len(images) == count, f"only {len(images)} images"
    before = Seconds.now()
    for image in images:
        checkout.dockerfile(image)
    rendered = Seconds.now()
    checkout.plan(images, checkout.inputs(images), checkout.records(images), date(2026, 1, 1))
    return {
        "import": imported.since(started),
        f"load {len(matrix.images)} images": loaded.since(imported),
        f"render {count} images": rendered.since(before),
        f"plan {count} images (renders again)": Seconds.now().since(rendered),
    }


def child(arguments: list[str], root: Path = ROOT) -> tuple[Seconds, int, str]:
    """Seconds, peak resident bytes of the largest process, and stdout of a command.

    Exits with what the command said where it fails, or has not ended after `LIMIT` seconds. What it
    says goes to files: a daemon that it starts may keep a pipe open.
    """
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[2:], stdin=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "with open(sys.argv[1], 'w') as stream:\n"
        "    print(used.ru_maxrss * 1024, used.ru_utime + used.ru_stime, file=stream)\n"
        "sys.exit(done.returncode)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        usage, out, err = (Path(folder, name) for name in ("usage", "out", "err"))
        command = [sys.executable, "-c", code, str(usage), *arguments]
        with out.open("w") as stdout, err.open("w") as stderr:
            started = time.perf_counter()
            process = subprocess.Popen(
                command,
                stdout=stdout,
                stderr=stderr,
                cwd=root,
                env=user_environment(root),
                start_new_session=True,
            )
            try:
                code_of = process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
                code_of = None
            wall = time.perf_counter() - started
        if code_of != 0:
            how = f"exit code {code_of}" if code_of else f"no end after {LIMIT} s"
            sys.exit(f"{' '.join(arguments)}: {how}\n{err.read_text()[-2000:]}")
        peak, cpu = usage.read_text().split()
        return Seconds(wall, float(cpu)), int(peak), out.read_text()


def task_row(words: list[str], runs: int, root: Path = ROOT) -> tuple[Seconds, int]:
    """Median seconds and peak bytes of a task of Slipway in a checkout."""
    command = [sys.executable, "-m", "slipway.tasks.cli", "--search-root", str(root), *words]
    results = [child(command, root) for _ in range(runs)]
    seconds = Seconds.median([seconds for seconds, _, _ in results])
    return seconds, max(found for _, found, _ in results)


def large_checkout(folder: Path, versions: Path) -> Path:
    """A checkout with this versions.yaml, and all else as it is."""
    root = folder / "checkout"
    ignored = shutil.ignore_patterns(".git", ".venv", ".slipway", "*_cache", "__pycache__")
    shutil.copytree(ROOT, root, ignore=ignored)
    shutil.copy(versions, root / "versions.yaml")
    return root


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-ship", action="store_true")
    parser.add_argument("--pure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pure:
        parts = pure(options.pure, options.images)
        print(json.dumps({name: asdict(seconds) for name, seconds in parts.items()}))
        return

    rows: list[tuple[str, Seconds, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        versions = Path(folder) / "versions.yaml"
        enlarged(versions, options.images)
        command = [sys.executable, __file__, "--images", str(options.images)]
        results = [child([*command, "--pure", str(versions)]) for _ in range(options.runs)]
        timings = [
            {name: Seconds(**each) for name, each in json.loads(output).items()}
            for _, _, output in results
        ]
        peak = max(found for _, found, _ in results)
        rows += [(name, Seconds.median([t[name] for t in timings]), peak) for name in timings[0]]
        large = large_checkout(Path(folder), versions)
        count = next(name.split()[1] for name in timings[0] if name.startswith("load"))
        rows.append((f"inv plan, {count} images", *task_row(["plan"], options.runs, large)))
    rows.append(("inv plan", *task_row(["plan"], options.runs)))
    if not options.no_ship:
        rows.append(("inv ship, nothing to do", *task_row(["ship"], options.runs)))
    print(f"{'':42} {'seconds':>8} {'CPU s':>8} {'peak MB':>8}")
    for name, seconds, peak in rows:
        print(f"{name:42} {seconds.wall:8.3f} {seconds.cpu:8.3f} {peak / 1e6:8.0f}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
