"""A compiled layer: its names and inodes as columns, its data as parts.

Columns instead of objects, because an image has hundreds of thousands of inodes: they load in
one read and cost a few bytes an inode. Rows are in breadth-first order, so that the children of
a directory are neighbours, sorted by name; row 0 is the root.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from array import array
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from slipway.core import Piece
from slipway.squashfs.compile.layer_tree import TreeNode
from slipway.squashfs.format import DIR

MAGIC = b"slipway-layer/3\n"
OPAQUE, IMPLIED = 1, 2
COLUMNS = {
    "kind": "B",
    "flags": "B",
    "mode": "H",
    "uid": "I",
    "gid": "I",
    "mtime": "I",
    "size": "Q",  # bytes, device number, or a directory's count of children
    "start": "Q",  # in the part's data, or a directory's first child
    "stored": "Q",
    "holes": "Q",
    "part": "I",
    "fragment": "I",  # counted over all parts of the layer; 0 is none
    "offset": "I",
    "words": "I",  # how many block sizes
    "word": "I",  # and where they begin in `block_words`
    "xattr": "I",  # index into `xattrs`; 0 is none
    "group": "I",
    "text": "I",  # index into `texts`; 0 is none
}
EXTRA = {"block_words": "I", "fragment_part": "I", "fragment_start": "Q", "fragment_word": "I"}


@dataclass(frozen=True)
class DataPart:
    """A piece of a layer's data: data blocks and fragments, as they stand in an image."""

    source: Path | bytes
    pieces: tuple[Piece, ...]


@dataclass
class CompiledLayer:
    """See the module. Column names and their meaning are in COLUMNS and EXTRA."""

    names: list[bytes]
    columns: dict[str, array[int]]
    texts: list[bytes] = field(default_factory=lambda: [b""])
    xattrs: list[tuple[tuple[bytes, bytes], ...]] = field(default_factory=lambda: [()])
    parts: list[DataPart] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Names, the root included."""
        return len(self.names)


def freeze_tree(
    root: TreeNode, parts: list[DataPart], fragments: list[tuple[int, int, int]], order: list[int]
) -> CompiledLayer:
    """A finished tree as columns.

    `fragments` are (part, start, size word) for each part in turn, `order[part]` the number of
    fragments before that part's.
    """
    columns = {name: array(code) for name, code in {**COLUMNS, **EXTRA}.items()}
    layer = CompiledLayer([b""], columns, parts=parts)
    texts: dict[bytes, int] = {b"": 0}
    xattrs: dict[tuple[tuple[bytes, bytes], ...], int] = {(): 0}
    add = [columns[name].append for name in COLUMNS]
    words = columns["block_words"]
    placed: dict[int, int] = {}  # a file's words, once for all of its names
    first = 1
    queue = deque([root])
    while queue:
        node = queue.popleft()
        data = node.data
        size, start = node.size, data.start
        if node.kind == DIR:
            children = sorted(node.children.items())
            size, start = len(children), first
            first += len(children)
            layer.names += [name for name, _ in children]
            queue += [child for _, child in children]
        word = placed.get(id(data))
        if word is None:
            word = placed[id(data)] = len(words)
            words.extend(data.words)
        row = (
            node.kind,
            (OPAQUE if node.opaque else 0) | (IMPLIED if node.implied else 0),
            node.mode,
            node.uid,
            node.gid,
            node.mtime,
            size,
            start,
            data.stored,
            data.holes,
            data.part,
            0 if data.fragment < 0 else order[data.part] + data.fragment + 1,
            data.offset,
            len(data.words),
            word,
            xattrs.setdefault(node.xattrs, len(xattrs)),
            node.group,
            texts.setdefault(node.target, len(texts)) if node.target else 0,
        )
        for append, value in zip(add, row, strict=True):
            append(value)
    for part, start, word in fragments:
        columns["fragment_part"].append(part)
        columns["fragment_start"].append(start)
        columns["fragment_word"].append(word)
    layer.texts, layer.xattrs = list(texts), list(xattrs)
    return layer


def dump_layer(layer: CompiledLayer) -> bytes:
    """As stored in a cache entry: magic, sha256 of the rest, head, columns."""
    names, texts = b"/".join(layer.names), b"\0".join(layer.texts)
    head = {
        "rows": layer.rows,
        "columns": {name: len(layer.columns[name]) for name in {**COLUMNS, **EXTRA}},
        "names": len(names),
        "texts": len(texts),
        "xattrs": [[[k.hex(), v.hex()] for k, v in pairs] for pairs in layer.xattrs],
        "parts": [[[piece.size, piece.sha256] for piece in part.pieces] for part in layer.parts],
    }
    text = json.dumps(head).encode()
    pieces = [struct.pack("<I", len(text)), text, names, texts]
    pieces += [_little(layer.columns[name]).tobytes() for name in {**COLUMNS, **EXTRA}]
    body = b"".join(pieces)
    return MAGIC + hashlib.sha256(body).digest() + body


def read_layer(data: bytes, folder: Path) -> CompiledLayer:
    """What `dump` wrote; parts lie in `folder` as `part_name` says. ValueError if damaged."""
    body = memoryview(data)[len(MAGIC) + 32 :]
    if data[: len(MAGIC)] != MAGIC or hashlib.sha256(body).digest() != data[len(MAGIC) :][:32]:
        raise ValueError("the index is damaged")
    (size,) = struct.unpack_from("<I", body)
    head = json.loads(bytes(body[4 : 4 + size]))
    at = 4 + size
    names = bytes(body[at : at + head["names"]]).split(b"/")
    at += head["names"]
    texts = bytes(body[at : at + head["texts"]]).split(b"\0")
    at += head["texts"]
    columns = {}
    for name, code in {**COLUMNS, **EXTRA}.items():
        column = array(code)
        end = at + head["columns"][name] * column.itemsize
        column.frombytes(body[at:end])
        columns[name] = _little(column)
        at = end
    xattrs = [
        tuple((bytes.fromhex(k), bytes.fromhex(v)) for k, v in pairs) for pairs in head["xattrs"]
    ]
    parts = [
        DataPart(folder / part_name(number), tuple(Piece(*piece) for piece in pieces))
        for number, pieces in enumerate(head["parts"])
    ]
    return CompiledLayer(names, columns, texts, xattrs, parts)


def part_name(number: int) -> str:
    """File name of a part in a cache entry."""
    return f"{number:05d}.data"


def _little(column: array[int]) -> array[int]:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column
