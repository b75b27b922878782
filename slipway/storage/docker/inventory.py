"""What a Docker has: listed before a move, and compared after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from slipway.engine import Engine, sdk_errors
from slipway.storage.docker.data_folder import (
    PREDEFINED_NETWORKS,
    DataFolders,
    images_at_rest,
    networks_at_rest,
    own_image_names,
    plugins_at_rest,
    swarm_at_rest,
)

IN_FILES = ("overlay2", "overlayfs", "overlay", "fuse-overlayfs", "native", "vfs", "aufs")
"""Storage drivers (and snapshotters) whose layers are plain folders."""
_SHOWN = 5
_NO_TAG = "<none>:<none>"


@dataclass(frozen=True)
class DockerInventory:
    """Images by id with their names, volumes by name, containers by id with their names.

    `running` are the ids of containers that run; `transient` those of them that `--rm` removes
    when they stop. `own_images` are the names of images that no registry gave and Slipway did not
    build. `swarm` says that the daemon is in one; secrets, configs and services are known on its
    managers, while they run. `namespaces` are those of containerd that are not Docker's, with what
    they hold; `foreign` are names of files in the roots that neither program put there.
    """

    driver: str
    images: Mapping[str, tuple[str, ...]]
    volumes: tuple[str, ...]
    containers: Mapping[str, str]
    running: tuple[str, ...]
    transient: tuple[str, ...] = ()
    own_images: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    swarm: bool = False
    secrets: tuple[str, ...] = ()
    configs: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    namespaces: Mapping[str, str] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()

    def names(self, ids: tuple[str, ...]) -> str:
        """Containers as a person knows them."""
        return ", ".join(self.containers[container] for container in ids)

    @property
    def irreplaceable(self) -> str:
        """What exists nowhere else, images of no registry among it; empty where nothing does."""
        own = _counted(self.own_images, "images of no registry")
        return _joined((self.unique, own))

    @property
    def unique(self) -> str:
        """What no pull and no build makes again; empty where there is nothing of that kind."""
        kinds = {"secrets": self.secrets, "configs": self.configs, "services": self.services}
        held = _joined(_counted(names, kind) for kind, names in kinds.items())
        parts = (
            _counted(self.volumes, "volumes", named=False),
            _counted(self.containers.values(), "containers", named=False),
            _counted(self.networks, "networks"),
            _counted(self.plugins, "plugins"),
            f"membership in a swarm{f' ({held})' if held else ''}" if self.swarm else "",
            *(f"containerd namespace {name} ({what})" for name, what in self.namespaces.items()),
            _counted(self.foreign, "other files"),
        )
        return _joined(parts)

    def kinds(self) -> dict[str, tuple[str, ...]]:
        """Names by kind, of all that is compared by name alone."""
        return {
            "volume": self.volumes,
            "network": self.networks,
            "plugin": self.plugins,
            "swarm": ("this node's membership",) if self.swarm else (),
            "secret": self.secrets,
            "config": self.configs,
            "service": self.services,
            "containerd namespace": tuple(self.namespaces),
            "file": self.foreign,
        }


def _counted(names: Iterable[str], plural: str, *, named: bool = True) -> str:
    """`2 networks (a, b)`; of many, the first few names."""
    listed = sorted(names)
    more = ", ..." if len(listed) > _SHOWN else ""
    shown = f" ({', '.join(listed[:_SHOWN])}{more})" if named else ""
    return f"{len(listed)} {plural}{shown}" if listed else ""


def _joined(parts: Iterable[str]) -> str:
    given = [part for part in parts if part]
    return " and ".join(filter(None, (", ".join(given[:-1]), *given[-1:])))


def take_inventory(engine: Engine, folders: DataFolders | None = None) -> DockerInventory:
    """List everything, with `folders` also what only their files tell. Raises SlipwayError."""
    api: Any = engine.client.api  # the SDK types some of these calls, and not others
    with sdk_errors(engine, "listing what is in the daemon"):
        images = api.images(all=True)
        volumes = api.volumes()["Volumes"] or []
        containers = api.containers(all=True)
        running = [c["Id"] for c in containers if c["State"] in ("running", "paused", "restarting")]
        transient = [c for c in running if api.inspect_container(c)["HostConfig"]["AutoRemove"]]
        networks = [n["Name"] for n in api.networks() if n.get("Scope") != "swarm"]
        plugins = [plugin["Name"] for plugin in api.plugins()]
        info = api.info()
        swarm = info.get("Swarm") or {}
        managed = bool(swarm.get("ControlAvailable"))
        kept: dict[str, Any] = {
            kind: tuple(sorted(item["Spec"]["Name"] for item in listing())) if managed else ()
            for kind, listing in (
                ("secrets", api.secrets),
                ("configs", api.configs),
                ("services", api.services),
            )
        }
    own = [
        name
        for image in images
        if not _from_registry(engine, image, folders)
        for name in own_image_names(image["RepoTags"] or (), image.get("Labels"))
        if name != _NO_TAG
    ]
    return DockerInventory(
        driver=str(info["Driver"]),
        images={i["Id"]: tuple(sorted(i["RepoTags"] or ())) for i in images},
        volumes=tuple(sorted(volume["Name"] for volume in volumes)),
        containers={c["Id"]: _name(c) for c in containers},
        running=tuple(sorted(running)),
        transient=tuple(sorted(transient)),
        own_images=tuple(sorted(own)),
        networks=tuple(sorted(set(networks).difference(PREDEFINED_NETWORKS))),
        plugins=tuple(sorted(plugins)),
        swarm=swarm.get("LocalNodeState", "inactive") not in ("", "inactive"),
        **kept,
        namespaces=folders.other_namespaces() if folders else {},
        foreign=folders.foreign_entries() if folders else (),
    )


def _from_registry(engine: Engine, image: Mapping[str, Any], folders: DataFolders | None) -> bool:
    """In the containerd store an image that was built here has a digest under its name as well."""
    if not engine.containerd_store or folders is None:
        return bool(image.get("RepoDigests"))
    return folders.from_registry(image["Id"])


def _name(container: Mapping[str, Any]) -> str:
    names = container["Names"] or [container["Id"][:12]]
    return str(names[0]).lstrip("/")


def daemon_at_rest(folders: DataFolders) -> DockerInventory | None:
    """What a stopped daemon holds, told from its files; None for an unknown form.

    moby/moby keeps image configurations under image/DRIVER/imagedb, and one folder for each volume
    and container. With the containerd image store only containerd knows the images.
    """
    root = folders.docker
    drivers = sorted(path.name for path in root.glob("image/*") if path.is_dir())
    if len(drivers) != 1 or folders.has_content_images():
        return None
    names, own = images_at_rest(root, drivers[0])
    return DockerInventory(
        driver=drivers[0],
        images={image: tuple(sorted(tags)) for image, tags in names.items()},
        volumes=tuple(sorted(p.name for p in root.glob("volumes/*") if p.is_dir())),
        containers={p.name: p.name[:12] for p in root.glob("containers/*") if p.is_dir()},
        running=(),
        own_images=own,
        networks=networks_at_rest(root),
        plugins=plugins_at_rest(root),
        swarm=swarm_at_rest(root),
        namespaces=folders.other_namespaces(),
        foreign=folders.foreign_entries(),
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
    now = after.kinds()
    for kind, names in before.kinds().items():
        lost += [f"{kind} {name}" for name in names if name not in now[kind]]
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
