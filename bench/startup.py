"""What a command costs before and around its work: wall and CPU seconds, the middle of some runs.

    python -m bench.startup [RUNS]

One row a command. None changes anything; the first run of each, which fills caches, is left out.
"""

from __future__ import annotations

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


def measure(words: tuple[str, ...]) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    command = [sys.executable, "-m", "slipway.tasks.cli", "--search-root", str(ROOT), *words]
    before, started = os.times(), time.perf_counter()
    subprocess.run(
        command,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    wall, after = time.perf_counter() - started, os.times()
    used = after.children_user - before.children_user
    return wall, used + after.children_system - before.children_system


def main() -> None:
    """Print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print("| command | wall s | CPU s |\n|---|---|---|")
    for words in COMMANDS:
        measure(words)
        times = [measure(words) for _ in range(runs)]
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"| `inv {' '.join(words)}` | {wall:.2f} | {cpu:.2f} |", flush=True)


if __name__ == "__main__":
    main()
