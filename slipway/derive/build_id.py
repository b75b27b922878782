"""Everything that decides what is inside an image, and the one hash over it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slipway.core import Project, sha256_file, tree_sha256
from slipway.derive.dockerfile import render_dockerfile
from slipway.matrix import Image, Tool
from slipway.records import Locks, PythonLock, python_lock_keys

ARCHITECTURE = "amd64"
"""The one architecture of the bases in the matrix today."""


@dataclass(frozen=True)
class SharedInputs:
    """Inputs that are the same for every image of a checkout; hashed once, not once an image."""

    templates: str
    installer: str
    launcher: str


@dataclass(frozen=True)
class BuildInputs:
    """What decides an image's content. No dates, no users, no git revisions, no hosts."""

    base: str  # digest; the recipe's hash for a base of our own; "unlocked" while not known
    dockerfile: str
    templates: str
    installer: str
    launcher: str
    addons: Mapping[str, str]  # name -> "version (action)"
    python: Mapping[str, str]  # add-on -> hash of its pins
    tools: Mapping[str, str]  # tool -> hash of its binary

    @property
    def build_id(self) -> str:
        """sha256 over canonical JSON of all of these but the templates.

        The templates are kept to explain a change; what they decide is in `dockerfile` already, so
        an edit that changes no Dockerfile rebuilds nothing.
        """
        content = self.as_json()
        del content["templates"]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(f"linux/{ARCHITECTURE}\n{canonical}".encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """As plain values, for a record."""
        return dataclasses.asdict(self)


UNLOCKED = "unlocked"


def shared_inputs(project: Project) -> SharedInputs:
    """Hash what all images share."""
    return SharedInputs(
        templates=tree_sha256(project.templates),
        installer=sha256_file(project.installer),
        launcher=tree_sha256(project.launcher),
    )


def _pins_hash(lock: PythonLock) -> str:
    lines = [f"{pin.name}=={pin.version} {','.join(sorted(pin.hashes))}" for pin in lock.pins]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def build_inputs(
    project: Project,
    image: Image,
    locks: Locks,
    tools: tuple[Tool, ...],
    common: SharedInputs,
    local_base: str | None = None,
) -> BuildInputs:
    """The inputs of one image. `local_base` is the recipe's hash of a base that Slipway builds."""
    base_lock = locks.bases.get(image.base.name)
    digest = local_base if image.base.registry is None else base_lock and base_lock.digest
    keys = python_lock_keys(image, base_lock)
    return BuildInputs(
        base=digest or UNLOCKED,
        dockerfile=hashlib.sha256(
            render_dockerfile(image, locks, tools, project.templates).encode()
        ).hexdigest(),
        templates=common.templates,
        installer=common.installer,
        launcher=common.launcher,
        addons={a.name: f"{a.version or 'unknown'} ({a.action})" for a in image.addons},
        python={
            addon.name: _pins_hash(locks.python[key]) if key in locks.python else UNLOCKED
            for addon, key in keys
        },
        tools={
            tool.name: locks.tools[tool.name].files[ARCHITECTURE].binary_sha256
            if tool.name in locks.tools
            else UNLOCKED
            for tool in tools
            if image.addon(tool.name)
        },
    )
