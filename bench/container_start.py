"""Seconds until a container works: `python -m bench.container_start FILE... [--rounds 3]`.

Each FILE (.sqsh) is started by the `enroot` of PATH, with a launch of a script that imports torch:

file      `enroot start FILE`: mounted, not unpacked
unpacked  `enroot create`, then `enroot start`, then `enroot remove`; seconds count from `create`

Seconds from the beginning to the launcher's first line, to the script's, and to the end of its
`import torch`; medians, with the most of the first. Before each start nothing of the file is in
memory. Ways and files alternate. Needs enroot itself (no package registry has it), squashfuse, and
an image of Slipway in the files; a root who may not keep his rights in containers will do.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

NAME = "bench-container-start"
SCRIPT = "print('script', flush=True)\nimport torch\nprint('torch', flush=True)\n"
LAUNCH = ["/opt/entrypoints/launch", "local", "--preflight", "off", "--runner", "python"]
WAYS = ("file", "unpacked")


@dataclass(frozen=True)
class Start:
    """Seconds from the beginning of one start to what it printed."""

    launcher: float
    script: float
    torch: float


def forget(path: Path) -> None:
    """Nothing of the file stays in memory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def start(file: Path, way: str, folder: Path) -> Start:
    forget(file)
    begun = time.perf_counter()
    target = str(file)
    if way == "unpacked":
        target = NAME
        command = ["enroot", "create", "--force", "--name", NAME, str(file)]
        subprocess.run(command, check=True, capture_output=True)
    mount = f"{folder}:/bench:none:x-create=dir,bind"
    command = ["enroot", "start", "--rw", "--mount", mount, target, *LAUNCH, "--", "/bench/x.py"]
    seen: dict[str, float] = {}
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            lines.append(line)
            mark = "launcher" if line.startswith("launch: ") else line.rpartition(" ")[2].strip()
            seen.setdefault(mark, time.perf_counter() - begun)
    if way == "unpacked":
        subprocess.run(["enroot", "remove", "--force", NAME], check=True, capture_output=True)
    if run.returncode or not {"launcher", "script", "torch"} <= seen.keys():
        raise SystemExit(f"{' '.join(command)} ended with {run.returncode}:\n{''.join(lines)}")
    return Start(seen["launcher"], seen["script"], seen["torch"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("files", nargs="+", type=Path)
    given = parser.parse_args()
    cases = [(file, way) for way in given.ways.split(",") for file in given.files]
    made: dict[tuple[Path, str], list[Start]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "x.py").write_text(SCRIPT)
        for number in range(given.rounds):
            for case in cases if number % 2 == 0 else reversed(cases):
                made[case].append(start(case[0], case[1], folder))
                load = os.getloadavg()[0]
                print(f"{case[0].name} {case[1]}: {made[case][-1]}, load {load:.1f}", flush=True)
    print("| start | GB | launcher's first line (most) | script | `import torch` |")
    print("|---|---|---|---|---|")
    for file, way in cases:
        starts = made[file, way]
        first, script, torch = (
            statistics.median(getattr(one, field) for one in starts)
            for field in ("launcher", "script", "torch")
        )
        most = max(one.launcher for one in starts)
        size = file.stat().st_size / 1e9
        print(f"| {way} | {size:.2f} | {first:.1f} ({most:.1f}) | {script:.1f} | {torch:.1f} |")


if __name__ == "__main__":
    main()
