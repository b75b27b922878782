"""A layer as overlayfs keeps it: a directory, read in place.

A whiteout is a character device 0:0, an opaque directory has the attribute
trusted.overlay.opaque (user.overlay.opaque for rootless engines) (the kernel's
Documentation/filesystems/overlayfs.rst).

A folder that the layer's archive leaves out, and has something in, is made up by the engine that
unpacks it: by docker as 0755 of root (moby/moby:pkg/archive, createImpliedDirectories), by
containerd as the layers below have it (containerd/containerd:pkg/archive/tar.go, mkparent), by both
with the time of the pull. So mode, owner and time of such a folder say nothing of the image; the
archive tells which ones they are, and their like show by their times: see `_may_be_made_up`.

Extended attributes are in doubt, too, but for capabilities: those that a step of a build sets are
in the folder, and not in the archive that is made of it (both engines write capabilities alone);
and a folder that containerd unpacks keeps those that it has in the layers below, as overlayfs
copies it up.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from slipway.core import SlipwayError
from slipway.squashfs.compile.layer_sources import (
    CAPABILITY,
    MTIME_MAX,
    DirectorySource,
    xattr_is_kept,
)
from slipway.squashfs.compile.layer_stream import (
    HeaderStream,
    ReadAhead,
    check_content,
    decompressed_stream,
)
from slipway.squashfs.compile.layer_tree import WHITEOUT, TreeNode, new_root
from slipway.squashfs.compile.tar_layer import read_tar_layer
from slipway.squashfs.format import (
    BLKDEV,
    CHRDEV,
    DIR,
    MODE_KIND,
    REG,
    SYMLINK,
    LayerError,
    device_number,
)

OnFile = Callable[[bytes, TreeNode], None]

_OVERLAY = (b"trusted.overlay.", b"user.overlay.")


class OverlayUnreadableError(LayerError):
    """The directory alone does not hold the layer: it needs overlayfs to make sense of it."""


@dataclass(frozen=True)
class FolderTree:
    """The tree of a layer directory, and by path what the layer's archive decides on.

    `unsettled` are folders that an engine may have made up, `noted` are files and folders with
    extended attributes that the archive may not have.
    """

    root: TreeNode
    unsettled: dict[bytes, TreeNode] = field(default_factory=dict)
    noted: dict[bytes, TreeNode] = field(default_factory=dict)


def scan_directory(folder: Path, on_file: OnFile) -> FolderTree:
    """The tree of a layer directory. Each file with content goes to `on_file(path, node)` once.

    Files come in the order of their paths. Raises LayerError where something cannot be read, and
    OverlayUnreadableError for layers with redirects or metadata-only copies.
    """
    base = os.fsencode(folder)
    root = new_root()
    tree = FolderTree(root)
    try:
        # The root's own mode, owner and attributes are the engine's, not the layer's.
        described = TreeNode(DIR)
        _attributes(base, described)
        root.opaque = described.opaque
        _scan(base, tree, on_file)
    except OSError as error:
        path = error.filename if error.filename is not None else base
        raise LayerError(
            f"the layer cannot be read: {error.strerror}",
            where=os.fsdecode(path),
            cure="The engine's layer directories can be read by root only."
            if isinstance(error, PermissionError)
            else "Was the image removed meanwhile? Build it again, then export it.",
        ) from error
    return tree


def settle_tree(tree: FolderTree, source: DirectorySource) -> None:
    """Describe the folders that an engine made up as the layer's archive does: not at all.

    So the layers below decide on them, as they do where the archive itself is read. Extended
    attributes become the archive's. Raises SlipwayError where the archive has to be read and cannot
    be.
    """
    if source.headers is None and source.archive is None:
        return
    left = dict(tree.unsettled)
    if left and source.headers is not None:
        # Most often all of them were named, and this is quick. Else the archive is read below.
        with contextlib.suppress(SlipwayError):
            for name in source.headers.names():
                left.pop(name.strip(b"/").removeprefix(b"./"), None)
    if not left and not tree.noted:
        return
    described = _archive_tree(source)
    for path, node in tree.noted.items():
        there = _node_at(described, path)
        if there is not None and there.kind == node.kind:
            node.xattrs = there.xattrs
    for path, node in left.items():
        there = _node_at(described, path)
        if there is not None and there.kind == DIR and there.implied:
            node.mode, node.uid, node.gid, node.mtime = there.mode, there.uid, there.gid, 0
            node.xattrs, node.implied = (), True


def _archive_tree(source: DirectorySource) -> TreeNode:
    if source.headers is not None:
        try:
            return read_tar_layer(HeaderStream(source.headers.pieces()), None)
        except SlipwayError:
            # A sparse file's map is among the contents; what the engine kept may be damaged.
            if source.archive is None:
                raise
    assert source.archive is not None
    with ReadAhead(decompressed_stream(source.archive.open())) as stream:
        tree = read_tar_layer(stream, None)
        check_content(source.digest, f"sha256:{stream.drain()}")
    return tree


def _node_at(root: TreeNode, path: bytes) -> TreeNode | None:
    """The node of exactly this path: no link is followed."""
    node: TreeNode | None = root
    for name in path.split(b"/"):
        node = node.children.get(name) if node is not None else None
    return node


def _may_be_made_up(info: os.stat_result) -> bool:
    """Whether an engine may have made up this folder.

    Of a folder that an archive names, the time was set when all was in it: its ctime is later than
    its mtime, which has whole seconds, as archives nearly always have them. The time of a folder
    that was made up is that of its last new name, with a fraction, and the same as its ctime unless
    the store was copied since. containerd gives such a folder all that the one below has, its time,
    too (containerd/containerd:pkg/archive/tar.go, mkparent). That changes nothing, unless the one
    below is hidden: in an opaque folder and in all that it has.
    """
    return info.st_mtime_ns == info.st_ctime_ns or info.st_mtime_ns % 1_000_000_000 != 0


def _scan(base: bytes, tree: FolderTree, on_file: OnFile) -> None:
    groups: dict[tuple[int, int], tuple[int, TreeNode]] = {}
    stack: list[tuple[bytes, TreeNode, bool]] = [(b"", tree.root, False)]
    while stack:
        path, node, hidden = stack.pop()
        hidden = hidden or node.opaque  # what layers below have here
        if node.kind != DIR:
            on_file(path, node)
            continue
        with os.scandir(base + b"/" + path) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        below = []
        for entry in listed:
            name = entry.name
            child_path = path + b"/" + name if path else name
            info = entry.stat(follow_symlinks=False)
            child = _node(entry.path, info)
            node.children[name] = child
            if info.st_nlink > 1 and child.kind not in (DIR, WHITEOUT):
                key = (info.st_dev, info.st_ino)
                number, first = groups.setdefault(key, (len(groups) + 1, child))
                child.group = number
                if first is not child:
                    # The first name's data, which is filled in later: share the whole node.
                    node.children[name] = first
                    continue
            if child.kind == DIR and (hidden or child.opaque or _may_be_made_up(info)):
                tree.unsettled[child_path] = child
            if any(name != CAPABILITY for name, _ in child.xattrs):
                tree.noted[child_path] = child
            if child.kind == DIR or (child.kind == REG and child.size):
                below.append((child_path, child, hidden))
        stack += reversed(below)


def _node(path: bytes, info: os.stat_result) -> TreeNode:
    mode = info.st_mode
    kind = MODE_KIND[stat.S_IFMT(mode)]
    node = TreeNode(
        kind,
        stat.S_IMODE(mode),
        info.st_uid,
        info.st_gid,
        min(max(info.st_mtime_ns // 1_000_000_000, 0), MTIME_MAX),
    )
    if kind == REG:
        node.size = info.st_size
        _attributes(path, node)
    elif kind == DIR:
        _attributes(path, node)
    elif kind == SYMLINK:
        node.target = os.readlink(path)  # noqa: PTH115 - a name of bytes
    elif kind in (CHRDEV, BLKDEV):
        if kind == CHRDEV and info.st_rdev == 0:
            return TreeNode(WHITEOUT)
        node.size = device_number(os.major(info.st_rdev), os.minor(info.st_rdev))
    return node


def _attributes(path: bytes, node: TreeNode) -> None:
    names = os.listxattr(path, follow_symlinks=False)
    if not names:
        return
    kept = []
    for text in sorted(names):
        name = os.fsencode(text)
        if name.startswith(_OVERLAY):
            what = name.split(b".", 2)[2]
            value = os.getxattr(path, text, follow_symlinks=False)
            if what == b"opaque" and value == b"y":
                node.opaque = True
            elif what in (b"metacopy", b"redirect") and not (what == b"redirect" and not value):
                raise OverlayUnreadableError(
                    f"overlayfs keeps a {what.decode()} there", where=os.fsdecode(path)
                )
        elif xattr_is_kept(name):
            kept.append((name, os.getxattr(path, text, follow_symlinks=False)))
    node.xattrs = tuple(kept)


def file_reader(path: Path | bytes) -> tuple[int, Callable[[int], bytes]]:
    """An open file, and exact reads from it; LayerError where it is shorter than it was."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def read(size: int) -> bytes:
        data = os.read(handle, size)
        while len(data) < size:
            more = os.read(handle, size - len(data))
            if not more:
                raise LayerError(
                    "the file became shorter while it was read", where=os.fsdecode(path)
                )
            data += more
        return data

    return handle, read
