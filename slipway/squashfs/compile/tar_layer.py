"""A layer as a tar stream, with the OCI image specification's whiteouts.

opencontainers/image-spec:layer.md: `.wh.NAME` removes NAME of the layers below, `.wh..wh..opq`
hides all that they have in its directory.
"""

from __future__ import annotations

from slipway.squashfs.compile import tar_reader
from slipway.squashfs.compile.block_writer import BlockWriter
from slipway.squashfs.compile.layer_sources import MTIME_MAX, xattr_is_kept
from slipway.squashfs.compile.layer_stream import ReadAhead
from slipway.squashfs.compile.layer_tree import (
    LOWER_LINK,
    WHITEOUT,
    TreeNode,
    find_node,
    new_root,
    put_node,
    split_path,
)
from slipway.squashfs.compile.tar_reader import TarMember
from slipway.squashfs.format import (
    BLKDEV,
    CHRDEV,
    DIR,
    FIFO,
    REG,
    SYMLINK,
    SYMLINK_MAX,
    LayerError,
    device_number,
)

_KINDS = {
    tar_reader.REGULAR: REG,
    tar_reader.SYMLINK: SYMLINK,
    tar_reader.CHARACTER: CHRDEV,
    tar_reader.BLOCKDEV: BLKDEV,
    tar_reader.DIRECTORY: DIR,
    tar_reader.FIFO: FIFO,
}
_WHITEOUT, _OPAQUE = b".wh.", b".wh..wh..opq"


def read_tar_layer(stream: ReadAhead, packer: BlockWriter) -> TreeNode:
    """The tree of a layer; contents go into `packer` as they come. Raises LayerError."""
    root, groups = new_root(), 0
    for member in tar_reader.tar_members(stream.read, stream.skip):
        path = member.name
        try:
            if member.kind == tar_reader.HARDLINK:
                stream.skip(member.size + -member.size % tar_reader.BLOCK)
                groups = _link(root, member, groups)
                continue
            head, _, name = path.rstrip(b"/").rpartition(b"/")
            if name.startswith(_WHITEOUT):
                stream.skip(member.size + -member.size % tar_reader.BLOCK)
                _hide(root, head, name)
                continue
            node = _node(member)
            if node.kind == REG:
                # A path that is refused must be refused before its content is stored.
                split_path(path)
                node.data = packer.add(member.size, stream.read)
            else:
                stream.skip(member.size)
            stream.skip(-member.size % tar_reader.BLOCK)
            put_node(root, path, node)
        except ValueError as error:
            text = path.decode(errors="replace")
            raise LayerError(f"{text!r} in the layer's archive: {error}") from error
    return root


def _node(member: TarMember) -> TreeNode:
    kind = _KINDS.get(member.kind)
    if kind is None:
        raise ValueError(f"a member of type {chr(member.kind)!r}")
    if kind == SYMLINK and not 0 < len(member.link) <= SYMLINK_MAX:
        raise ValueError("a symbolic link without a target, or with one that is too long")
    if not (0 <= member.uid < 1 << 32 and 0 <= member.gid < 1 << 32):
        raise ValueError(f"owner {member.uid}:{member.gid}")
    size = member.size if kind == REG else 0
    if kind in (CHRDEV, BLKDEV):
        if not (0 <= member.major < 1 << 12 and 0 <= member.minor < 1 << 20):
            raise ValueError(f"device {member.major}:{member.minor}")
        size = device_number(member.major, member.minor)
    return TreeNode(
        kind,
        member.mode,
        member.uid,
        member.gid,
        min(max(member.mtime, 0), MTIME_MAX),
        size,
        member.link if kind == SYMLINK else b"",
        tuple(sorted((k, v) for k, v in member.xattrs.items() if xattr_is_kept(k))),
    )


def _hide(root: TreeNode, head: bytes, name: bytes) -> None:
    if name == _OPAQUE:
        put_node(root, head, TreeNode(DIR, 0o755, implied=True, opaque=True))
    elif not name.startswith(b".wh..wh."):  # other marks are aufs's own business
        hidden = name[len(_WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise ValueError("a whiteout of nothing")
        put_node(root, (head + b"/" + hidden) if head else hidden, TreeNode(WHITEOUT))


def _link(root: TreeNode, member: TarMember, groups: int) -> int:
    """Add a hard link; the number of groups of the layer so far."""
    target = b"/".join(split_path(member.link))
    there = find_node(root, target)
    if there is None:
        put_node(root, member.name, TreeNode(LOWER_LINK, target=target))
        return groups
    if there.kind in (DIR, WHITEOUT):
        raise ValueError("a hard link to a directory or to a removed file")
    if not there.group and there.kind != LOWER_LINK:
        groups += 1
        there.group = groups
    put_node(root, member.name, there)
    return groups
