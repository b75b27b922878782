"""What lies in a data-root or a containerd root, told from its files alone.

The layout is moby's (moby/moby:daemon/daemon.go and its neighbours, 20.10 to 29) and containerd's.
What can be made again (layers, build cache, temporary files) is passed over; the rest exists only
here. Whatever neither of the two programs put there counts as somebody's own.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.core import write_atomic
from slipway.engine import BoltFile, BoltFileError
from slipway.storage.errors import StorageError

DOCKERS_NAMESPACES = ("moby", "plugins.moby")
PREDEFINED_NETWORKS = ("bridge", "host", "none", "ingress", "docker_gwbridge")
"""Made by every daemon, or by joining a swarm."""

_NETWORK_KEY = b"docker/network/v1.0/network/"
_METADATA = "io.containerd.metadata.v1.bolt/meta.db"
_CONTAINERDS = ("", "containerd", "containerd/daemon")
"""Below a root: containerd's own, the embedded engine's, the one that dockerd starts itself."""
_PATHS = ("LogPath", "HostnamePath", "HostsPath", "ResolvConfPath")  # of a container
_SOURCE_LABEL = b"containerd.io/distribution.source."
_COUNTED = ("images", "containers", "leases", "sandboxes")  # buckets of a namespace

_DOCKERS = (
    *("buildkit", "builder", "containerd", "containerd-opt", "containers", "engine-id", "image"),
    *("network", "nuke-graph-directory.sh", "plugins", "rootfs", "runtimes", "slipway-reserve"),
    *("swarm", "tmp", "tmp-old", "trust", "volumes", "lost+found"),
    *("aufs", "btrfs", "devicemapper", "fuse-overlayfs", "overlay", "overlay2", "overlayfs"),
    *("vfs", "windowsfilter", "zfs"),
)
_CONTAINERDS_OWN = re.compile(r"io\.containerd\..*|tmpmounts|lost\+found|opt|bin|lib")


@dataclass(frozen=True)
class DataFolders:
    """The folders whose content is asked for: dockerd's root, and a separate containerd's.

    Its methods raise StorageError for what cannot be read: then nobody knows what a deletion
    would take.
    """

    docker: Path
    containerd: Path | None = None
    own_namespaces: tuple[str, ...] = DOCKERS_NAMESPACES

    def _databases(self) -> list[Path]:
        """Those of the containerds at or below the roots."""
        roots = filter(None, (self.docker, self.containerd))
        paths = (root / below / _METADATA for root in roots for below in _CONTAINERDS)
        return [path for path in paths if path.exists()]

    def other_namespaces(self) -> dict[str, str]:
        """Namespaces of containerd that are not this Docker's, with what they hold."""
        namespaces: dict[str, str] = {}
        for path in self._databases():
            for key, _ in _bucket(path, b"v1"):
                name = key.decode(errors="replace")
                if name in self.own_namespaces or name == "version":
                    continue
                counts = {what: len(_bucket(path, b"v1", key, what.encode())) for what in _COUNTED}
                listed = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
                if listed:
                    namespaces[name] = listed
        return namespaces

    def has_content_images(self) -> bool:
        """Whether Docker's images are in containerd."""
        names = (b"v1", self.own_namespaces[0].encode(), b"images")
        return any(_bucket(path, *names) for path in self._databases())

    def from_registry(self, digest: str) -> bool:
        """Whether a registry gave an image, or was given it (containerd: core/remotes/docker)."""
        own = self.own_namespaces[0].encode()
        names = (b"v1", own, b"content", b"blob", digest.encode(), b"labels")
        labels = (label for path in self._databases() for label, _ in _bucket(path, *names))
        return any(label.startswith(_SOURCE_LABEL) for label in labels)

    def foreign_entries(self) -> tuple[str, ...]:
        """Names in the roots that neither program gave; empty folders do not count."""
        names = [name for name in _filled(self.docker) if name not in _DOCKERS]
        if self.containerd:
            names += [n for n in _filled(self.containerd) if not _CONTAINERDS_OWN.fullmatch(n)]
        return tuple(sorted(names))


def _filled(root: Path) -> list[str]:
    """What is in a root, empty folders apart."""
    return [
        path.name
        for path in (root.iterdir() if root.is_dir() else ())
        if path.is_symlink() or not path.is_dir() or any(path.iterdir())
    ]


def _bucket(path: Path, *names: bytes) -> list[tuple[bytes, bytes]]:
    try:
        return BoltFile(path).bucket(*names)
    except BoltFileError as error:
        raise StorageError(error.what, where=error.where) from error


def networks_at_rest(data_root: Path) -> tuple[str, ...]:
    """User-defined networks of a stopped daemon (moby/moby:libnetwork, datastore)."""
    path = data_root / "network/files/local-kv.db"
    if not path.exists():
        return ()
    names = []
    for key, value in _bucket(path, b"libnetwork"):
        if key.startswith(_NETWORK_KEY):
            # Eight bytes of libkv's own come before the JSON.
            record = _json(value[value.find(b"{") :], path)
            if record.get("scope") != "swarm":
                names.append(str(record.get("name")))
    return tuple(sorted(set(names).difference(PREDEFINED_NETWORKS)))


def plugins_at_rest(data_root: Path) -> tuple[str, ...]:
    """Managed plugins of a stopped daemon (moby/moby:plugin/v2)."""
    paths = sorted(data_root.glob("plugins/*/config.json"))
    records = [_json(path.read_bytes(), path).get("plugin") or {} for path in paths]
    return tuple(sorted(str(record.get("Name")) for record in records))


def swarm_at_rest(data_root: Path) -> bool:
    """Whether a stopped daemon is a member of a swarm (moby/moby:daemon/cluster)."""
    return any((data_root / "swarm" / name).exists() for name in ("docker-state.json", "raft"))


def images_at_rest(data_root: Path, driver: str) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Names by image id of a stopped daemon, and the names of images that no registry gave."""
    store = data_root / "image" / driver
    content = store / "imagedb/content/sha256"
    names: dict[str, list[str]] = {f"sha256:{path.name}": [] for path in content.glob("*")}
    pulled: Counter[str] = Counter()
    path = store / "repositories.json"
    repositories = _json(path.read_bytes(), path).get("Repositories", {}) if path.exists() else {}
    for tags in repositories.values():
        for name, image in tags.items():
            if image in names and "@" in name:
                pulled[image] += 1
            elif image in names:
                names[image].append(name)
    own = []
    for image, tags in names.items():
        if tags and not pulled[image]:
            config = content / image.removeprefix("sha256:")
            labels = (_json(config.read_bytes(), config).get("config") or {}).get("Labels")
            own += own_image_names(tags, labels)
    return names, tuple(sorted(own))


def own_image_names(tags: Collection[str], labels: Mapping[str, str] | None) -> list[str]:
    """The names of an image that only a person can make again: not one that Slipway builds."""
    if any(label.startswith("io.slipway.") for label in labels or ()):
        return []
    return [tag for tag in tags if not tag.startswith("slipway.local/")]


def _json(data: bytes, path: Path) -> dict[str, Any]:
    try:
        record = json.loads(data)
    except ValueError as error:
        raise StorageError(f"not a record of Docker's: {error}", where=str(path)) from error
    if not isinstance(record, dict):
        raise StorageError("not a record of Docker's", where=str(path))
    return record


def repoint(data_root: Path, old: Path, new: Path) -> None:
    """Have the containers in `data_root` know `new` where they know `old`.

    What a person gave as a bind mount stays as it is. Again: nothing changes.
    """
    for path in sorted(data_root.glob("containers/*/config.v2.json")):
        try:
            record = json.loads(path.read_bytes())
            if _repoint(record, old, new):
                text = json.dumps(record, separators=(",", ":"), ensure_ascii=False)
                write_atomic(path, text, mode=path.stat().st_mode & 0o7777)
        except (ValueError, AttributeError) as error:
            raise StorageError(f"not a container's record: {error}", where=str(path)) from error


def _repoint(record: dict[str, Any], old: Path, new: Path) -> bool:
    changed = False
    named = [point for point in (record.get("MountPoints") or {}).values() if point.get("Name")]
    for holder, field in [(record, field) for field in _PATHS] + [(p, "Source") for p in named]:
        value = holder.get(field)
        if isinstance(value, str) and value.startswith(f"{old}/"):
            holder[field] = f"{new}{value[len(str(old)) :]}"
            changed = True
    return changed
