"""What a command costs before and around its work: wall and CPU seconds of some runs.

    python -m bench.startup [RUNS] [--ship]

One row a command, with the middle and the least of its runs: other work on the machine adds to a
run and takes nothing away. None changes anything, but for `ship`, which is measured on request: it
should find all done. The first run of each, which fills caches, is left out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMANDS = (
    ("--list",),
    ("--help", "ship"),
    ("--complete", "--", "inv", "ship", "pytorch-2.1"),
    ("matrix",),
    ("matrix.show", "local"),
    ("plan",),
    ("generate", "--check"),
    ("verify", "local", "--why"),
    ("engine.status",),
    ("registry.status",),
)


def user_environment(root: Path) -> dict[str, str]:
    """That of a user: Python keeps what it compiles, whatever this machine says."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(root)}


def measure(words: tuple[str, ...]) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    command = [sys.executable, "-m", "slipway.tasks.cli", "--search-root", str(ROOT), *words]
    before, started = os.times(), time.perf_counter()
    subprocess.run(
        command,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=user_environment(ROOT),
    )
    wall, after = time.perf_counter() - started, os.times()
    used = after.children_user - before.children_user
    return wall, used + after.children_system - before.children_system


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="?", type=int, default=5)
    parser.add_argument("--ship", action="store_true", help="also a ship, which should do nothing")
    options = parser.parse_args()
    print("| command | wall s | CPU s | least CPU s |\n|---|---|---|---|")
    for words in (*COMMANDS, *([("ship",)] if options.ship else [])):
        measure(words)
        times = [measure(words) for _ in range(options.runs)]
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        least = min(cpu for _, cpu in times)
        row = f"| `inv {' '.join(words)}` | {wall:.2f} | {cpu:.2f} | {least:.2f} |"
        print(row, flush=True)


if __name__ == "__main__":
    main()
