"""What the driver says of this node's GPUs, in one question to nvidia-smi."""

from __future__ import annotations

import subprocess

QUERY = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used,memory.total"]


def query_gpus() -> list[tuple[int, int, int]]:
    """(utilisation in %, memory used, memory total in MiB) of each GPU; [] without a driver."""
    try:
        answer = subprocess.run(
            [*QUERY, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_gpus(answer.stdout) if answer.returncode == 0 else []


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
