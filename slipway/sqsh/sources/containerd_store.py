"""What containerd keeps of an image on this machine: blobs, and layers that are unpacked already.

Its API would have to be asked for a view of a snapshot, which it would then keep; its two
databases are files in bbolt's format, and reading them changes nothing. Below containerd's root
(containerd/containerd: docs/ops.md, core/metadata/buckets.go, core/snapshots/storage/bolt.go):

    io.containerd.metadata.v1.bolt/meta.db           v1/NAMESPACE/snapshots/overlayfs/CHAIN ID/name
    io.containerd.snapshotter.v1.overlayfs/          metadata.db: v1/snapshots/NAME/id
        snapshots/ID/fs                              the layer's folder, as overlayfs keeps it

bbolt's files (etcd-io/bbolt: page.go, bucket.go) are pages: a head of id, flags, count and
overflow, then elements. Two meta pages take turns in naming the root; a writer never changes pages
that the last meta page leads to, but may use them again after the next one is written. So a look-up
is good if the same meta page is the newest before and after it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_METADATA = "io.containerd.metadata.v1.bolt/meta.db"
_SNAPSHOTTER = "io.containerd.snapshotter.v1.overlayfs"
_NAMESPACES = (b"moby", b"default", b"k8s.io")

_MAGIC, _VERSION = 0xED0CDAED, 2
_PAGE = struct.Struct("<QHHI")  # id, flags, count, overflow
_META = struct.Struct("<IIIIQQQQQQ")  # magic, version, page size, flags, root, sequence, ...
_BRANCH_FLAG, _LEAF_FLAG, _META_FLAG, _BUCKET_FLAG = 1, 2, 4, 1
_BRANCH = struct.Struct("<IIQ")  # position, key size, page
_LEAF = struct.Struct("<IIII")  # flags, position, key size, value size
_BUCKET = struct.Struct("<QQ")  # root page, sequence
_DEPTH_MAX = 64
_TRIES = 5


class BoltFileError(ValueError):
    """The file is not a bbolt database, or was changed while it was read."""


class BoltFile:
    """Look-ups in a bbolt database, by the names of buckets and a key."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def look_up(self, *keys: bytes) -> bytes | None:
        """The value under buckets and a key; None where one of them is missing.

        Raises BoltFileError and OSError.
        """
        for _ in range(_TRIES):
            with self._path.open("rb") as stream, suppress(struct.error, BoltFileError, IndexError):
                before = _newest_meta(stream.read(1 << 17))
                reader = _BoltReader(self._path, before[4], before[2])
                value = reader.look_up(keys)
                stream.seek(0)
                if _newest_meta(stream.read(1 << 17)) == before:
                    return value
        raise BoltFileError(f"{self._path} could not be read")


def _newest_meta(data: bytes) -> tuple[int, ...]:
    """The meta page with the highest transaction: its fields."""
    metas = []
    for size in (4096, 8192, 16384, 65536):
        for start in (0, size):
            page = data[start : start + _PAGE.size + _META.size]
            if len(page) < _PAGE.size + _META.size:
                continue
            meta = _META.unpack_from(page, _PAGE.size)
            right = (meta[0], meta[1], meta[2]) == (_MAGIC, _VERSION, size) and meta[9] == _fnv(
                page[_PAGE.size : _PAGE.size + _META.size - 8]
            )
            if right:
                metas.append(meta)
    if not metas:
        raise BoltFileError("not a bbolt database")
    return max(metas, key=lambda meta: meta[8])


def _fnv(data: bytes) -> int:
    """FNV-1a of 64 bits, bbolt's checksum."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & ((1 << 64) - 1)
    return value


class _BoltReader:
    def __init__(self, path: Path, root: int, page_size: int) -> None:
        self._path = path
        self._root = root
        self._page_size = page_size

    def look_up(self, keys: Sequence[bytes]) -> bytes | None:
        """Down through the buckets; an inline bucket has its one page in its own value."""
        page: int | bytes = self._root
        with self._path.open("rb") as stream:
            self._stream = stream
            for at, key in enumerate(keys):
                item = self._find(page, key)
                if item is None:
                    return None
                is_bucket, value = item
                last = at == len(keys) - 1
                if last or not is_bucket:
                    return value if last and not is_bucket else None
                root, _ = _BUCKET.unpack_from(value)
                page = root or value[_BUCKET.size :]
        return None

    def _read(self, number: int) -> bytes:
        self._stream.seek(number * self._page_size)
        data = self._stream.read(self._page_size)
        overflow = _PAGE.unpack_from(data)[3]
        if overflow > 1 << 20:
            raise BoltFileError("an impossible page")
        return data + self._stream.read(overflow * self._page_size)

    def _find(self, page: int | bytes, key: bytes) -> tuple[bool, bytes] | None:
        for _ in range(_DEPTH_MAX):
            data = page if isinstance(page, bytes) else self._read(page)
            _, flags, count, _ = _PAGE.unpack_from(data)
            if flags & _LEAF_FLAG:
                return _find_in_leaf(data, count, key)
            if not flags & _BRANCH_FLAG or not count:
                raise BoltFileError("an impossible page")
            following = None
            for at in range(count):
                start = _PAGE.size + at * _BRANCH.size
                position, size, child = _BRANCH.unpack_from(data, start)
                if at and data[start + position : start + position + size] > key:
                    break
                following = child
            assert following is not None
            page = following
        raise BoltFileError("a tree without leaves")


def _find_in_leaf(data: bytes, count: int, key: bytes) -> tuple[bool, bytes] | None:
    for at in range(count):
        start = _PAGE.size + at * _LEAF.size
        flags, position, key_size, value_size = _LEAF.unpack_from(data, start)
        begin = start + position
        if data[begin : begin + key_size] == key:
            value = data[begin + key_size : begin + key_size + value_size]
            return bool(flags & _BUCKET_FLAG), value
    return None


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
