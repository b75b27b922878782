"""One resolution by uv: what an add-on needs beyond what is there, for a base's Python."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from slipway.errors import SlipwayError
from slipway.lock.artefacts import GLIBC, MACHINES, pins_of
from slipway.lock.conflict import explain
from slipway.lock.model import Pin
from slipway.lock.pip_settings import PipSettings, host_uv_environment
from slipway.lock.stubs import is_stub, write_stubs


@dataclass(frozen=True)
class Question:
    """What to resolve. `present` are packages that may not move; `before` are pins to prefer."""

    requirements: tuple[str, ...]
    python: str  # "3.12"
    arch: str = "amd64"
    present: Mapping[str, str] = field(default_factory=dict)
    before: tuple[Pin, ...] = ()
    on: str = ""  # the base, for messages
    closure: bool = True  # False: only what is asked for, without its dependencies


@dataclass(frozen=True)
class Resolver:
    """uv with the host's pip settings. `cache` is uv's own and safe for several processes."""

    settings: PipSettings
    cache: Path

    def resolve(self, question: Question) -> tuple[Pin, ...]:
        """The pins that `question` needs and that are not present, sorted by name.

        Raises SlipwayError: a conflict with what is present names the package, both sides and the
        cure; other failures say what uv said.
        """
        with tempfile.TemporaryDirectory(prefix="slipway-lock-") as name:
            folder = Path(name)
            stubs = folder / "stubs"
            stubs.mkdir()
            constraints = write_stubs(stubs, question.present)
            (folder / "constraints.txt").write_text(constraints)
            # An sdist's own build must not get a stand-in for setuptools.
            (folder / "build-constraints.txt").write_text(constraints.replace("==", "!="))
            (folder / "requirements.txt").write_text("\n".join(question.requirements) + "\n")
            answer = folder / "pylock.answer.toml"
            if question.before:
                answer.write_text(_preferences(question.before))
            done = self._run(question, folder, answer, stubs)
            if done.returncode != 0:
                raise explain(done.stderr, question.requirements, question.on)
            pins = pins_of(answer.read_text(), question.python, question.arch, question.before)
        return tuple(pin for pin in pins if not is_stub(pin.version))

    def _run(
        self, question: Question, folder: Path, answer: Path, stubs: Path
    ) -> subprocess.CompletedProcess[str]:
        environment = host_uv_environment(self.settings)
        links = [*self.settings.find_links, str(stubs)]
        environment["UV_FIND_LINKS"] = ",".join(links)
        environment["UV_CACHE_DIR"] = str(self.cache)
        command = [str(uv_binary()), "pip", "compile", "--quiet", "--no-config"]
        command += ["--format", "pylock.toml", "--output-file", str(answer)]
        command += ["--python", sys.executable, "--python-version", question.python]
        machine = MACHINES[question.arch]
        command += ["--python-platform", f"{machine}-manylinux_2_{GLIBC}"]
        command += ["--constraints", str(folder / "constraints.txt")]
        command += ["--build-constraints", str(folder / "build-constraints.txt")]
        if not question.closure:
            command.append("--no-deps")
        if self.settings.no_index:
            command.append("--no-index")
        command.append(str(folder / "requirements.txt"))
        # Away from the project, whose pyproject.toml has nothing to say about an image.
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )


def uv_binary() -> Path:
    """uv of the environment that Slipway runs in. Raises SlipwayError where it is missing."""
    path = Path(sys.executable).with_name("uv")
    if not path.exists():
        raise SlipwayError(
            f"there is no uv beside {sys.executable}",
            cure="Run through `./inv`, which makes an environment with everything in it.",
        )
    return path


def _preferences(before: tuple[Pin, ...]) -> str:
    """`before` as the output of an earlier run: uv keeps those versions where they still fit."""
    lines = ['lock-version = "1.0"', 'created-by = "slipway"']
    for pin in before:
        lines += ["[[packages]]", f'name = "{pin.name}"', f'version = "{pin.version}"']
    return "\n".join(lines) + "\n"
