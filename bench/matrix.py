"""How long the pure work takes for a large matrix, and a `ship` that finds everything done.

    .venv/bin/python bench/matrix.py                 # 2,000 images over five axes
    .venv/bin/python bench/matrix.py --no-ship       # the pure part only

Medians of `--runs` runs, each in a process of its own, so that imports and memory count as they do
for a user; peak memory is the largest resident set of any run. The matrix is the real one, every
group of which varies over base, platform, DeepSpeed and two more add-ons. The no-op `ship` needs
one finished `./inv ship` before it.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from slipway.matrix import load_matrix

ROOT = Path(__file__).parents[1]


def enlarged(path: Path, count: int) -> None:
    """Write the real versions.yaml with five axes a group and at least `count` images."""
    yaml = YAML()
    data: Any = yaml.load((ROOT / "versions.yaml").read_text())
    for name in ("first", "second"):
        data["addons"][name] = {"version": "axis", "because": "the benchmark varies over it"}
    cells = count // len(load_matrix(ROOT / "versions.yaml").images) + 1
    for group in data["images"].values():
        side = math.isqrt(cells) + 1
        group["axes"]["first"] = [f"1.0.{number}" for number in range(side)]
        group["axes"]["second"] = ["none", *(f"2.{number}" for number in range(side - 1))]
        more = "-a{first}-b{second}"
        group["name"] += more
        group["aliases"] = {alias + more: cells for alias, cells in group["aliases"].items()}
    data["default"] = "local-ds0.19.8-a1.0.0-bnone"
    with path.open("w") as stream:
        yaml.dump(data, stream)


def pure(versions: Path, count: int) -> dict[str, float]:
    """Load, render and plan in this process; seconds of each."""
    started = time.perf_counter()
    from datetime import date

    from slipway.core import Project
    from slipway.derive import render_dockerfile
    from slipway.pipeline import Checkout
    from slipway.records import load_locks

    imported = time.perf_counter()
    matrix = load_matrix(versions)
    loaded = time.perf_counter()
    project = Project(ROOT, ROOT / ".slipway")
    checkout = Checkout(project, matrix, load_locks(project))
    images = matrix.images[:count]
    assert len(images) == count, f"only {len(images)} images"
    tools = tuple(matrix.tools.values())
    before = time.perf_counter()
    for image in images:
        render_dockerfile(image, checkout.locks, tools, project.templates)
    rendered = time.perf_counter()
    checkout.plan(images, checkout.inputs(images), checkout.records(images), date(2026, 1, 1))
    planned = time.perf_counter()
    return {
        "import": imported - started,
        f"load {len(matrix.images)} images": loaded - imported,
        f"render {count} images": rendered - before,
        f"plan {count} images (renders again)": planned - rendered,
    }


def child(arguments: list[str]) -> tuple[float, int, str]:
    """Wall seconds, peak resident bytes of the largest process, and stdout of a command."""
    started = time.perf_counter()
    code = (
        "import resource, subprocess, sys\n"
        "quiet = dict(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)\n"
        "done = subprocess.run(sys.argv[1:], **quiet)\n"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024\n"
        "print(peak); print(done.stdout); sys.exit(done.returncode)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    peak, _, output = done.stdout.partition("\n")
    return time.perf_counter() - started, int(peak), output


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-ship", action="store_true")
    parser.add_argument("--pure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pure:
        print(json.dumps(pure(options.pure, options.images)))
        return

    rows: list[tuple[str, float, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        versions = Path(folder) / "versions.yaml"
        enlarged(versions, options.images)
        command = [sys.executable, __file__, "--images", str(options.images)]
        results = [child([*command, "--pure", str(versions)]) for _ in range(options.runs)]
        timings = [json.loads(output) for _, _, output in results]
        peak = max(found for _, found, _ in results)
        rows += [(name, statistics.median(t[name] for t in timings), peak) for name in timings[0]]
    for task in (["plan"], [] if options.no_ship else ["ship"]):
        if task:
            runs = [child([str(ROOT / "inv"), *task]) for _ in range(options.runs)]
            rows.append(
                (
                    f"./inv {' '.join(task)}" + (", nothing to do" if task == ["ship"] else ""),
                    statistics.median(seconds for seconds, _, _ in runs),
                    max(found for _, found, _ in runs),
                )
            )
    print(f"{'':42} {'seconds':>8} {'peak MB':>8}")
    for name, seconds, peak in rows:
        print(f"{name:42} {seconds:8.3f} {peak / 1e6:8.0f}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
