"""Our own Dockerfiles, read as steps that need no engine.

What may stand in them is what images/templates writes; anything else is refused by name rather
than followed half. `# --- NAME ... ---` opens the section that a step belongs to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from slipway.core import SlipwayError

_SECTION = re.compile(r"# --- (\S+)(?: .*)?---")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_INSTALLER = ("-B", "/mnt/install_addons.py")
_COMPILER = ("-B", "/mnt/compile_bytecode.py")
_MOUNT = re.compile(r"--mount=type=bind,source=(?P<folder>\S+),target=/mnt\s+(?P<command>\[.*\])")


class NeedsEngineError(SlipwayError):
    """A step has to run something in the base, or does what only an engine can do."""


@dataclass(frozen=True)
class DockerfileStep:
    """One instruction after FROM, its continuation lines joined."""

    section: str
    name: str  # "COPY"
    text: str  # what stands behind it

    @property
    def words(self) -> str:
        """As the image's history tells it."""
        return f"{self.name} {self.text}"

    @property
    def runs_in_base(self) -> bool:
        """Whether its files come of a program that runs in the base, beside our installer of
        wheels: in this stage, or in another whose folder is copied."""
        if self.name == "RUN":
            return self.installation is None
        return self.name == "COPY" and self.text.startswith("--from=")

    @property
    def compiles(self) -> bool:
        """Whether it leaves bytecode of installed modules, and nothing else."""
        return self.name == "RUN" and self._mounted[1][1:3] == _COMPILER

    @property
    def installation(self) -> tuple[str, tuple[str, ...]] | None:
        """Folder and command of an installation of wheels."""
        folder, command = self._mounted
        return (folder, command) if len(command) >= 4 and command[1:3] == _INSTALLER else None

    @property
    def _mounted(self) -> tuple[str, tuple[str, ...]]:
        """The folder that a command has mounted, and the command; nothing where there is none."""
        match = _MOUNT.fullmatch(self.text)
        return (match["folder"], json_words(self, match["command"])) if match else ("", ())


@dataclass(frozen=True)
class InstallStep:
    """An add-on's wheels: the folder of the context, and the installer's arguments."""

    addon: str
    folder: str
    interpreter: str
    arguments: tuple[str, ...]


def read_steps(dockerfile: str) -> tuple[DockerfileStep, ...]:
    """The steps of the last stage, which is the image."""
    steps: list[DockerfileStep] | None = None
    section, held = "", ""
    for line in dockerfile.splitlines():
        stripped = line.strip()
        if opened := _SECTION.fullmatch(stripped):
            section = opened[1]
        if not stripped or stripped.startswith("#"):
            continue
        held += stripped.removesuffix("\\")
        if stripped.endswith("\\"):
            continue
        name, _, text = held.partition(" ")
        held = ""
        if name.upper() == "FROM":
            steps, section = [], ""
        elif steps is not None:  # arguments stand before the first stage
            steps.append(DockerfileStep(section, name.upper(), text.strip()))
    if steps is None:
        raise NeedsEngineError("the Dockerfile has no stage")
    return tuple(steps)


def dockerfile_through(dockerfile: str, section: str) -> str:
    """The Dockerfile up to the end of a section of its last stage. Raises KeyError for none."""
    at = dockerfile.rfind("\nFROM ") + 1
    kept: list[str] = []
    inside = False
    for line in dockerfile[at:].splitlines(keepends=True):
        opened = _SECTION.fullmatch(line.strip())
        if opened and inside:
            break
        inside = inside or (opened is not None and opened[1] == section)
        kept.append(line)
    if not inside:
        raise KeyError(section)
    return dockerfile[:at] + "".join(kept)


def install_step(step: DockerfileStep) -> InstallStep:
    """What a RUN step installs. Raises NeedsEngineError for any other command."""
    installation = step.installation
    if installation is None:
        raise NeedsEngineError(
            f"{step.section} runs a command in the base: {step.text[:100]}",
            cure="Build this image with an engine (without --no-engine).",
        )
    folder, command = installation
    return InstallStep(command[3], folder, command[0], command[3:])


def json_words(step: DockerfileStep, text: str) -> tuple[str, ...]:
    """The exec form, `["a", "b"]`."""
    try:
        words = json.loads(text)
    except ValueError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise NeedsEngineError(f"{step.section}: {step.words[:100]} is not in the exec form")
    return tuple(words)


def copy_paths(step: DockerfileStep) -> tuple[str, PurePosixPath]:
    """Source in the context and target of a COPY; a source that ends with a slash is a folder."""
    words = step.text.split()
    if len(words) != 2 or step.text.startswith(("-", "[")) or not words[1].startswith("/"):
        raise NeedsEngineError(
            f"{step.section}: {step.words[:100]} is not copied without an engine"
        )
    source, target = words
    if target.endswith("/") and not source.endswith("/"):
        target += source.rpartition("/")[2]
    return source, PurePosixPath(target)


def key_values(step: DockerfileStep, environment: Mapping[str, str]) -> dict[str, str]:
    """The pairs of ENV and LABEL: quotes, escapes and variables as a Dockerfile has them."""
    pairs = {}
    for word in _quoted_words(step, environment):
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise NeedsEngineError(f"{step.section}: {step.words[:100]} is not a list of KEY=VALUE")
        pairs[key] = value
    return pairs


def _quoted_words(step: DockerfileStep, environment: Mapping[str, str]) -> list[str]:
    words: list[str] = []
    word: str | None = None
    quote, at, text = "", 0, step.text
    while at < len(text):
        char = text[at]
        if not quote and char.isspace():
            if word is not None:
                words.append(word)
            word, at = None, at + 1
            continue
        word = word or ""
        if char == quote or (not quote and char in "'\""):
            quote = "" if quote else char
            at += 1
        elif char == "\\" and quote != "'" and at + 1 < len(text):
            # Between double quotes a backslash escapes only what has a meaning there.
            kept = "\\" if quote and text[at + 1] not in '"$\\' else ""
            word, at = word + kept + text[at + 1], at + 2
        elif char == "$" and quote != "'" and (match := _VARIABLE.match(text, at)):
            word, at = word + environment.get(match[1] or match[2], ""), match.end()
        else:
            word, at = word + char, at + 1
    if quote:
        raise NeedsEngineError(f"{step.section}: a quote of {step.words[:100]} is not closed")
    return words if word is None else [*words, word]
