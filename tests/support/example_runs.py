"""Running the examples in containers: their packages, and what they print."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.core import Project
from slipway.engine import ContainerOptions, Engine, run_once
from slipway.resolve.pip_settings import read_pip_settings
from slipway.resolve.uv import Resolver, ResolveRequest
from slipway.wheels import fetch_wheels, read_packages
from tests.support.launcher.containers import Fleet, Running

EXAMPLES = Path(__file__).parents[2] / "examples"
PYTHON = "/opt/venv/bin/python"
#: Where containers find the examples, wheels, packages installed from them, compiled operators.
CODE, WHEELS, SITE, EXTENSIONS = "/examples", "/wheels", "/site", "/extensions"
#: On the node's directory on this machine, so that they outlive a container.
CHECKPOINTS, OUTPUT = "/opt/ml/checkpoints", "/opt/ml/output/model"

#: A model of a few thousand weights: a step takes a fraction of a second.
SMALL = ("--layers", "1", "--hidden", "32", "--heads", "2", "--seq", "64", "--batch", "4")

_LINE = re.compile(r'(?:\[r0\] )?(\{"event": .*\})')


@dataclass(frozen=True)
class Packages:
    """What examples/requirements.txt asks for beyond the image: as wheels, and installed."""

    wheels: Path
    site: Path

    @classmethod
    def make(cls, project: Project, engine: Engine, image: str, root: Path) -> Packages:
        """Resolve for the image, fetch by the host's pip settings, install in a container."""
        lines = (EXAMPLES / "requirements.txt").read_text().splitlines()
        asked = tuple(line for line in lines if line and not line.startswith("#"))
        present = read_packages(engine, image, PYTHON)
        assert present
        resolver = Resolver(read_pip_settings(), project.cache / "uv")
        pins = resolver.resolve(ResolveRequest(asked, "3.11", present=present, on=image))
        made = cls(root / "wheels", root / "site")
        for folder in (made.wheels, made.site):
            folder.mkdir()
        for wheel in fetch_wheels(project, pins, "3.11"):
            shutil.copy(wheel, made.wheels)
        files = [f"{WHEELS}/{path.name}" for path in made.wheels.iterdir()]
        options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--target", SITE]
        done = run_once(
            engine,
            image,
            [PYTHON, "-m", "pip", "install", *options, *files],
            ContainerOptions(
                entrypoint=(), mounts={made.wheels: WHEELS, made.site: SITE}, writable=[made.site]
            ),
            timeout_s=300,
        )
        assert done.exit_code == 0, done.stderr
        return made


def events(running: Running, name: str) -> list[dict[str, Any]]:
    """The JSON lines of an example (of rank 0) with that event."""
    found = (json.loads(match[1]) for line in running.lines if (match := _LINE.fullmatch(line)))
    return [event for event in found if event["event"] == name]


def summary(running: Running) -> dict[str, Any]:
    """The last line of a run that has ended."""
    (found,) = events(running, "summary")
    return found


@dataclass
class Machine:
    """One machine with the default image, the examples and their packages."""

    fleet: Fleet
    packages: Packages
    code: Path
    extensions: Path

    def start(self, example: str, *args: str, nproc: int = 2, runner: str = "torchrun") -> Running:
        """`launch local` with one of the examples, going on from the newest checkpoint."""
        launch = ["launch", "local", "--runner", runner, "--nproc", str(nproc)]
        launch += ["--checkpoint-dir", CHECKPOINTS, "--resume", "auto", "--"]
        script = [f"{CODE}/{example}/train.py", "--checkpoint-dir", CHECKPOINTS]
        return self._run(*launch, *script, "--output-dir", OUTPUT, *args)

    def python(self, program: str) -> str:
        """What a program prints; it finds the packages and the examples."""
        running = self._run("python", "-c", program)
        assert running.end() == 0, running.lines
        return "\n".join(running.lines)

    def shell(self, command: str) -> None:
        """A command that must succeed."""
        running = self._run("bash", "-c", command)
        assert running.end() == 0, running.lines

    def _run(self, *command: str) -> Running:
        (running,) = self.fleet.start(
            *command,
            env={
                "PYTHONPATH": f"{SITE}:{CODE}",
                "HF_HUB_OFFLINE": "1",
                "OMP_NUM_THREADS": "1",
                "TORCH_EXTENSIONS_DIR": EXTENSIONS,
            },
            mounts={
                self.code: CODE,
                self.packages.site: SITE,
                self.extensions: EXTENSIONS,
            },
        )
        return running

    def train_until_stopped(self, example: str, *args: str, runner: str = "torchrun") -> int:
        """Begin, send SIGTERM in mid-run; the step at which it was saved."""
        running = self.start(
            example, *args, "--checkpoint-every", "0", "--log-every", "5", runner=runner
        )
        running.wait_for_line('"event": "step", "step": 5,')
        running.terminate()
        assert running.end() == 143, running.lines
        found = summary(running)
        assert found["status"] == "stopped"
        assert found["saved_step"] == found["steps"] >= 5
        return int(found["saved_step"])

    def train_to_the_end(self, example: str, *args: str, nproc: int = 2) -> dict[str, Any]:
        """Its summary, with the loss after each step that it printed."""
        running = self.start(example, *args, "--log-every", "5", nproc=nproc)
        assert running.end() == 0, running.lines
        found = summary(running)
        assert found["status"] == "done"
        return {**found, "by_step": {e["step"]: e["loss"] for e in events(running, "step")}}
