"""The script that compiles FusedAdam's kernel in an image, with stand-ins for all that it uses.

The real nvcc 13.0, torch 2.11 and DeepSpeed 0.19.8 were tried by hand: docs/checks.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.verify_images import NVCC, NVCC_WITHOUT_HEADERS, OPERATORS
from tests.support.verify_rootfs import SITE

SCRIPT = Path(__file__).parents[3] / "slipway" / "verify" / "inside" / "fused_adam.py"
BROKEN = NVCC + b'case "$*" in *" -c "*) echo "error: no kernel" >&2; exit 2 ;; esac\n'


@pytest.mark.parametrize(
    ("nvcc", "missing", "output"),
    [
        (NVCC, [], ""),
        (NVCC_WITHOUT_HEADERS, ["cusparse.h", "cublas/v2.h"], ""),
        (BROKEN, [], "error: no kernel"),
    ],
)
def test_what_lacks_is_named_and_what_the_compiler_says_is_kept(
    tmp_path: Path, nvcc: bytes, missing: list[str], output: str
) -> None:
    program = tmp_path / "cuda" / "bin" / "nvcc"
    files = {
        program: nvcc,
        **{tmp_path / path.removeprefix(f"{SITE}/"): data for path, data in OPERATORS.items()},
    }
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    program.chmod(0o755)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "cuda")],
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    assert told["missing"] == missing
    assert output in told["output"]
    assert bool(told["output"]) == bool(output)
