"""Compiled layers -> one merged tree, as overlayfs and the OCI specification define it.

Upper names hide lower ones; directories merge unless the upper one is opaque; a whiteout removes
a name. A directory's mode, owner and time are those of the topmost layer that describes it: one
that is there only as somebody's parent ("implied") describes nothing.

How it is done: the walk goes down from the root with, for each directory, the rows of all layers
that take part in it, lowest first, beginning at the topmost opaque one. Where only one layer takes
part, which is so for nearly all of an image, its names are a range of that layer's rows already
sorted and free of repetitions: the directory keeps that range (`span`), and no name is looked at,
unless the range holds a whiteout, a link to a lower layer or a device to leave out. Elsewhere the
layers' names are merged, lowest first, into a list (`items`). `live` marks the rows that the image
has, which is what decides later whose data is copied.
"""

from __future__ import annotations

from collections.abc import Sequence

from slipway.squashfs.compile import IMPLIED, LOWER_LINK, OPAQUE, WHITEOUT, CompiledLayer
from slipway.squashfs.format import BLKDEV, CHRDEV, DIR, LayerError
from slipway.squashfs.link.path_lookup import Row, child_span, look_up_path, visible_child


class MergedDirectory:
    """A merged directory. `number`, `first` and `reference` are the linker's."""

    __slots__ = (
        "depth",
        "dirs",
        "first",
        "items",
        "name",
        "number",
        "parent",
        "reference",
        "row",
        "span",
    )

    def __init__(self, row: Row, parent: MergedDirectory | None, name: bytes) -> None:
        self.row = row  # whose mode, owner, time and attributes it has
        self.parent = parent
        self.name = name
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.span: tuple[int, int, int] | None = None  # layer, first row, end: all its names
        self.items: list[tuple[bytes, int, int]] | None = None  # else: name, layer, row; sorted
        self.dirs: dict[int, MergedDirectory] = {}  # by position among the names
        self.number = 0
        self.first = 0  # number of the first of its names
        self.reference = 0

    @property
    def path(self) -> bytes:
        """Below the root, without a slash at the front."""
        names = []
        directory: MergedDirectory | None = self
        while directory is not None and directory.parent is not None:
            names.append(directory.name)
            directory = directory.parent
        return b"/".join(reversed(names))


class MergedTree:
    """The tree: directories in pre-order, and which rows of each layer are part of it."""

    def __init__(self, layers: Sequence[CompiledLayer], *, keep_devices: bool = True) -> None:
        """Merge `layers`, lowest first. Raises LayerError for a hard link to nothing."""
        self.layers = layers
        self.live = [bytearray(layer.rows) for layer in layers]
        self.dropped: list[bytes] = []
        """Paths of device nodes, where they are not kept."""
        self.linked: set[Row] = set()
        """Rows that have further names in upper layers."""
        self._kinds = [layer.columns["kind"].tobytes() for layer in layers]
        self._keep_devices = keep_devices
        special = {WHITEOUT, LOWER_LINK} | (set() if keep_devices else {CHRDEV, BLKDEV})
        self._special = [any(kind in kinds for kind in special) for kinds in self._kinds]
        self._special_kinds = bytes(sorted(special))
        self.dirs = self._walk()

    def _walk(self) -> list[MergedDirectory]:
        rows = visible_child(self.layers, [(number, 0) for number in range(len(self.layers))])
        root = MergedDirectory(self._described(rows), None, b"")
        for layer, _ in rows:
            self.live[layer][0] = 1
        directories = []
        stack = [(root, rows)]
        while stack:
            directory, rows = stack.pop()
            directories.append(directory)
            below = self._fill(directory, rows)
            stack += reversed(below)
        return directories

    def _described(self, rows: list[Row]) -> Row:
        for layer, row in reversed(rows):
            if not self.layers[layer].columns["flags"][row] & IMPLIED:
                return layer, row
        return rows[0]

    def _fill(
        self, directory: MergedDirectory, rows: list[Row]
    ) -> list[tuple[MergedDirectory, list[Row]]]:
        if len(rows) == 1:
            layer = rows[0][0]
            first, end = child_span(self.layers, rows[0])
            kinds = self._kinds[layer]
            here_kinds = kinds[first:end]
            # translate() that deletes finds several kinds at the speed of C.
            plain = not self._special[layer] or len(here_kinds) == len(
                here_kinds.translate(None, self._special_kinds)
            )
            if plain:
                directory.span = (layer, first, end)
                self.live[layer][first:end] = b"\1" * (end - first)
                return self._subdirectories(directory, layer, first, end)
        return self._merge(directory, rows)

    def _subdirectories(
        self, directory: MergedDirectory, layer: int, first: int, end: int
    ) -> list[tuple[MergedDirectory, list[Row]]]:
        kinds, names = self._kinds[layer], self.layers[layer].names
        children = []
        row = kinds.find(DIR, first, end)
        while row >= 0:
            child = MergedDirectory((layer, row), directory, names[row])
            directory.dirs[row - first] = child
            children.append((child, [(layer, row)]))
            row = kinds.find(DIR, row + 1, end)
        return children

    def _merge(
        self, directory: MergedDirectory, rows: list[Row]
    ) -> list[tuple[MergedDirectory, list[Row]]]:
        files: dict[bytes, Row] = {}
        dirs: dict[bytes, list[Row]] = {}
        for layer, row in rows:
            first, end = child_span(self.layers, (layer, row))
            kinds, names = self._kinds[layer], self.layers[layer].names
            flags = self.layers[layer].columns["flags"]
            for child in range(first, end):
                kind, name = kinds[child], names[child]
                if kind == DIR:
                    files.pop(name, None)
                    below = dirs.get(name)
                    if below is None or flags[child] & OPAQUE:
                        dirs[name] = [(layer, child)]
                    else:
                        below.append((layer, child))
                    continue
                dirs.pop(name, None)
                if kind == WHITEOUT:
                    files.pop(name, None)
                elif kind == LOWER_LINK:
                    files[name] = self._target(layer, child, directory, name)
                elif kind in (CHRDEV, BLKDEV) and not self._keep_devices:
                    files.pop(name, None)
                    self.dropped.append(directory.path + b"/" + name if directory.parent else name)
                else:
                    files[name] = (layer, child)
        directory.items = []
        children = []
        for name in sorted([*files, *dirs]):
            if name in dirs:
                described = self._described(dirs[name])
                child_dir = MergedDirectory(described, directory, name)
                directory.dirs[len(directory.items)] = child_dir
                children.append((child_dir, dirs[name]))
                directory.items.append((name, *described))
                self.live[described[0]][described[1]] = 1
            else:
                layer, row = files[name]
                directory.items.append((name, layer, row))
                self.live[layer][row] = 1
        return children

    def _target(self, layer: int, row: int, directory: MergedDirectory, name: bytes) -> Row:
        """The file that a hard link to a lower layer means."""
        columns = self.layers[layer].columns
        target = self.layers[layer].texts[columns["text"][row]]
        rows = look_up_path(self.layers, layer, target.split(b"/"))
        if not rows or self._kinds[rows[0][0]][rows[0][1]] == DIR:
            path = (directory.path + b"/" + name).decode(errors="replace")
            raise LayerError(
                f"{path!r} is a hard link to {target.decode(errors='replace')!r}, which no layer"
                " has as a file"
            )
        self.linked.add(rows[0])
        return rows[0]
