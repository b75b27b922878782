"""What is in a base, as `inv lock --inventory` has read it: images/lock/inventory, one file a base.

Python distributions and the configuration stand in the base's own lock; here is the rest. The file
speaks of one digest, and of no other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.core import BadInputError, Project, SlipwayError, write_atomic
from slipway.records.locks import BaseLock


@dataclass(frozen=True, order=True)
class SystemPackage:
    """A package of the distribution. `source` is what it was built from: advisories name that."""

    name: str
    version: str
    architecture: str
    source: str
    source_version: str

    def __str__(self) -> str:
        """Three words; five where its source has another name or version."""
        words = [self.name, self.version, self.architecture or "-"]
        if (self.source, self.source_version) != (self.name, self.version):
            words += [self.source, self.source_version]
        return " ".join(words)

    @classmethod
    def parse(cls, text: str) -> SystemPackage:
        """The inverse of `str`. Raises ValueError."""
        name, version, architecture, *source = text.split(" ")
        if len(source) not in (0, 2):
            raise ValueError(f"not a package: {text!r}")
        return cls(name, version, architecture.removeprefix("-"), *(source or [name, version]))


@dataclass(frozen=True)
class ImageInventory:
    """What is in an image, by name and version.

    `system` is None where the packages of the distribution cannot be told; `unknown` says what
    cannot be told, and why. `layers`: digest and compressed bytes of each, lowest first.
    """

    distribution: str  # "debian 12"; "" where nothing says it
    manager: str  # "dpkg", "rpm", "" for none
    python: Mapping[str, str]  # canonical name -> version
    system: tuple[SystemPackage, ...] | None
    config: Mapping[str, Any]  # Env, Entrypoint, Cmd, User, WorkingDir, Labels
    layers: tuple[tuple[str, int], ...]
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class PackageDatabase:
    """What is installed in a base, as its package manager keeps it: what a resolver starts from."""

    manager: str  # "dpkg", "rpm"
    content: bytes  # dpkg's status, or rpm's SQLite file
    log: bytes = b""  # rpm's write-ahead log beside it


def inventory_path(project: Project, base: str) -> Path:
    """The file with what is in a base."""
    return project.locks / "inventory" / f"{base}.json"


def write_inventory(project: Project, lock: BaseLock, inventory: ImageInventory) -> None:
    """Record what is in a base at the digest that its lock has."""
    write_atomic(inventory_path(project, lock.base), inventory_text(lock, inventory))


def inventory_text(lock: BaseLock, inventory: ImageInventory) -> str:
    """As JSON, one line a package, so that a change reads as one."""
    document = {
        "base": lock.base,
        "digest": lock.digest,
        "distribution": inventory.distribution,
        "manager": inventory.manager,
        "system": None if inventory.system is None else list(map(str, inventory.system)),
        "layers": [f"{digest} {size}" for digest, size in inventory.layers],
        "unknown": list(inventory.unknown),
    }
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def load_inventory(project: Project, lock: BaseLock) -> ImageInventory | None:
    """What is in a base at its locked digest; None where that is not recorded.

    Raises BadInputError for a file that cannot be read.
    """
    path = inventory_path(project, lock.base)
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text("utf-8"))
        if document["digest"] != lock.digest:
            return None
        system = document["system"]
        layers = [line.split(" ") for line in document["layers"]]
        return ImageInventory(
            distribution=document["distribution"],
            manager=document["manager"],
            python=lock.packages or {},
            system=None if system is None else tuple(map(SystemPackage.parse, system)),
            config=lock.config or {},
            layers=tuple((digest, int(size)) for digest, size in layers),
            unknown=tuple(document["unknown"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInputError(
            [
                SlipwayError(
                    f"not an inventory of a base: {error}",
                    where=str(path),
                    cure="Remove the file and run `./inv lock --inventory` to write it again.",
                )
            ]
        ) from error
