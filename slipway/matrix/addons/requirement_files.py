"""A requirements file of the repository: what it asks for, as add-ons have it in `requires`."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic_core import PydanticCustomError

from slipway.matrix.addons.addon_entries import checked_requirement

_MOST_BYTES = 1_000_000
_WHY_NOT = {
    "-e": "an editable package is a folder of one machine",
    "--editable": "an editable package is a folder of one machine",
    "-c": "`inv lock` keeps what the base has, and records the rest",
    "--constraint": "`inv lock` keeps what the base has, and records the rest",
    "--hash": "`inv lock` records hashes",
}
_ELSEWHERE = "where packages come from is for pip's own configuration (`pip config list`)"


class RequirementError(ValueError):
    """A line that cannot be taken: `args` are what is wrong, and what to do."""


@dataclass
class RequirementFile:
    """What a file and those that it includes ask for, in their order, and the hash of each."""

    requirements: list[str] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)  # path from the root -> sha256


def read_requirements(root: Path, name: str) -> RequirementFile:
    """Read a file of the repository. Raises RequirementError for the first line that is no good."""
    file = RequirementFile()
    _read(root, name, file)
    return file


def _read(root: Path, name: str, file: RequirementFile) -> None:
    if name in file.hashes:
        return  # included twice, or by itself
    path = root / name
    try:
        if not path.resolve().is_relative_to(root.resolve()):
            raise RequirementError(f"{name} leaves the repository", "put the file into it")
        content = path.read_bytes()[: _MOST_BYTES + 1]
        text = content.decode("utf-8-sig")
    except OSError as error:
        what = f"{name} cannot be read: {error.strerror}"
        raise RequirementError(what, "name a file from the root of the repository") from error
    except UnicodeDecodeError as error:
        raise RequirementError(f"{name} is not UTF-8 text", "save it as UTF-8") from error
    if len(content) > _MOST_BYTES:
        raise RequirementError(f"{name} is larger than 1 MB", "is it a requirements file?")
    file.hashes[name] = hashlib.sha256(content).hexdigest()
    for number, line in _lines(text):
        option = re.match(r"(-{1,2}[A-Za-z-]+)[ =]*(.*)", line)
        if option is None:
            file.requirements.append(_checked(line, f"{name}:{number}"))
        elif option[1] in ("-r", "--requirement"):
            included = posixpath.join(posixpath.dirname(name), option[2].strip())
            _read(root, posixpath.normpath(included), file)
        else:
            why = _WHY_NOT.get(option[1], _ELSEWHERE)
            what = f"{name}:{number}: {option[1]} is not taken"
            raise RequirementError(what, f"remove it: {why}")


def _checked(line: str, where: str) -> str:
    requirement, hashes, _ = line.partition(" --hash")
    if hashes:
        what = f"{where}: --hash is not taken"
        raise RequirementError(what, f"remove it: {_WHY_NOT['--hash']}")
    try:
        return checked_requirement(requirement.strip())
    except PydanticCustomError as error:
        context = error.context or {}
        raise RequirementError(f"{where}: {context['what']}", str(context["cure"])) from error


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """(number, text) of each line that says something; continuation lines are joined."""
    held, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        first = first or number
        bare = re.sub(r"(^|\s)#.*", "", line)
        held += bare.removesuffix("\\")
        if bare.endswith("\\"):
            continue
        if held.strip():
            yield first, held.strip()
        held, first = "", 0
