"""Everything that decides what is inside an image, and the one hash over it.

What counts is what stands in the image. A comment of the Dockerfile, the wording of a reason in
versions.yaml and a document beside the launcher are not in it; neither is the script that installs
add-ons, but it decides what they become, so it counts for the images that have such a layer.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slipway.core import Project, sha256_file, tree_sha256
from slipway.derive.dockerfile import bytecode_section, render_dockerfile, system_section
from slipway.derive.launcher_layer import launcher_key
from slipway.derive.repository_files import added_files_key, files_section
from slipway.derive.source_stages import (
    script_hashes,
    source_command,
    source_keys,
    source_stages,
)
from slipway.matrix import AddedFiles, Addon, Architecture, Facts, Image, Tool
from slipway.records import (
    BUILD,
    Locks,
    PythonLock,
    SdistBuild,
    SystemLock,
    ToolLock,
    build_recipe_key,
    python_lock_keys,
    system_lock_keys,
)

UNLOCKED = "unlocked"

LAUNCHER = "launcher"
"""The name of the launcher's layer."""


@dataclass(frozen=True)
class SharedInputs:
    """Inputs that are the same for every image of a checkout; hashed once, not once an image."""

    templates: str
    installer: str
    launcher: str
    wheels: str = ""  # how a wheel is made of an sdist
    files: Mapping[AddedFiles, str] = field(default_factory=dict)  # of the repository -> hash
    scripts: Mapping[str, str] = field(default_factory=dict)  # add-on -> hash of its script
    builder: str = ""  # what runs such a script
    system_installer: str = ""  # what installs packages of the distribution
    bytecode: str = ""  # what compiles modules


@dataclass(frozen=True)
class BuildInputs:
    """What decides an image's content. No dates, no users, no git revisions, no hosts."""

    base: str  # digest; the recipe's hash for a base of our own; "unlocked" while not known
    dockerfile: str  # hash of the instructions
    templates: str
    installer: str  # "" where nothing is installed by it
    launcher: str
    addons: Mapping[str, str]  # name -> "version (action)"
    python: Mapping[str, str]  # add-on -> hash of its pins
    tools: Mapping[str, str]  # tool -> hash of its binary
    wheels: str = ""  # how its sdists become wheels; "" where it has none
    layers: Mapping[str, str] = field(default_factory=dict)  # lowest first: name -> key
    files: Mapping[str, str] = field(default_factory=dict)  # layer -> hash of its files
    sources: Mapping[str, str] = field(default_factory=dict)  # add-on -> hash of script and inputs
    architecture: Architecture = "amd64"
    system: Mapping[str, str] = field(default_factory=dict)  # add-on -> hash of its packages
    system_installer: str = ""  # "" where no packages of the distribution are installed
    bytecode: str = ""  # what compiles its modules; "" where they stay as they are

    @property
    def build_id(self) -> str:
        """sha256 over canonical JSON of what decides the content.

        `templates` and `layers` are kept to explain a change: what they decide is in the
        instructions and in the other inputs already. The architecture stands before all of it.
        """
        content = self.as_json()
        for explaining in ("templates", "layers", "architecture"):
            del content[explaining]
        for part in ("files", "sources", "system", "system_installer", "bytecode"):
            if not content[part]:
                del content[part]  # a part that an image does not use changes no build id
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(f"linux/{self.architecture}\n{canonical}".encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """As plain values, for a record."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {name: v if isinstance(v, str) else dict(v) for name, v in values.items()}


def shared_inputs(
    project: Project, locks: Locks | None = None, images: Sequence[Image] = ()
) -> SharedInputs:
    """Hash what images share. Raises SlipwayError where a file that one of them adds is missing."""
    added = {files for image in images for addon in image.own_addons for files in addon.files}
    builds = {a.name: a.source for image in images for a in image.own_addons if a.source}
    build = locks.python.get(BUILD) if locks else None
    return SharedInputs(
        templates=tree_sha256(project.templates),
        installer=sha256_file(project.installer),
        launcher=launcher_key(project),
        wheels=build_recipe_key(project, build.pins if build else ()),
        files={files: added_files_key(project, files) for files in added},
        scripts=script_hashes(project, builds),
        builder=sha256_file(project.source_builder),
        system_installer=sha256_file(project.system_installer),
        bytecode=sha256_file(project.bytecode_compiler),
    )


def instructions_of(dockerfile: str) -> str:
    """The Dockerfile without what leaves no trace in an image: comments and empty lines."""
    lines = (line for line in dockerfile.splitlines() if line.strip())
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


def layer_keys(dockerfile: str, base: str, contents: Mapping[str, str]) -> dict[str, str]:
    """The key of each layer of the last stage, lowest first: the same key, the same bytes.

    Files that are copied are the same on any base, so the key of such a layer is its own content
    and the registry's and the linker's caches find it again whatever is below. What a command
    leaves depends on all that is below it, so its key goes on from there.
    """
    keys: dict[str, str] = {}
    below = base
    for name, text in _sections(_last_stage(dockerfile)):
        instructions = instructions_of(text)
        content = f"{instructions}\n{contents.get(name, '')}"
        below = hashlib.sha256(f"{below}\n{content}".encode()).hexdigest()
        if re.search("^RUN ", instructions, re.MULTILINE):
            keys[name] = below
        elif re.search("^COPY ", instructions, re.MULTILINE):
            keys[name] = hashlib.sha256(content.encode()).hexdigest()
    return keys


def _last_stage(dockerfile: str) -> str:
    return dockerfile.rpartition("\nFROM ")[2]


def _sections(dockerfile: str) -> Iterator[tuple[str, str]]:
    """(name, text) of each fragment, after the line `# --- name version ---` that opens it."""
    _, *parts = re.split(r"^# --- (\S+)(?: .*)?---$", dockerfile, flags=re.MULTILINE)
    return zip(parts[::2], parts[1::2], strict=True)


def _packages_hash(lock: SystemLock | None) -> str:
    """What is installed, in which order, and what goes; not where it is had."""
    if lock is None:
        return UNLOCKED
    lines = [f"{p.name} {p.version} {p.architecture} {p.sha256}" for p in lock.packages]
    return hashlib.sha256("\n".join([*lines, "", *lock.removed]).encode()).hexdigest()


def _addon_words(addon: Addon) -> str:
    """What `plan` says of an add-on: its version, or what it asks for, and what happens to it."""
    asked = (*(addon.system.names if addon.system else ()), *addon.requirements)
    return f"{addon.version or ' '.join(asked) or 'unknown'} ({addon.action})"


def _binary(lock: ToolLock | None, architecture: Architecture) -> str:
    file = lock.files.get(architecture) if lock else None
    return file.binary_sha256 if file else UNLOCKED


def _recipe(closure: PythonLock, facts: Facts, locks: Locks, common: SharedInputs) -> str:
    """How the sdists of a closure become wheels; "" where it has none."""
    sdists = [pin for pin in closure.pins if pin.source]
    own = [
        lock.pins_hash
        for pin in sdists
        if (lock := locks.python.get(SdistBuild(pin, facts.python, facts.architecture).key))
        is not None
    ]
    return " ".join([common.wheels, *own]) if sdists else ""


def build_inputs(
    project: Project,
    image: Image,
    locks: Locks,
    tools: Collection[Tool],
    common: SharedInputs,
    own_base: str | None = None,
) -> BuildInputs:
    """The inputs of one image.

    `own_base` is of a base that Slipway builds: the recipe's hash, or the build id of an image.
    """
    base_lock = locks.bases.get(image.base.name)
    digest = own_base if image.base.registry is None else base_lock and base_lock.digest
    keys = python_lock_keys(image, locks.bases)
    closures = {addon.name: locks.python.get(key) for addon, key in keys}
    dockerfile = render_dockerfile(image, locks, tools, project.templates)
    python = {
        name: closure.pins_hash if closure else UNLOCKED for name, closure in closures.items()
    }
    facts = image.base.facts
    binaries = {
        tool.name: _binary(locks.tools.get(tool.name), facts.architecture)
        for tool in tools
        if image.brings(tool.name)
    }
    recipes = {
        name: recipe
        for name, closure in closures.items()
        if closure and (recipe := _recipe(closure, facts, locks, common))
    }
    installed = {
        name: " ".join([pins, common.installer, recipes.get(name, "")])
        for name, pins in python.items()
    }
    files = {
        files_section(addon.name, each): common.files[each]
        for addon in image.own_addons
        for each in addon.files
    }
    system = {
        addon.name: _packages_hash(locks.system.get(key)) for addon, key in system_lock_keys(image)
    }
    stages = source_stages(image)
    packages = {
        name: " ".join(part[name] for part in (system, python) if name in part)
        for name in {*system, *python}
    }
    sources = source_keys(stages, common.scripts, common.builder, packages)
    folders = {
        stage.section: f"{digest} {' '.join(source_command(image, stage))} "
        f"{sources[stage.addon.name]}"
        for stage in stages
    }
    return BuildInputs(
        base=digest or UNLOCKED,
        dockerfile=hashlib.sha256(instructions_of(dockerfile).encode()).hexdigest(),
        templates=common.templates,
        installer=common.installer if python else "",
        launcher=common.launcher,
        addons={addon.name: _addon_words(addon) for addon in image.addons},
        python=python,
        tools=binaries,
        wheels=" ".join(sorted({*recipes.values()})),
        layers=layer_keys(
            dockerfile,
            digest or image.base.tag,
            {
                **installed,
                **binaries,
                **files,
                **folders,
                **{
                    system_section(name): f"{key} {common.system_installer}"
                    for name, key in system.items()
                },
                **{bytecode_section(name): common.bytecode for name in python},
                LAUNCHER: f"{common.launcher} {image.base.family.python}",
            },
        ),
        files=files,
        sources=sources,
        architecture=facts.architecture,
        system=system,
        system_installer=common.system_installer if system else "",
        bytecode=common.bytecode if python and image.bytecode else "",
    )
