"""Run the launcher and the examples on the GPUs of this machine, from the checkout.

    python bench/gpu/run.py --gpus 4 --out DIR
    python bench/gpu/run.py --gpus 4 --out DIR --only allreduce,kill9
    python bench/gpu/run.py --gpus 2 --out DIR --device cpu      # gloo, tiny sizes: tries the bench

Prints a table for each part, writes DIR/gpu-N.json (all figures) and DIR/gpu-N.log (all output),
and exits with 1 when any part has failed. See README.md beside this file.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "entrypoints")]

from bench.gpu.main import main  # noqa: E402 - found through the path above

if __name__ == "__main__":
    sys.exit(main(__doc__))
