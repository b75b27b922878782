"""`launch sagemaker` against the real sagemaker-training, over many generated configurations.

    python -m bench.toolkit_differential PYTHON [COUNT]

PYTHON has sagemaker-training 5.1.4 (pip install sagemaker-training==5.1.4 into a venv of its own).
Prints each configuration that differs, then one line with the count.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.support.launcher.toolkit_differential import (
    KNOWN_DIFFERENCES,
    differential,
    generate_config,
)


def main(python: str, count: int = 200) -> int:
    """0 when no configuration differs but as listed."""
    different = 0
    with (
        tempfile.TemporaryDirectory(prefix="differential-") as root,
        differential(Path(root), Path(python)) as both,
    ):
        for seed in range(count):
            config = generate_config(seed)
            lines = both.compare(config)
            different += bool(lines)
            for line in lines:
                print(f"{config.name} ({config.script}): {line}", flush=True)
    for name, why in KNOWN_DIFFERENCES.items():
        print(f"known: {name}: {why}")
    print(f"{count} configurations, {different} differ in other ways")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:3])))
