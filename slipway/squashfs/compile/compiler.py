"""Layers -> compiled layers, each once: the cache gives what it has, all cores make the rest."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from slipway.core import FileLock, PartClaim
from slipway.squashfs.compile import directory_layer, tar_layer
from slipway.squashfs.compile.compiled_layer import (
    CompiledLayer,
    DataPart,
    dump_layer,
    freeze_tree,
    part_name,
)
from slipway.squashfs.compile.directory_layer import OverlayUnreadableError
from slipway.squashfs.compile.layer_cache import INDEX, LayerCache
from slipway.squashfs.compile.layer_sources import (
    DirectorySource,
    OnProgress,
    Source,
    TarSource,
    no_progress,
)
from slipway.squashfs.compile.layer_stream import ReadAhead, check_content, decompressed_stream
from slipway.squashfs.compile.layer_tree import TreeNode
from slipway.squashfs.compile.pack_job import PackedPart, PackJob, pack_job
from slipway.squashfs.compile.worker_pool import PackPool
from slipway.squashfs.format import LayerError, SqshOptions

PART_BYTES = 128 << 20
"""File bytes of a part: small enough to keep all cores busy, large enough to share fragments.
It decides the bytes of the result."""

_SMALL_BYTES = 8 << 20

_SPOOL = "contents"
"""Contents of an archive's files, in a new entry's folder until they are packed."""


@dataclass
class _Build:
    """A layer that is being compiled: its tree, and the jobs that pack its files."""

    folder: Path  # the entry's, not yet visible
    source: Source
    root: TreeNode | None = None
    jobs: list[tuple[list[TreeNode], Future[PackedPart]]] = field(default_factory=list)


@contextlib.contextmanager
def compile_layers(
    cache: LayerCache,
    sources: Sequence[Source],
    options: SqshOptions,
    on_progress: OnProgress = no_progress,
    on_cached: Callable[[str], None] | None = None,
    on_wait: Callable[[str, str], None] | None = None,
) -> Iterator[list[CompiledLayer]]:
    """The compiled layers of `sources`, in the same order, kept in the cache for the block.

    `on_wait` hears of a layer that another process holds, and which one that is. Raises
    LayerError, CacheError. Whatever was compiled before an error stays cached.
    """
    keys = [options.layer_key(source.digest) for source in sources]
    by_key = dict(zip(keys, sources, strict=True))
    locks: list[FileLock] = []
    claims: dict[str, PartClaim] = {}
    layers: dict[str, CompiledLayer] = {}
    try:
        missing: dict[str, FileLock] = {}
        # In one order in all processes, so that none waits for another in a circle.
        for key in sorted(by_key):
            lock = cache.lock(key)
            locks.append(lock)

            def waits(holder: str, digest: str = by_key[key].digest) -> None:
                if on_wait is not None:
                    on_wait(digest, holder)

            lock.share(waits)
            layer = cache.read(key)
            if layer is None:
                lock.release()
                locks[-1] = lock = cache.lock(key)
                lock.own(on_wait=waits)
                layer = cache.read(key)  # another process may have made it meanwhile
                if layer is None:
                    if claim := cache.take_shared(key, waits):
                        claims[key] = claim
                    layer = cache.read(key)
            if layer is None:
                missing[key] = lock
            else:
                lock.share()
                layers[key] = layer
                if on_cached is not None:
                    on_cached(by_key[key].digest)
        order = [key for key in dict.fromkeys(keys) if key in missing]

        def made(key: str, layer: CompiledLayer) -> None:
            layers[key] = layer
            missing[key].share()
            if key in claims:
                with claims.pop(key) as claim:
                    claim.publish(cache.entry(key))

        _compile(cache, [(key, by_key[key]) for key in order], options, made, on_progress)
        yield [layers[key] for key in keys]
    finally:
        for claim in claims.values():
            claim.release()
        for lock in locks:
            lock.release()
    if order:
        cache.trim()


def _compile(
    cache: LayerCache,
    wanted: Sequence[tuple[str, Source]],
    options: SqshOptions,
    on_made: Callable[[str, CompiledLayer], None],
    on_progress: OnProgress,
) -> None:
    """Make entries. One layer is read while another is packed, so that no core waits at its end."""
    options.codec()  # a missing library is one error here, not one in each process
    with contextlib.ExitStack() as entries, PackPool() as pool:
        builds: deque[tuple[str, _Build, contextlib.ExitStack]] = deque()

        def finish_oldest() -> None:
            key, build, entry = builds.popleft()
            layer = _assemble(build)
            (build.folder / _SPOOL).unlink(missing_ok=True)
            (build.folder / INDEX).write_bytes(dump_layer(layer))
            entry.close()
            on_made(key, _load(cache, key))

        for key, source in wanted:
            if isinstance(source, TarSource):
                # Unpacked archives take space while they wait: one waits, one is read.
                while sum(isinstance(build.source, TarSource) for _, build, _ in builds) > 1:
                    finish_oldest()
            entry = entries.enter_context(contextlib.ExitStack())
            build = _Build(entry.enter_context(cache.make(key)), source)
            builds.append((key, build, entry))
            archive = source if isinstance(source, TarSource) else source.archive
            if isinstance(source, DirectorySource):
                try:
                    _read_directory(source, build, pool, options, on_progress)
                    continue
                except OverlayUnreadableError:
                    if archive is None:
                        raise
                    _discard_jobs(build)
            if archive is not None:
                _read_archive(archive, build, pool, options, on_progress)
        while builds:
            finish_oldest()


def _load(cache: LayerCache, key: str) -> CompiledLayer:
    layer = cache.read(key)
    if layer is None:
        raise LayerError("the compiled layer changed at once", where=str(cache.entry(key)))
    return layer


class _PartQueue:
    """Cuts a layer's files into parts, which go to the pool as they fill up.

    `base` is what the places of files count from, see PackJob; `on_packed` hears of bytes done.
    """

    def __init__(
        self,
        build: _Build,
        base: Path,
        pool: PackPool,
        options: SqshOptions,
        on_packed: Callable[[int], None],
    ) -> None:
        self._build = build
        self._base = bytes(base)
        self._pool = pool
        self._options = options
        self._on_packed = on_packed
        self._files: list[tuple[bytes | int, TreeNode]] = []
        self._waiting = 0

    def add(self, source: bytes | int, node: TreeNode) -> None:
        """The next file."""
        self._files.append((source, node))
        self._waiting += node.size
        if self._waiting >= PART_BYTES:
            self.flush()

    def flush(self) -> None:
        """Begin to pack what waits."""
        if not self._files:
            return
        part, size = len(self._build.jobs), self._waiting
        job = PackJob(
            self._base,
            [(source, node.size) for source, node in self._files],
            part,
            self._options.compressor,
            self._options.level,
            self._options.block_size,
            self._build.folder / part_name(part),
        )

        def finished(future: Future[PackedPart]) -> None:
            if future.exception() is None:
                self._on_packed(size)

        if size < _SMALL_BYTES:  # done sooner than a process has started
            future: Future[PackedPart] = Future()
            future.set_result(pack_job(job))
            future.add_done_callback(finished)
        else:
            future = self._pool.submit(job, finished)
        self._build.jobs.append(([node for _, node in self._files], future))
        self._files, self._waiting = [], 0


def _read_directory(
    source: DirectorySource,
    build: _Build,
    pool: PackPool,
    options: SqshOptions,
    on_progress: OnProgress,
) -> None:
    total = done = 0
    scanned = False

    def on_packed(size: int) -> None:
        nonlocal done
        done += size
        on_progress(source.digest, done, total if scanned else 0)

    parts = _PartQueue(build, source.folder, pool, options, on_packed)

    def on_file(path: bytes, node: TreeNode) -> None:
        nonlocal total
        total += node.size
        parts.add(path, node)

    on_progress(source.digest, 0, 0)
    tree = directory_layer.scan_directory(source.folder, on_file)
    scanned = True
    parts.flush()
    directory_layer.settle_tree(tree, source)  # while the last files are packed
    build.root = tree.root


def _discard_jobs(build: _Build) -> None:
    """Undo what was packed of a folder that cannot be read to its end."""
    for number, (_, future) in enumerate(build.jobs):
        future.result()
        (build.folder / part_name(number)).unlink()
    build.jobs.clear()


def _read_archive(
    source: TarSource,
    build: _Build,
    pool: PackPool,
    options: SqshOptions,
    on_progress: OnProgress,
) -> None:
    """Read all of the archive and check its digest; only then its files are packed."""
    on_progress(source.digest, 0, source.size)
    fetched = 0

    def on_bytes(count: int) -> None:
        del count  # unpacked bytes; the blob's are what has a known total
        on_progress(source.digest, min(fetched, source.size), source.size)

    def counted(pieces: Iterable[bytes]) -> Iterator[bytes]:
        nonlocal fetched
        for piece in pieces:
            fetched += len(piece)
            yield piece

    path = build.folder / _SPOOL
    with (
        path.open("xb", buffering=1 << 20) as sink,
        ReadAhead(decompressed_stream(counted(source.open())), on_bytes) as stream,
    ):
        build.root = tar_layer.read_tar_layer(stream, tar_layer.ContentSpool(sink))
        check_content(source.digest, f"sha256:{stream.drain()}")
    parts = _PartQueue(build, path, pool, options, lambda _: None)
    for node in tar_layer.files_in_order(build.root):
        parts.add(node.data.start, node)
    parts.flush()


def _assemble(build: _Build) -> CompiledLayer:
    assert build.root is not None
    parts: list[DataPart] = []
    fragments: list[tuple[int, int, int]] = []
    before = []
    for number, (nodes, future) in enumerate(build.jobs):
        done = future.result()
        for node, data in zip(nodes, done.files, strict=True):
            node.data = data
        parts.append(DataPart(build.folder / part_name(number), done.pieces))
        before.append(len(fragments))
        fragments += done.fragments
    return freeze_tree(build.root, parts, fragments, before or [0])
