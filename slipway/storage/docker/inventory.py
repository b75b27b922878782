"""What a Docker has: listed before a move, and compared after it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slipway.engine import Engine, sdk_errors

IN_FILES = ("overlay2", "overlayfs", "overlay", "fuse-overlayfs", "native", "vfs", "aufs")
"""Storage drivers (and snapshotters) whose layers are plain folders."""


@dataclass(frozen=True)
class DockerInventory:
    """Images by id with their names, volumes by name, containers by id with their names.

    `running` are the ids of containers that run; `transient` those of them that `--rm` removes
    when they stop.
    """

    driver: str
    images: Mapping[str, tuple[str, ...]]
    volumes: tuple[str, ...]
    containers: Mapping[str, str]
    running: tuple[str, ...]
    transient: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For the journal."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DockerInventory:
        """From the journal."""
        return cls(
            driver=data["driver"],
            images={image: tuple(names) for image, names in data["images"].items()},
            volumes=tuple(data["volumes"]),
            containers=data["containers"],
            running=tuple(data["running"]),
            transient=tuple(data["transient"]),
        )

    def names(self, ids: tuple[str, ...]) -> str:
        """Containers as a person knows them."""
        return ", ".join(self.containers[container] for container in ids)

    @property
    def irreplaceable(self) -> str:
        """What cannot be made again by pulling or building; empty where there is none."""
        counts = ((len(self.volumes), "volumes"), (len(self.containers), "containers"))
        return " and ".join(f"{count} {what}" for count, what in counts if count)


def take_inventory(engine: Engine) -> DockerInventory:
    """List everything. Raises EngineError."""
    api = engine.client.api
    with sdk_errors(engine, "listing images, volumes and containers"):
        images = api.images(all=True)
        volumes = api.volumes()["Volumes"] or []
        containers = api.containers(all=True)
        running = [c["Id"] for c in containers if c["State"] in ("running", "paused", "restarting")]
        transient = [
            container
            for container in running
            if api.inspect_container(container)["HostConfig"]["AutoRemove"]
        ]
        driver = str(api.info()["Driver"])
    return DockerInventory(
        driver=driver,
        images={i["Id"]: tuple(sorted(i["RepoTags"] or ())) for i in images},
        volumes=tuple(sorted(volume["Name"] for volume in volumes)),
        containers={c["Id"]: _name(c) for c in containers},
        running=tuple(sorted(running)),
        transient=tuple(sorted(transient)),
    )


def _name(container: Mapping[str, Any]) -> str:
    names = container["Names"] or [container["Id"][:12]]
    return str(names[0]).lstrip("/")


def daemon_at_rest(data_root: Path) -> DockerInventory | None:
    """What a data-root of a stopped daemon holds, told from its files; None for an unknown form.

    moby/moby keeps image configurations under image/DRIVER/imagedb, and one folder for each volume
    and container. With the containerd image store only containerd knows the images.
    """
    drivers = sorted(path.name for path in data_root.glob("image/*") if path.is_dir())
    if len(drivers) != 1:
        return None
    content = data_root / "image" / drivers[0] / "imagedb/content/sha256"
    names: dict[str, list[str]] = {f"sha256:{path.name}": [] for path in content.glob("*")}
    repositories = data_root / "image" / drivers[0] / "repositories.json"
    if repositories.exists():
        for tags in json.loads(repositories.read_text())["Repositories"].values():
            for name, image in tags.items():
                if "@" not in name and image in names:
                    names[image].append(name)
    return DockerInventory(
        driver=drivers[0],
        images={image: tuple(sorted(tags)) for image, tags in names.items()},
        volumes=tuple(sorted(p.name for p in data_root.glob("volumes/*") if p.is_dir())),
        containers={p.name: p.name[:12] for p in data_root.glob("containers/*") if p.is_dir()},
        running=(),
    )


def lost_objects(before: DockerInventory, after: DockerInventory) -> tuple[str, ...]:
    """What was there before and is not any more, each as a phrase."""
    lost: list[str] = []
    if before.driver != after.driver:
        lost.append(f"the storage driver {before.driver} (it is {after.driver} now)")
    for image, tags in before.images.items():
        if image not in after.images:
            lost.append(f"image {', '.join(tags) or image}")
        else:
            gone = set(tags) - set(after.images[image])
            lost += [f"the name {tag} of an image" for tag in sorted(gone)]
    lost += [f"volume {name}" for name in before.volumes if name not in after.volumes]
    lost += [
        f"container {name}"
        for container, name in before.containers.items()
        if container not in after.containers and container not in before.transient
    ]
    return tuple(lost)


def objects_since(before: DockerInventory, after: DockerInventory) -> tuple[str, ...]:
    """What is there now and was not before, each as a phrase."""
    return tuple(
        item for item in lost_objects(after, before) if not item.startswith("the storage driver")
    )
