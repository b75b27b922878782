"""Which wheels of an add-on go into an image, what they replace there, and whether that fits."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from slipway.append.base_contents import BaseContents
from slipway.append.python_layout import PythonLayout
from slipway.append.wheel_files import InstalledWheel
from slipway.append.wheel_layouts import WheelLayouts
from slipway.core import SlipwayError
from slipway.inventory import FOLDER


def load_installer(path: Path) -> ModuleType:
    """The script that installs add-ons in the engine's builds: one set of rules for both ways."""
    spec = importlib.util.spec_from_file_location("slipway_install_addons", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def installed_versions(
    dockerfile: str, script: Path, pins: Mapping[str, str], base: Mapping[str, str]
) -> dict[str, str]:
    """The Python distributions of an image: those of its base, and what its add-ons put there.

    `script`: the installer; `pins`: the requirement file of each add-on; `base`: canonical name ->
    version. Nothing is run and no wheel is read: the installer's own rules say what it installs.
    """
    installer: Any = load_installer(script)
    versions = dict(base)
    for command in re.findall(r'\["[^\]]*/install_addons\.py"[^\]]*\]', dockerfile):
        options = installer.parse_arguments(json.loads(command)[3:])
        text = pins[options.addon]
        movable = installer.movable_names(options, text)
        for pin in installer.chosen(installer.read_pins(text), dict(versions), movable):
            versions[pin.name] = pin.version
    return versions


def marker_environment(python: str, machine: str) -> dict[str, str]:
    """What environment markers are true of in a base."""
    return {
        **{name: str(value) for name, value in default_environment().items()},
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
        "extra": "",
    }


# Of an extra, and nobody asks for one: what has no "or" is false with one part of it.
_OF_EXTRA = re.compile(r""";(?!.*\bor\b).*\bextra\s*==\s*["']\w""", re.DOTALL)


@functools.lru_cache(maxsize=8192)  # all of them are asked about again with each add-on
def _requirement(text: str) -> Requirement:
    return Requirement(text)


def unmet(
    requires: Mapping[str, Sequence[str]],
    versions: Mapping[str, str],
    environment: Mapping[str, str],
) -> dict[tuple[str, str], str]:
    """What does not fit together, by (who, about what), as `pip check` finds it."""
    problems = {}
    for name, requirements in sorted(requires.items()):
        for text in requirements:
            if _OF_EXTRA.search(text):  # most are, and reading them is most of the work
                continue
            requirement = _requirement(text)
            if requirement.marker and not requirement.marker.evaluate(dict(environment)):
                continue
            about = str(canonicalize_name(requirement.name))
            version = versions.get(about)
            if version is None:
                problems[name, about] = f"{name} requires {about}, which is not there"
            elif not requirement.specifier.contains(version, prereleases=True):
                problems[name, about] = f"{name} has requirement {requirement}, there is {version}"
    return problems


@dataclass
class PythonState:
    """The distributions of the image so far; add-ons change it one after the other.

    `contents` is None where the lock tells the packages and nothing of them is replaced.
    """

    layout: PythonLayout
    versions: dict[str, str]  # canonical name -> version
    contents: BaseContents | None
    environment: Mapping[str, str]
    requires: dict[str, Sequence[str]] = field(default_factory=dict)
    added: dict[str, InstalledWheel] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take over what the base's own distributions require."""
        if self.contents:
            for name, distribution in self.contents.distributions.items():
                self.requires[name] = distribution.requires

    def install(self, addon: str, wheels: Sequence[InstalledWheel]) -> tuple[str, ...]:
        """Take the wheels in; gives the paths of the base that are gone.

        Raises SlipwayError where something does not fit that fitted before, or cannot be removed.
        """
        before = unmet(self.requires, self.versions, self.environment)
        removed: list[str] = []
        for wheel in wheels:
            if wheel.name in self.added:
                raise SlipwayError(f"{addon} replaces {wheel.name} of an add-on below it")
            if wheel.name in self.versions:
                removed += self._files_of(wheel.name)
            self.versions[wheel.name] = wheel.version
            self.requires[wheel.name] = wheel.requires
            self.added[wheel.name] = wheel
        after = unmet(self.requires, self.versions, self.environment)
        if worse := [text for key, text in after.items() if key not in before]:
            raise SlipwayError(
                f"{addon} does not fit this base:\n  " + "\n  ".join(worse),
                cure="List what has to move under `moves:` of the base in versions.yaml with a "
                "reason, or choose another version of the add-on; then run `./inv lock`.",
            )
        kept = {file.path for wheel in wheels for file in wheel.files}
        return self._gone(removed, kept)

    def _files_of(self, name: str) -> Iterable[str]:
        """What pip would uninstall: the record's files, and the bytecode of its modules."""
        distribution = self.contents.distributions.get(name) if self.contents else None
        if distribution is None or distribution.files is None:
            raise SlipwayError(
                f"{name} of the base has no RECORD that says which files to remove",
                cure="Build this image with an engine (without --no-engine).",
            )
        tag = f"cpython-{self.layout.python.replace('.', '')}"
        for path in distribution.files:
            yield path
            folder, module = posixpath.split(path)
            if module.endswith(".py"):
                yield f"{folder}/__pycache__/{module[:-3]}.{tag}.pyc"

    def _gone(self, removed: Iterable[str], kept: set[str]) -> tuple[str, ...]:
        """The whiteouts: whole folders where nothing of them is left, else files.

        pip takes away a folder that has files to remove and no others (`compress_for_rename` of
        pip/_internal/req/req_uninstall.py); what stands empty above it stays.
        """
        if not self.contents:
            return ()
        prefix = str(self.layout.prefix)[1:] + "/"
        kinds = self.contents.kinds
        gone = {
            path
            for path in removed
            if path.startswith(prefix) and kinds.get(path, FOLDER) != FOLDER
        }
        in_use = {
            folder
            for path, kind in kinds.items()
            if kind != FOLDER and path not in gone
            for folder in _parents(path)
        }
        gone |= {posixpath.dirname(path) for path in gone} - in_use
        needed = {*kept, *(folder for path in kept for folder in _parents(path))}
        hidden = {
            path
            for path in kinds
            if path.startswith(prefix)
            and path not in needed
            and (path in gone or not gone.isdisjoint(_parents(path)))
        }
        return tuple(sorted(path for path in hidden if hidden.isdisjoint(_parents(path))))


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


@dataclass(frozen=True)
class AddonWheels:
    """What the context holds of an add-on: its pins as a requirement file, and their wheels."""

    text: str
    wheels: Mapping[str, Path]  # by canonical name


def chosen_wheels(
    installer: Any,
    addon: AddonWheels,
    arguments: Sequence[str],
    state: PythonState,
    layouts: WheelLayouts,
) -> list[InstalledWheel]:
    """The wheels that the installer would install, laid out, in the order in which it does.

    A path that two of them have is the later one's: pip takes them from the last name to the
    first.
    """
    options = installer.parse_arguments(arguments)
    pins = installer.read_pins(addon.text)
    movable = installer.movable_names(options, addon.text)
    todo = sorted(installer.chosen(pins, state.versions, movable), key=_name, reverse=True)
    laid_out = [_laid_out(pin, addon, layouts) for pin in todo]
    owner = {file.path: wheel.name for wheel in laid_out for file in wheel.files}
    return [
        dataclasses.replace(
            wheel, files=tuple(file for file in wheel.files if owner[file.path] == wheel.name)
        )
        for wheel in laid_out
    ]


def _name(pin: Any) -> str:
    return str(pin.name)


def _laid_out(pin: Any, addon: AddonWheels, layouts: WheelLayouts) -> InstalledWheel:
    if pin.name not in addon.wheels:
        raise SlipwayError(f"the context has no wheel of {pin.name}")
    wheel = layouts.wheel(addon.wheels[pin.name], pin.name)
    if f"sha256:{wheel.sha256}" not in pin.text or wheel.version != pin.version:
        raise SlipwayError(f"the wheel of {pin.name} {pin.version} is not the locked one")
    return wheel
