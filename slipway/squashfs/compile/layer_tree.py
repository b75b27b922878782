"""A layer while it is being read: a tree of nodes, as sources build it."""

from __future__ import annotations

from dataclasses import dataclass, field

from slipway.squashfs.format import DIR, NAME_MAX, SYMLINK

WHITEOUT = 16
"""Kind of a node that removes this name from the layers below."""
LOWER_LINK = 17
"""Kind of a hard link whose file is not in this layer; `target` is its path."""


_LINKS_MAX = 40  # as the kernel's own limit


@dataclass(eq=False)
class FileData:
    """Where a file's content lies in the data of a part."""

    start: int = 0  # of the first data block
    words: list[int] = field(default_factory=list)  # stored sizes of blocks, as squashfs has them
    fragment: int = -1
    offset: int = 0  # in the fragment
    holes: int = 0  # bytes of zeros that take no space
    stored: int = 0  # bytes of all data blocks together
    part: int = 0


EMPTY = FileData()


@dataclass(slots=True, eq=False)
class TreeNode:
    """One name. `size` is bytes of a file, or the device number; `mode` permissions only.

    `group` is the same positive number for all names of one file in the layer, 0 for a single
    name. `opaque` hides what the layers below have in a directory; an `implied` directory was
    named only as a parent, so that one below decides its mode, owner and time.
    """

    kind: int
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    target: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    group: int = 0
    opaque: bool = False
    implied: bool = False
    data: FileData = EMPTY
    children: dict[bytes, TreeNode] = field(default_factory=dict)


WHITEOUT_PREFIX = b".wh."
"""Before the name of a file of the layers below that this layer hides (OCI image layer spec)."""


def new_root() -> TreeNode:
    """The root of a layer that does not describe it itself."""
    return TreeNode(DIR, 0o755, implied=True)


def split_path(path: bytes) -> list[bytes]:
    """The names of a path below the root, cleaned of `.` and `..` without looking at links.

    Raises ValueError where it leaves the root, and for names that no file can have.
    """
    names: list[bytes] = []
    for name in path.split(b"/"):
        if name == b"..":
            if not names:
                raise ValueError("it leads out of the root")
            names.pop()
        elif name not in (b"", b"."):
            if b"\0" in name:
                raise ValueError("a name with a NUL byte")
            names.append(name)
    for name in names:
        # A whiteout says the name of a file after its prefix, so that it may be longer than one.
        hidden = name.removeprefix(WHITEOUT_PREFIX) if name is names[-1] else name
        if len(hidden) >= NAME_MAX:
            raise ValueError(f"a name of {len(hidden)} bytes; the most is 255")
    return names


def put_node(root: TreeNode, path: bytes, node: TreeNode) -> None:
    """Place a node, with the parents that are missing, as unpacking an archive would.

    A directory over a directory keeps the children; anything else replaces what is there. Parents
    that are symbolic links of this layer are followed. Raises ValueError for a bad path.
    """
    names = split_path(path)
    if not names:
        _describe(root, node)
        return
    parent = _parent(root, names[:-1])
    there = parent.children.get(names[-1])
    if there is not None and node.kind == WHITEOUT:
        # It speaks of the layers below, whatever its place in the archive.
        there.opaque = there.opaque or there.kind == DIR
        return
    if there is not None and node.kind == DIR:
        if there.kind == DIR:
            _describe(there, node)
            return
        node.opaque = node.opaque or there.kind == WHITEOUT
    parent.children[names[-1]] = node


def _parent(root: TreeNode, names: list[bytes]) -> TreeNode:
    above, todo, followed = [root], list(reversed(names)), 0
    while todo:
        name = todo.pop()
        if name == b"..":
            above = above[:-1] or [root]
            continue
        child = above[-1].children.get(name)
        if child is not None and child.kind == SYMLINK:
            followed += 1
            if followed > _LINKS_MAX:
                raise ValueError("too many symbolic links")
            if child.target.startswith(b"/"):
                above = [root]
            todo += [part for part in reversed(child.target.split(b"/")) if part not in (b"", b".")]
            continue
        if child is None or child.kind != DIR:
            # After a whiteout nothing from below may show through.
            hidden = child is not None and child.kind == WHITEOUT
            child = TreeNode(DIR, 0o755, implied=True, opaque=hidden)
            above[-1].children[name] = child
        above.append(child)
    return above[-1]


def _describe(there: TreeNode, node: TreeNode) -> None:
    if not node.implied:
        there.mode, there.uid, there.gid, there.mtime = node.mode, node.uid, node.gid, node.mtime
        there.xattrs, there.implied = node.xattrs, False
    there.opaque = there.opaque or node.opaque


def find_node(root: TreeNode, path: bytes) -> TreeNode | None:
    """The node at a path; links of this layer are followed on the way, not at its end."""
    todo, above, followed = list(reversed(split_path(path))), [root], 0
    while todo:
        name = todo.pop()
        if name == b"..":
            above = above[:-1] or [root]
            continue
        child = above[-1].children.get(name)
        if child is None or not todo:
            return child
        if child.kind == SYMLINK:
            followed += 1
            if followed > _LINKS_MAX:
                raise ValueError("too many symbolic links")
            if child.target.startswith(b"/"):
                above = [root]
            todo += [part for part in reversed(child.target.split(b"/")) if part not in (b"", b".")]
        elif child.kind == DIR:
            above.append(child)
        else:
            return None
    return above[-1]
