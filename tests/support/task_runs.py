"""`inv` in a folder of its own, with Slurm's programs as lines of sh and AWS as moto plays it here.

For tests of what goes wrong: each task is run as a user runs it, and what it tells is judged.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest

from slipway import __version__
from slipway.tasks.cli import InvProgram
from tests.support.aws_control_plane import REGION, ControlPlane

ROOT = Path(__file__).parents[2]
SLURM = ("sbatch", "squeue", "scontrol", "sinfo", "scancel", "sacct", "srun", "salloc", "sbcast")

MOST_LINES = 8  # of a paragraph, with what was said before it


class Here:
    """A folder to work in, and `inv` in it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys, self.out = folder, capsys, ""

    def inv(self, *words: str) -> tuple[int, str]:
        """The exit code, and what was told."""
        program = InvProgram(name="Slipway", binary="inv", version=__version__)
        argv = ["inv", "--search-root", str(ROOT), *words]
        sys.argv = argv  # what stands behind -- is read there
        code: Any = 0
        try:
            program.run(argv)
        except SystemExit as end:
            code = end.code
        told = self.capsys.readouterr()
        self.out = told.out
        return int(code or 0), told.err

    def refused(self, *words: str, code: int = 1) -> str:
        """What is told by a task that must fail; with a cure, and no traceback."""
        left = self.files()
        ended, told = self.inv(*words)
        assert ended == code, told
        assert "Traceback" not in told
        (begin,) = [match.start() for match in re.finditer(r"^inv [a-z.]+: ", told, re.MULTILINE)]
        text = told[begin:]
        assert 2 <= len(text.splitlines()) <= MOST_LINES, text
        assert self.files() == left
        return " ".join(told.split())

    def files(self) -> set[str]:
        """All that is in the folder; nothing may be half-made."""
        return {str(path) for path in self.folder.rglob("*") if "state" not in path.parts}


class Slurm:
    """Slurm's programs, each a line of sh. `submitted` is there where a job was."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.submitted = folder / "submitted"

    def program(self, name: str, text: str) -> None:
        (self.folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.folder / name).chmod(0o755)


class Account:
    """The tasks' AWS account, with what is made in it."""

    def __init__(self, here: Here, plane: ControlPlane) -> None:
        self.here, self.plane = here, plane

    def refused(
        self, words: tuple[str, ...], *refusals: tuple[str, str, str], code: int = 1
    ) -> str:
        """What is told where calls are refused: (call, code, text)."""
        for call, kind, text in refusals:
            self.plane.refusals.setdefault(call, []).append((kind, text))
        return self.here.refused(*words, code=code)

    def made(self) -> list[str]:
        """What costs money, or would be in the way of the next run."""
        client = boto3.client("sagemaker", region_name=REGION)
        jobs = client.list_training_jobs()["TrainingJobSummaries"]
        endpoints = client.list_endpoints()["Endpoints"]
        return [
            *(job["TrainingJobName"] for job in jobs),
            *(endpoint["EndpointName"] for endpoint in endpoints),
            *self.plane.hyperpod.clusters,
        ]

    def works(self, words: tuple[str, ...]) -> None:
        """The same words again, with nothing in their way."""
        self.plane.refusals.clear()
        code, told = self.here.inv(*words)
        assert code == 0, told
