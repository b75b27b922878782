"""What containerd keeps of an image on this machine: blobs, and layers that are unpacked already.

Its API would have to be asked for a view of a snapshot, which it would then keep; its two
databases are files in bbolt's format, and reading them changes nothing. Below containerd's root
(containerd/containerd: docs/ops.md, core/metadata/buckets.go, core/snapshots/storage/bolt.go):

    io.containerd.metadata.v1.bolt/meta.db           v1/NAMESPACE/snapshots/overlayfs/CHAIN ID/name
    io.containerd.snapshotter.v1.overlayfs/          metadata.db: v1/snapshots/NAME/id
        snapshots/ID/fs                              the layer's folder, as overlayfs keeps it
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from slipway.engine import BoltFile, BoltFileError

_METADATA = "io.containerd.metadata.v1.bolt/meta.db"
_SNAPSHOTTER = "io.containerd.snapshotter.v1.overlayfs"
_NAMESPACES = (b"moby", b"default", b"k8s.io")


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """The chain id of each layer with those below it (image-spec: "Layer ChainID")."""
    chain: list[str] = []
    for diff_id in diff_ids:
        pair = f"{chain[-1]} {diff_id}".encode() if chain else b""
        chain.append(f"sha256:{hashlib.sha256(pair).hexdigest()}" if pair else diff_id)
    return chain


def snapshot_folders(root: Path, diff_ids: Sequence[str]) -> list[Path] | None:
    """The folders of an image's layers, lowest first; None where one is not there or not ours.

    The chain id that names a snapshot is made of the layers' digests, so a folder that is there
    has the layer's content, whichever engine had it unpacked.
    """
    metadata = BoltFile(root / _METADATA)
    snapshots = BoltFile(root / _SNAPSHOTTER / "metadata.db")
    for namespace in _NAMESPACES:
        folders = []
        try:
            for chain in chain_ids(diff_ids):
                path = (b"v1", namespace, b"snapshots", b"overlayfs", chain.encode(), b"name")
                name = metadata.look_up(*path)
                number = snapshots.look_up(b"v1", b"snapshots", name, b"id") if name else None
                if number is None:
                    break
                folder = root / _SNAPSHOTTER / "snapshots" / str(_uvarint(number)) / "fs"
                if not folder.is_dir():
                    break
                folders.append(folder)
        except (OSError, BoltFileError):
            return None
        if len(folders) == len(diff_ids):
            return folders
    return None


def _uvarint(data: bytes) -> int:
    """An unsigned number as Go's encoding/binary has it: seven bits a byte, lowest first."""
    return sum((byte & 0x7F) << (7 * at) for at, byte in enumerate(data))
