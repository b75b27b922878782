"""A clone of this checkout that tests may edit, and its command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
#: Not the modules' bytecode, which stays true of the copies; what Python is just writing has a
#: number behind its name.
LEFT_OUT = shutil.ignore_patterns(".git", ".venv*", ".slipway", "*_cache", ".hyp*", "*.pyc.*")


@dataclass(frozen=True)
class Clone:
    """A copy of the working tree, with the state folder that the system tests share."""

    root: Path
    state: Path
    env: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, root: Path, state: Path) -> Clone:
        """Copy the working tree to `root`."""
        shutil.copytree(ROOT, root, ignore=LEFT_OUT)
        return cls(root, state)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin `inv` with these arguments, in a session of its own as a terminal would."""
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "slipway.tasks.cli",
                "--search-root",
                str(self.root),
                *arguments,
            ],
            cwd=self.root,
            env={
                **os.environ,
                "SLIPWAY_STATE": str(self.state),
                "INVOKE_SLIPWAY_ENGINE": "embedded",
                **self.env,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def inv(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run `inv` to its end, which must be with this exit code and never with a traceback."""
        with self.start(*arguments) as process:
            out, err = process.communicate()
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        assert "Traceback" not in err
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def json(self, *arguments: str) -> Any:
        """Run `inv` with --json and give what it printed."""
        return json.loads(self.inv(*arguments, "--json").stdout)

    def edit(self, path: str, pattern: str, replacement: str) -> None:
        """Change one place of a file."""
        file = self.root / path
        text, count = re.subn(pattern, replacement, file.read_text(), count=1, flags=re.DOTALL)
        assert count == 1, f"{pattern!r} is not in {path}"
        file.write_text(text)

    def change_launcher(self, mark: str) -> None:
        """Make every image of the clone one that nobody has built, by one small layer."""
        (self.root / "entrypoints" / "mark.txt").write_text(f"{mark} {uuid.uuid4()}")
