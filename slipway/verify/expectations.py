"""What is checked and what is expected of it: handed to the checks' process as one JSON file."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from slipway.core import Project, SlipwayError, sha256_file
from slipway.derive import added_files, environment_of, labels_of
from slipway.engine import Engine, find_image_id, inspect_image
from slipway.matrix import Image, Tool, explain_image
from slipway.records import Locks, python_lock_keys, system_lock_keys

# What a requirement begins with (PEP 508). packaging's whole grammar takes longer to compile than
# all else that a finished `ship` asks of checks.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
_PRIVATE_FILES = (".netrc", ".aws/credentials", ".pypirc", ".docker/config.json")


@dataclass(frozen=True)
class ToolFact:
    """A binary that must be in the image. `sha256` is None where no lock records it."""

    version: str
    path: str
    sha256: str | None


@dataclass(frozen=True)
class FileFact:
    """A file of the repository that must be in the image as it is."""

    sha256: str
    mode: str  # "0644"
    owner: str  # "0:0"


@dataclass(frozen=True)
class CheckedImage:
    """One image in an engine, and the facts that its checks compare it with."""

    engine: str  # URL, or "auto" where only the environment has what it takes to connect
    reference: str
    image_id: str
    base_reference: str
    base_id: str
    cell: Mapping[str, Any]  # slipway.derive.tables.explain
    labels: Mapping[str, str]
    environment: Mapping[str, str]  # what ENV must hold beyond the base's
    tools: Mapping[str, ToolFact]
    files: Mapping[str, FileFact]  # by path
    built: Mapping[str, list[str]]  # folder that a script has made -> paths below it
    system: Mapping[str, str]  # NAME:ARCHITECTURE of an added package -> its version
    removed: tuple[str, ...]  # packages of the base's distribution that are gone
    checks: Mapping[str, str]  # add-on -> its own command
    workdir: str
    user: str
    may_move: Mapping[str, str]  # distribution of the base -> why it may change
    may_come: tuple[str, ...] | None  # distributions that may be new; None: nothing is locked
    size_budget: int  # bytes that the image may add to the base
    private: Mapping[str, str]  # sha256 of a file of this host that must not be inside -> its name

    def to_json(self) -> str:
        """For the checks' process."""
        return json.dumps(asdict(self), indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> CheckedImage:
        """The inverse of `to_json`."""
        data = json.loads(text)
        data["tools"] = {name: ToolFact(**fact) for name, fact in data["tools"].items()}
        data["files"] = {path: FileFact(**fact) for path, fact in data["files"].items()}
        data["removed"] = tuple(data["removed"])
        if data["may_come"] is not None:
            data["may_come"] = tuple(data["may_come"])
        return cls(**data)

    @property
    def python(self) -> str:
        """Path of the interpreter that the image states."""
        return str(self.cell["base"]["family"]["python"])

    @property
    def facts(self) -> Mapping[str, Any]:
        """Versions that the image states."""
        facts: Mapping[str, Any] = self.cell["base"]["facts"]
        return facts

    @property
    def torch(self) -> str:
        """The version of torch that the image has: the base's, or an add-on's; "" for none."""
        versions = [a["version"] for a in self.cell["addons"] if a["name"] == "torch"]
        return str(self.facts["torch"] or (versions[0] if versions else None) or "")

    @property
    def bytecode(self) -> bool:
        """Whether modules of its add-ons were compiled in the build."""
        return bool(self.cell.get("bytecode"))

    def addon(self, name: str) -> Mapping[str, Any]:
        """One add-on of the cell. Raises KeyError."""
        addons = {addon["name"]: addon for addon in self.cell["addons"]}
        facts: Mapping[str, Any] = addons[name]
        return facts


def requirement_names(requirements: tuple[str, ...]) -> list[str]:
    """The distributions of requirements that the matrix has checked, normalised."""
    found = [_NAME.match(text.lstrip()) for text in requirements]
    return [str(canonicalize_name(name[0])) for name in found if name]


def may_move(image: Image) -> dict[str, str]:
    """Distributions of the base that the image may change, each with the reason."""
    reasons = {str(canonicalize_name(name)): why for name, why in image.base.moves.items()}
    for addon in image.addons:
        if addon.action == "replace":
            reasons |= dict.fromkeys(requirement_names(addon.requirements), addon.because)
    return reasons


def may_come(image: Image, locks: Locks) -> tuple[str, ...] | None:
    """Distributions that the image may add to its base, None where one of its locks is missing."""
    names: set[str] = set()
    for addon, key in python_lock_keys(image, locks.bases):
        if key not in locks.python:
            return None
        names.update(requirement_names(addon.requirements))
        names.update(canonicalize_name(pin.name) for pin in locks.python[key].pins)
    return tuple(sorted(names))


def system_facts(image: Image, locks: Locks) -> tuple[dict[str, str], tuple[str, ...]]:
    """Packages of the distribution that the image adds, with versions, and those that it removes.

    Of two versions the later layer's holds. What is not locked is not there.
    """
    closures = [locks.system[key] for _, key in system_lock_keys(image) if key in locks.system]
    added = {
        f"{package.name}:{package.architecture}": package.version
        for lock in closures
        for package in lock.packages
    }
    return added, tuple(name for lock in closures for name in lock.removed)


def private_files(home: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """sha256 -> name of the host's files that must not get into an image."""
    named = [(name, Path(environment[name])) for name in _CA_VARIABLES if environment.get(name)]
    named += [(f"~/{name}", home / name) for name in _PRIVATE_FILES]
    return {
        hashlib.sha256(path.read_bytes()).hexdigest(): f"{name} of the build host"
        for name, path in named
        if path.is_file()
    }


def file_facts(project: Project, image: Image) -> dict[str, FileFact]:
    """The files of the repository that an image has; of two at one place the later layer's."""
    return {
        file.target: FileFact(sha256_file(file.source), f"{file.mode:04o}", file.owner)
        for file in added_files(project, image.addons)
    }


def own_checks(image: Image) -> dict[str, str]:
    """Add-on -> the command by which it is checked, as versions.yaml says."""
    return {addon.name: addon.check for addon in image.addons if addon.check}


def expectations_of(
    project: Project,
    engine: Engine,
    image: Image,
    references: tuple[str, str],
    locks: Locks,
    all_tools: Mapping[str, Tool],
) -> CheckedImage:
    """Gather what the checks need. Raises SlipwayError where the image or base is not there.

    `references`: of the image and of its base, in the engine.
    """
    reference, base_reference = references
    ids = {name: find_image_id(engine, name) for name in (reference, base_reference)}
    for name, image_id in ids.items():
        if image_id is None:
            raise SlipwayError(f"the engine has no image {name}", cure="Build it: `./inv build`.")
    architecture = inspect_image(engine, reference)["Architecture"]
    tools = {}
    for name, tool in all_tools.items():
        if image.addon(name):
            lock = locks.tools.get(name)
            file = lock.files.get(architecture) if lock else None
            tools[name] = ToolFact(tool.version, tool.path, file.binary_sha256 if file else None)
    addon_env = {key: value for addon in image.addons for key, value in addon.env.items()}
    system, removed = system_facts(image, locks)
    tls = str(engine.client.api.base_url).startswith("https:")
    return CheckedImage(
        engine="auto" if tls else engine.url,
        reference=reference,
        image_id=str(ids[reference]),
        base_reference=base_reference,
        base_id=str(ids[base_reference]),
        cell=explain_image(image),
        labels=labels_of(image, locks),
        environment={**environment_of(image), **addon_env},
        tools=tools,
        files=file_facts(project, image),
        built={a.source.folder: list(a.source.gives) for a in image.addons if a.source},
        system=system,
        removed=removed,
        checks=own_checks(image),
        workdir=image.workdir,
        user=image.user,
        may_move=may_move(image),
        may_come=may_come(image, locks),
        size_budget=image.size_budget_mb * 1_000_000,
        private=private_files(Path.home(), os.environ),
    )
