"""A layer as a tar stream, with the OCI image specification's whiteouts.

opencontainers/image-spec:layer.md: `.wh.NAME` removes NAME of the layers below, `.wh..wh..opq`
hides all that they have in its directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from slipway.squashfs.compile import tar_reader
from slipway.squashfs.compile.layer_sources import CAPABILITY, MTIME_MAX, xattr_is_kept
from slipway.squashfs.compile.layer_tree import (
    LOWER_LINK,
    WHITEOUT,
    WHITEOUT_PREFIX,
    FileData,
    TreeNode,
    find_node,
    new_root,
    put_node,
    split_path,
)
from slipway.squashfs.compile.tar_reader import TarMember, TarStream
from slipway.squashfs.format import (
    BLKDEV,
    CHRDEV,
    DIR,
    FIFO,
    REG,
    SYMLINK,
    SYMLINK_MAX,
    XATTR_NAME_MAX,
    XATTR_SIZE_MAX,
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
_PIECE = 1 << 20
_OPAQUE = b".wh..wh..opq"


class ContentSpool:
    """The contents of an archive's files, one after the other in a file, to be packed from there.

    An archive has its files in any order, a compiled layer in one: so they wait here until all of
    them have come.
    """

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink
        self._end = 0

    def add(self, stream: TarStream, member: TarMember) -> int:
        """Take a member's content and padding from the stream; where it begins."""
        start = self._end
        segments = member.segments
        for position, size in [(0, member.stored)] if segments is None else segments:
            self._sink.seek(start + position)
            while size:
                piece = stream.read(min(size, _PIECE))
                self._sink.write(piece)
                size -= len(piece)
        self._end = start + member.size
        if segments is not None:  # what no segment fills reads as zeros
            self._sink.truncate(self._end)
        stream.skip_padding(-member.stored % tar_reader.BLOCK)
        return start


def read_tar_layer(stream: TarStream, spool: ContentSpool | None) -> TreeNode:
    """The tree of a layer. Contents go into `spool`: a file's `data.start` is its place there.

    Without a spool they are passed over: the tree is what is wanted.
    Names are cleaned as Go's filepath.Clean does, without looking at links: `etc/../up` is `up`;
    what leads out of the root is refused. Raises LayerError.
    """
    root, groups = new_root(), 0
    for member in tar_reader.tar_members(stream):
        try:
            names = split_path(member.name)
            path = b"/".join(names)
            if member.kind == tar_reader.HARDLINK:
                groups = _link(root, path, member, groups)
                continue
            name = names[-1] if names else b""
            if name.startswith(WHITEOUT_PREFIX):
                tar_reader.skip_content(stream, member)
                _hide(root, b"/".join(names[:-1]), name)
                continue
            node = _node(member)
            if node.kind == REG and node.size and spool is not None:
                node.data = FileData(start=spool.add(stream, member))
            else:
                tar_reader.skip_content(stream, member)
            if names:
                put_node(root, path, node)
            elif node.kind != DIR:
                raise ValueError("it takes the place of the root")
            # Else the root itself, which engines do not take from layers either.
        except ValueError as error:
            text = member.name.decode(errors="replace")
            raise LayerError(f"{text!r} in the layer's archive: {error}") from error
    return root


def files_in_order(root: TreeNode) -> Iterator[TreeNode]:
    """Each file with content once, in the order in which `scan_directory` gives them.

    So a layer is compiled to the same bytes from its folder and from its archive.
    """
    linked: set[int] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if node.kind != DIR:
            yield node
            continue
        below = []
        for _, child in sorted(node.children.items()):
            if child.group:
                if id(child) in linked:
                    continue
                linked.add(id(child))
            if child.kind == DIR or (child.kind == REG and child.size):
                below.append(child)
        stack += reversed(below)


def _node(member: TarMember) -> TreeNode:
    kind = _KINDS.get(member.kind)
    if kind is None:
        raise ValueError(f"a member of type {chr(member.kind)!r}")
    if kind == SYMLINK and not 0 < len(member.link) <= SYMLINK_MAX:
        raise ValueError("a symbolic link without a target, or with one that is too long")
    _check_owner(member)
    size = member.size if kind == REG else 0
    if kind in (CHRDEV, BLKDEV):
        if not (0 <= member.major < 1 << 12 and 0 <= member.minor < 1 << 20):
            raise ValueError(f"device {member.major}:{member.minor}")
        size = device_number(member.major, member.minor)
    described = kind in (REG, DIR)
    return TreeNode(
        kind,
        0o777 if kind == SYMLINK else member.mode,
        member.uid,
        member.gid,
        _mtime(member),
        size,
        member.link if kind == SYMLINK else b"",
        _xattrs(member) if described else (),
    )


def _check_owner(member: TarMember) -> None:
    if not (0 <= member.uid < 1 << 32 and 0 <= member.gid < 1 << 32):
        raise ValueError(f"owner {member.uid}:{member.gid}")


def _mtime(member: TarMember) -> int:
    return min(max(member.mtime, 0), MTIME_MAX)


def _xattrs(member: TarMember) -> tuple[tuple[bytes, bytes], ...]:
    """Those that are kept. Raises ValueError for one that no file can have (xattr(7))."""
    kept = sorted((name, value) for name, value in member.xattrs.items() if xattr_is_kept(name))
    for name, value in kept:
        is_name = len(name) <= XATTR_NAME_MAX and b"\0" not in name and name != b"user."
        if not is_name or len(value) > XATTR_SIZE_MAX:
            text = name[:40].decode(errors="replace")
            raise ValueError(
                f"the extended attribute {text!r} (a name of {len(name)} bytes, a value of"
                f" {len(value)}), which no file can have"
            )
    return tuple(kept)


def _hide(root: TreeNode, head: bytes, name: bytes) -> None:
    if name == _OPAQUE:
        put_node(root, head, TreeNode(DIR, 0o755, implied=True, opaque=True))
    elif not name.startswith(b".wh..wh."):  # other marks are aufs's own business
        hidden = name[len(WHITEOUT_PREFIX) :]
        if hidden in (b"", b".", b".."):
            raise ValueError("a whiteout of nothing")
        put_node(root, (head + b"/" + hidden) if head else hidden, TreeNode(WHITEOUT))


def _link(root: TreeNode, path: bytes, member: TarMember, groups: int) -> int:
    """Add a hard link; the number of groups of the layer so far.

    The file has mode, owner, time and attributes of the link's header from here on, as both engines
    set them (moby/go-archive: archive.go, containerd/containerd: pkg/archive/tar.go, both in
    createTarFile). Most programs write the file's own there.
    """
    if not path:
        raise ValueError("it takes the place of the root")
    target = b"/".join(split_path(member.link))
    node = find_node(root, target)
    if node is None:
        put_node(root, path, TreeNode(LOWER_LINK, target=target))
        return groups
    if node.kind in (DIR, WHITEOUT):
        raise ValueError("a hard link to a directory or to a removed file")
    if not node.group and node.kind != LOWER_LINK:
        groups += 1
        node.group = groups
    if node.kind != LOWER_LINK:
        _describe_link(node, member)
    put_node(root, path, node)
    return groups


def _describe_link(node: TreeNode, member: TarMember) -> None:
    _check_owner(member)
    node.uid, node.gid, node.mtime = member.uid, member.gid, _mtime(member)
    if node.kind != SYMLINK:
        node.mode = member.mode
    if node.kind == REG:
        # A new owner, the same one too, takes capabilities away (capabilities(7)).
        kept = [(name, value) for name, value in node.xattrs if name != CAPABILITY]
        node.xattrs = tuple(sorted(dict([*kept, *_xattrs(member)]).items()))
