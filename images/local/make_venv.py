"""Runs in the build of the local base: /opt/venv with exactly the wheels beside this file.

    python3 make_venv.py /opt/venv

Stdlib only. The wheels are in wheels/, their hashes in requirements.txt.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent

TORCH_TESTS = ("torch/test/", "torch/bin/test_")
"""PyTorch's own C++ test programs: 125 MB that nothing imports and no wheel should carry."""


def install(python: Path) -> None:
    """The locked wheels, without an index."""
    command = [str(python), "-m", "pip", "install", "--no-index", "--no-deps", "--require-hashes"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--root-user-action=ignore"]
    command += ["--find-links", str(HERE / "wheels"), "-r", str(HERE / "requirements.txt")]
    subprocess.run(command, check=True)


def drop_tests(site: Path) -> None:
    """Remove torch's test programs and their lines in RECORD, so that pip still sees it whole."""
    for record in site.glob("torch-*.dist-info/RECORD"):
        rows = list(csv.reader(record.read_text("utf-8").splitlines()))
        kept = [row for row in rows if not row[0].startswith(TORCH_TESTS)]
        for row in rows:
            if row not in kept:
                (site / row[0]).unlink(missing_ok=True)
        with record.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerows(kept)
    shutil.rmtree(site / "torch" / "test", ignore_errors=True)


def main() -> None:
    """Make the environment, install, trim, and see that torch loads."""
    folder = Path(sys.argv[1])
    venv.EnvBuilder(with_pip=True, symlinks=True).create(folder)
    python = folder / "bin" / "python"
    install(python)
    site = next(folder.glob("lib/python3*/site-packages"))
    drop_tests(site)
    subprocess.run([str(python), "-m", "pip", "check"], check=True)
    subprocess.run(
        [str(python), "-c", "import torch; print('torch', torch.__version__)"], check=True
    )


if __name__ == "__main__":
    main()
