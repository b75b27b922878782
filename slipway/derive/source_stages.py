"""Builds from source in an image: a stage each, and what decides what comes out of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from slipway.core import Project, SlipwayError, sha256_file
from slipway.matrix import Addon, Image, SourceBuild


@dataclass(frozen=True)
class SourceStage:
    """A stage of the Dockerfile in which a script makes one folder of the image."""

    addon: Addon
    build: SourceBuild
    below: tuple[SourceStage, ...]  # whose folders are there when the script runs
    packages: tuple[Addon, ...] = ()  # add-ons whose packages are installed when it runs

    @property
    def name(self) -> str:
        """The name of the stage."""
        return f"source-{self.addon.name}"

    @property
    def section(self) -> str:
        """The name of the layer with the folder."""
        return f"{self.addon.name}:{self.build.folder}"


def source_stages(image: Image) -> tuple[SourceStage, ...]:
    """The stages of an image, in the order of its add-ons: what one needs stands before it."""
    stages: dict[str, SourceStage] = {}
    for addon in image.own_addons:
        if addon.source is not None:
            needed = tuple(dict.fromkeys(_needed(image, addon)))
            below = tuple(stages[name] for name in needed if name in stages)
            packages = _packages(image, needed)
            stages[addon.name] = SourceStage(addon, addon.source, below, packages)
    return tuple(stages.values())


def _needed(image: Image, addon: Addon) -> Iterator[str]:
    """Names of all that an add-on stands on, lowest first."""
    for name in addon.needs:
        other = image.addon(name)
        if other is not None:
            yield from _needed(image, other)
            yield name


def _packages(image: Image, needed: tuple[str, ...]) -> tuple[Addon, ...]:
    """The packages of a stage: what it needs, and what that was resolved on top of."""
    installed = [a for a in image.own_addons if a.requirements or a.system]
    last = max((i for i, a in enumerate(installed, 1) if a.name in needed), default=0)
    return tuple(installed[:last])


def source_command(image: Image, stage: SourceStage) -> list[str]:
    """What runs in the stage."""
    family = image.base.family
    words = ["env", f"SLIPWAY_PYTHON={family.python}"]
    if image.base.facts.device == "gpu" and family.cuda_home:
        words.append(f"CUDA_HOME={family.cuda_home}")
    words += ["sh", "/mnt/build_source.sh", stage.build.folder]
    return [*words, *stage.build.gives]


def script_hashes(project: Project, builds: Mapping[str, SourceBuild]) -> dict[str, str]:
    """sha256 of the script of each add-on. Raises SlipwayError where one is not there."""
    hashes = {}
    for addon, build in builds.items():
        path = project.root / build.script
        if not path.is_file() or path.is_symlink():
            raise SlipwayError(
                f"{addon} is built by {build.script}, and there is no file of that name in the "
                "repository",
                where="versions.yaml",
                cure="Correct `script`, or put it there.",
            )
        hashes[addon] = sha256_file(path)
    return hashes


def source_keys(
    stages: tuple[SourceStage, ...],
    scripts: Mapping[str, str],
    driver: str,
    packages: Mapping[str, str],
) -> dict[str, str]:
    """Add-on -> hash of all but the base that decides what its folder holds.

    `packages`: add-on -> hash of what it installs.
    """
    keys: dict[str, str] = {}
    for stage in stages:
        inputs = sorted(f"{each.name} {each.sha256}" for each in stage.build.inputs)
        below = [keys[other.addon.name] for other in stage.below]
        below += [f"{addon.name} {packages[addon.name]}" for addon in stage.packages]
        lines = [driver, scripts[stage.addon.name], stage.build.folder, *inputs, *below]
        keys[stage.addon.name] = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return keys
