"""A tar stream of a container's file system -> the tar stream that a .sqsh is made from.

What changes on the way, and why (each is what `enroot import dockerd://` does, unless it says so):

* `dev/*` and `.dockerenv` are left out: the runtime mounts the host's /dev.
* Device nodes elsewhere are left out too, and reported. enroot mounts the image `nodev`, so they
  are of no use, and for an ordinary user `enroot create` fails on them (unsquashfs exits with 2);
  `enroot import` fails on them already.
* enroot's files replace what is there; the working directory is created where it is missing.
* Every file belongs to root. Directories get u+w and all get u+r down to five levels, since
  enroot unpacks them as an ordinary user.
* Extended attributes stay (`security.capability`); enroot's plain `tar` loses them.
* Modification times after `docker create` become the image's creation time, so that the same
  image gives the same bytes: the engine touches /etc, /etc/hosts and the like for each container.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from slipway.sqsh import tar_headers
from slipway.sqsh.tar_headers import BLOCK, TarEntry, TarError
from slipway.sqsh.unsquashfs import ExpectedContents
from slipway.squashfs import READABLE_DEPTH


class TarSink(Protocol):
    """Where the new stream goes."""

    def write(self, data: bytes | memoryview, /) -> int:
        """As of a binary file."""
        ...


@dataclass(frozen=True)
class TarChanges:
    """What to change: files to add, times to keep stable."""

    files: Mapping[str, bytes]  # path below the root -> content
    working_dir: str
    created: int  # seconds: the image's creation time
    touched_after: int  # seconds: when the container was created


class _Source:
    """Exact reads from a stream that comes in pieces of any size."""

    def __init__(self, chunks: Iterable[bytes], on_bytes: Callable[[int], None]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")
        self._on_bytes = on_bytes

    def _piece(self, limit: int) -> memoryview:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise TarError("the archive ends in the middle")
            self._on_bytes(len(chunk))
            self._rest = memoryview(chunk)
        piece, self._rest = self._rest[:limit], self._rest[limit:]
        return piece

    def read(self, size: int) -> bytes:
        piece = self._piece(size) if size else b""
        if len(piece) == size:
            return bytes(piece)
        parts = [piece]
        while (missing := size - sum(map(len, parts))) > 0:
            parts.append(self._piece(missing))
        return b"".join(parts)

    def copy(self, size: int, sink: TarSink | None) -> None:
        while size:
            piece = self._piece(size)
            size -= len(piece)
            if sink is not None:
                sink.write(piece)

    def drain(self) -> None:
        for chunk in self._chunks:
            self._on_bytes(len(chunk))


class _Tree:
    """Which directories and links there are: for parents that no entry names, and for mkdir -p."""

    def __init__(self) -> None:
        self.directories = {b""}
        self.implied: set[bytes] = set()
        self.links: dict[bytes, bytes] = {}

    def add(self, entry: TarEntry) -> None:
        if entry.kind == tar_headers.DIRECTORY:
            self.directories.add(entry.name)
        elif entry.kind == tar_headers.SYMLINK:
            self.links[entry.name] = entry.link
        parent = entry.name.rpartition(b"/")[0]
        while parent not in self.directories and parent not in self.implied:
            self.implied.add(parent)
            parent = parent.rpartition(b"/")[0]

    def missing(self) -> list[bytes]:
        return sorted(self.implied - self.directories)

    def resolve(self, path: bytes) -> bytes:
        """Follow symbolic links inside the root, as the container itself would."""
        done: list[bytes] = []
        todo = [part for part in path.split(b"/") if part]
        for _ in range(1000):
            if not todo:
                break
            part = todo.pop(0)
            if part == b"..":
                done = done[:-1]
            elif part != b".":
                target = self.links.get(b"/".join([*done, part]))
                if target is None:
                    done.append(part)
                else:
                    todo = [piece for piece in target.split(b"/") if piece] + todo
                    done = [] if target.startswith(b"/") else done
        return b"/".join(done)


def _next_entry(source: _Source) -> TarEntry | None:
    pax: dict[bytes, bytes] = {}
    while True:
        block = source.read(BLOCK)
        if block.count(0) == BLOCK:
            return None
        entry = tar_headers.parse_header(block, pax)
        if entry.kind in tar_headers.KINDS:
            return entry
        data = source.read(entry.size)
        source.copy(-entry.size % BLOCK, None)
        if entry.kind == tar_headers.PAX:
            pax.update(tar_headers.pax_records(data))
        elif entry.kind == tar_headers.GNU_NAME:
            pax[b"path"] = data.rstrip(b"\0")
        elif entry.kind == tar_headers.GNU_LINK:
            pax[b"linkpath"] = data.rstrip(b"\0")
        elif entry.kind != tar_headers.PAX_GLOBAL:
            raise TarError(f"a tar entry of kind {chr(entry.kind)!r} for {entry.name!r}")


def rewrite_tar(
    chunks: Iterable[bytes],
    sink: TarSink,
    changes: TarChanges,
    on_bytes: Callable[[int], None],
) -> ExpectedContents:
    """Copy a tar stream into `sink` with `changes`, and say what was written.

    Nothing but the entry in hand is kept in memory, apart from the names of directories and links.
    Raises TarError for a stream that is cut short or is no archive of a file system.
    """
    source, tree, written = _Source(chunks, on_bytes), _Tree(), ExpectedContents()
    replaced = {path.encode() for path in changes.files}

    def put(entry: TarEntry) -> None:
        tree.add(entry)
        written.entries += 1
        written.inodes += entry.kind != tar_headers.HARDLINK
        written.newlines += entry.name.count(b"\n")
        sink.write(tar_headers.build_header(entry))

    while entry := _next_entry(source):
        if entry.name in replaced and entry.kind == tar_headers.DIRECTORY:
            raise TarError(f"/{entry.name.decode()} is a directory, and enroot needs a file there")
        if entry.kind != tar_headers.REGULAR:
            entry.size = 0
        stored = entry.size + -entry.size % BLOCK
        if entry.name in replaced or entry.name in (b"", b".dockerenv"):
            source.copy(stored, None)
            continue
        if entry.name.startswith(b"dev/"):
            source.copy(stored, None)
            continue
        linked_to_node = entry.kind == tar_headers.HARDLINK and entry.link in written.nodes_left_out
        if entry.kind in (tar_headers.CHARACTER, tar_headers.BLOCKDEV) or linked_to_node:
            written.nodes_left_out.append(entry.name)
            continue
        if entry.mtime >= changes.touched_after:
            entry.mtime = changes.created
        if entry.name.count(b"/") < READABLE_DEPTH and entry.kind != tar_headers.SYMLINK:
            entry.mode |= 0o600 if entry.kind == tar_headers.DIRECTORY else 0o400
        put(entry)
        source.copy(stored, sink)
    source.drain()

    for path, content in sorted(changes.files.items()):
        put(TarEntry(tar_headers.REGULAR, path.encode(), size=len(content), mtime=changes.created))
        sink.write(content + tar_headers.block_padding(len(content)))
    working_dir = tree.resolve(changes.working_dir.encode())
    if working_dir and working_dir not in tree.directories:
        put(TarEntry(tar_headers.DIRECTORY, working_dir, mode=0o755, mtime=changes.created))
    for directory in tree.missing():
        put(TarEntry(tar_headers.DIRECTORY, directory, mode=0o755, mtime=changes.created))
    sink.write(tar_headers.END)
    return written
