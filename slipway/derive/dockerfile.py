"""Image -> Dockerfile text. Pure: the same image and locks give the same text anywhere."""

from __future__ import annotations

import functools
import json
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from slipway.derive.repository_files import copy_words, files_section
from slipway.derive.source_stages import source_command, source_stages
from slipway.matrix import (
    IMAGE_REGISTRY,
    LOCAL_REGISTRY,
    Addon,
    Image,
    Tool,
    explain_image,
    tag_stem,
)
from slipway.records import Locks


def dockerfile_quoted(text: str) -> str:
    """`text` as one quoted Dockerfile word: single quotes, which escape nothing, where they do."""
    if '"' in text and "'" not in text:
        return f"'{text}'"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'


def environment_value(text: str) -> str:
    """A value of ENV: as it is where it is one word to a Dockerfile, else quoted."""
    return text if re.fullmatch(r"[A-Za-z0-9_./:@%+,=-]+", text) else dockerfile_quoted(text)


@functools.lru_cache(maxsize=1024)  # the same reason stands in many images
def comment_lines(text: str) -> str:
    """`text` as Dockerfile comment lines."""
    return textwrap.fill(text, 100, initial_indent="# ", subsequent_indent="# ")


@functools.lru_cache(maxsize=4)
def _template(folder: Path) -> Template:
    environment = Environment(  # noqa: S701 - Dockerfiles, not HTML
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = dockerfile_quoted
    environment.filters["value"] = environment_value
    environment.filters["comment"] = comment_lines
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    return environment.get_template("Dockerfile.j2")


def base_registry(image: Image) -> str:
    """The default of the BASE_REGISTRY argument: where the base is had without choosing a region.

    A base that no public gallery mirrors gets a host that cannot exist, so that a build which does
    not name a region fails at once and says so.
    """
    registry = image.base.registry
    if image.base.image is not None:
        return IMAGE_REGISTRY
    if registry is None:
        return LOCAL_REGISTRY
    if registry.host is not None:
        return registry.host
    if registry.public and image.base.repository in registry.public_repositories:
        return registry.public
    return f"{registry.name}.needs-a-region.invalid"


def platform_flag(image: Image) -> str:
    """What FROM says of a base that is not of the architecture that most are of."""
    architecture = image.base.facts.architecture
    return "" if architecture == "amd64" else f"--platform=linux/{architecture} "


def base_argument(image: Image, locks: Locks) -> str:
    """Repository, tag and, where it is known, digest of the base.

    Of an image of the matrix the build is not named, which every change of the launcher moves.
    """
    if image.base.image is not None:
        return f"{image.base.repository}:{image.base.tag}${{BASE_BUILD}}"
    lock = locks.bases.get(image.base.name)
    digest = f"@{lock.digest}" if lock and lock.digest else ""
    return f"{image.base.repository}:{image.base.tag}{digest}"


def install_command(image: Image, addon: Addon) -> list[str]:
    """What runs in the build to install one Python add-on. It leaves no bytecode of its own."""
    command = [image.base.family.python, "-B", "/mnt/install_addons.py", addon.name]
    if addon.action == "replace":
        command += ["--replace", addon.name]
    for package in sorted(image.base.moves):
        command += ["--may-move", package]
    return command


def bytecode_command(image: Image, addon: Addon) -> list[str]:
    """What runs in the build to compile the modules of one Python add-on."""
    return [image.base.family.python, "-B", "/mnt/compile_bytecode.py", addon.name]


def bytecode_section(addon: str) -> str:
    """The name of the layer with the bytecode of an add-on's modules."""
    return f"{addon}:bytecode"


PACKAGE_COMMAND = ["sh", "/mnt/install_packages.sh"]
"""What runs in the build to install the packages of the distribution that an add-on has."""


def system_section(addon: str) -> str:
    """The name of the layer with an add-on's packages of the distribution."""
    return f"{addon}:system"


def environment_of(image: Image) -> dict[str, str]:
    """ENV of the image beyond what its add-ons always bring."""
    environment = {
        "PYTHONUNBUFFERED": "1",
        # For the launcher and for login shells, which set PATH anew: what both were here.
        "SLIPWAY_PATH": "$PATH",
        "SLIPWAY_PYTHON": image.base.family.python,
    }
    for addon in image.addons:
        environment |= addon.mismatch_env
    return environment


def labels_of(image: Image, locks: Locks) -> dict[str, str]:
    """OCI labels, and the resolved matrix cell as JSON."""
    lock = locks.bases.get(image.base.name)
    labels = {
        "org.opencontainers.image.title": image.name,
        "org.opencontainers.image.version": tag_stem(image),
        "org.opencontainers.image.licenses": "Apache-2.0 AND MIT",
        "org.opencontainers.image.base.name": f"{base_registry(image)}/{image.base.repository}"
        f":{image.base.tag}",
        "io.slipway.matrix": json.dumps(
            explain_image(image), sort_keys=True, separators=(",", ":")
        ),
    }
    for addon in image.addons:
        labels |= addon.labels
    if lock and lock.digest:
        labels["org.opencontainers.image.base.digest"] = lock.digest
    return labels


def _titled(addon: Addon) -> str:
    if addon.action == "keep" and addon.version is None:
        return f"{addon.name} (version of the base)"
    return addon.title


def render_dockerfile(image: Image, locks: Locks, tools: Iterable[Tool], templates: Path) -> str:
    """The Dockerfile of one image."""
    layers = [f"{_titled(a)} ({a.action})" for a in image.addons]
    return _template(templates).render(
        image=image,
        facts=image.base.facts,
        layers=[*layers, "launcher"],
        base_registry=base_registry(image),
        base_reference=base_argument(image, locks),
        platform=platform_flag(image),
        tools=[tool for tool in tools if image.brings(tool.name)],
        environment=environment_of(image),
        labels=labels_of(image, locks),
        install_command=lambda addon: install_command(image, addon),
        bytecode_command=lambda addon: bytecode_command(image, addon),
        bytecode_section=bytecode_section,
        package_command=PACKAGE_COMMAND,
        system_section=system_section,
        stages=source_stages(image),
        source_command=lambda stage: source_command(image, stage),
        files_section=files_section,
        copy_words=copy_words,
    )
