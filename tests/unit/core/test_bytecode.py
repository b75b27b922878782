"""What Python compiles is not left torn where there is no room for it."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import slipway

ROOT = Path(slipway.__file__).parent


def test_a_run_that_cannot_write_whole_files_breaks_none_of_the_next(tmp_path: Path) -> None:
    copy = tmp_path / "slipway"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", "import slipway.core.trees, slipway.matrix.load; print('on')"]

    def run(longest: int) -> str:
        return subprocess.run(
            command,
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path)},
            check=True,
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (longest, longest)),
        ).stdout

    compiled = copy / "core" / "__pycache__"
    assert run(6000) == "on\n"  # the modules' compiled forms are longer, this package's is shorter
    assert not list(compiled.glob("trees*"))
    assert run(resource.RLIM_INFINITY) == "on\n"
    assert list(compiled.glob("trees*"))
