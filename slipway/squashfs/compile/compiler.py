"""Layers -> compiled layers, each once: the cache gives what it has, all cores make the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from slipway.core import FileLock, cpu_count
from slipway.squashfs.compile import directory_layer, tar_layer
from slipway.squashfs.compile.block_writer import BlockWriter
from slipway.squashfs.compile.compiled_layer import (
    CompiledLayer,
    DataPart,
    dump_layer,
    freeze_tree,
    part_name,
)
from slipway.squashfs.compile.layer_cache import INDEX, LayerCache
from slipway.squashfs.compile.layer_sources import (
    DirectorySource,
    OnProgress,
    Source,
    TarSource,
    no_progress,
)
from slipway.squashfs.compile.layer_stream import ReadAhead, decompressed_stream
from slipway.squashfs.compile.layer_tree import TreeNode
from slipway.squashfs.compile.pack_job import PackedPart, PackJob, pack_job
from slipway.squashfs.compile.worker_pool import PackPool
from slipway.squashfs.format import CompressionOptions, LayerError

PART_BYTES = 128 << 20
"""File bytes of a part: small enough to keep all cores busy, large enough to share fragments.
It decides the bytes of the result."""

_SMALL_BYTES = 8 << 20


@dataclass
class _Build:
    """A layer directory that is being compiled."""

    folder: Path  # the entry's, not yet visible
    root: TreeNode | None = None
    jobs: list[tuple[list[TreeNode], Future[PackedPart]]] = field(default_factory=list)


@contextlib.contextmanager
def compile_layers(
    cache: LayerCache,
    sources: Sequence[Source],
    options: CompressionOptions,
    on_progress: OnProgress = no_progress,
    on_cached: Callable[[str], None] | None = None,
) -> Iterator[list[CompiledLayer]]:
    """The compiled layers of `sources`, in the same order, kept in the cache for the block.

    Raises LayerError, CacheError. Whatever was compiled before an error stays cached.
    """
    keys = [options.key(source.digest, source.kind) for source in sources]
    by_key = dict(zip(keys, sources, strict=True))
    locks: list[FileLock] = []
    layers: dict[str, CompiledLayer] = {}
    try:
        missing: dict[str, FileLock] = {}
        # In one order in all processes, so that none waits for another in a circle.
        for key in sorted(by_key):
            lock = cache.lock(key)
            locks.append(lock)
            lock.share()
            layer = cache.read(key)
            if layer is None:
                lock.release()
                locks[-1] = lock = cache.lock(key)
                lock.own()
                layer = cache.read(key)  # another process may have made it meanwhile
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

        _compile(cache, [(key, by_key[key]) for key in order], options, made, on_progress)
        yield [layers[key] for key in keys]
    finally:
        for lock in locks:
            lock.release()
    if order:
        cache.trim()


def _compile(
    cache: LayerCache,
    wanted: Sequence[tuple[str, Source]],
    options: CompressionOptions,
    on_made: Callable[[str, CompiledLayer], None],
    on_progress: OnProgress,
) -> None:
    """Make entries. All directories are read first, so that no core waits at a layer's end."""
    options.codec()  # a missing library is one error here, not one in each process
    with contextlib.ExitStack() as entries, PackPool() as pool:
        builds: list[tuple[str, _Build, contextlib.ExitStack]] = []
        for key, source in wanted:
            if isinstance(source, DirectorySource):
                entry = entries.enter_context(contextlib.ExitStack())
                build = _Build(entry.enter_context(cache.make(key)))
                builds.append((key, build, entry))
                _read_directory(source, build, pool, options, on_progress)
            else:
                with cache.make(key) as folder:
                    layer = _read_archive(source, folder, options, on_progress)
                    (folder / INDEX).write_bytes(dump_layer(layer))
                on_made(key, _load(cache, key))
        for key, build, entry in builds:
            layer = _assemble(build)
            (build.folder / INDEX).write_bytes(dump_layer(layer))
            entry.close()
            on_made(key, _load(cache, key))


def _load(cache: LayerCache, key: str) -> CompiledLayer:
    layer = cache.read(key)
    if layer is None:
        raise LayerError("the compiled layer changed at once", where=str(cache.entry(key)))
    return layer


def _read_directory(
    source: DirectorySource,
    build: _Build,
    pool: PackPool,
    options: CompressionOptions,
    on_progress: OnProgress,
) -> None:
    files: list[tuple[bytes, TreeNode]] = []
    waiting = total = done = 0
    scanned = False

    def submit() -> None:
        nonlocal files, waiting
        part, size = len(build.jobs), waiting
        job = PackJob(
            bytes(source.folder),
            [(path, node.size) for path, node in files],
            part,
            options.compressor,
            options.level,
            options.block_size,
            build.folder / part_name(part),
        )

        def finished(future: Future[PackedPart]) -> None:
            nonlocal done
            if future.exception() is not None:
                return
            done += size
            on_progress(source.digest, done, total if scanned else 0)

        if size < _SMALL_BYTES:  # done sooner than a process has started
            future: Future[PackedPart] = Future()
            future.set_result(pack_job(job))
            future.add_done_callback(finished)
        else:
            future = pool.submit(job, finished)
        build.jobs.append(([node for _, node in files], future))
        files, waiting = [], 0

    def on_file(path: bytes, node: TreeNode) -> None:
        nonlocal waiting, total
        files.append((path, node))
        waiting += node.size
        total += node.size
        if waiting >= PART_BYTES:
            submit()

    on_progress(source.digest, 0, 0)
    build.root = directory_layer.scan_directory(source.folder, on_file)
    scanned = True
    if files:
        submit()


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
    return freeze_tree(build.root, parts, fragments, before)


def _read_archive(
    source: TarSource, folder: Path, options: CompressionOptions, on_progress: OnProgress
) -> CompiledLayer:
    on_progress(source.digest, 0, source.size)
    fetched = 0

    def on_bytes(count: int) -> None:
        del count  # unpacked bytes; the blob's are what has a known total
        on_progress(source.digest, fetched, source.size)

    def counted(pieces: Iterable[bytes]) -> Iterator[bytes]:
        nonlocal fetched
        for piece in pieces:
            fetched += len(piece)
            yield piece

    path = folder / part_name(0)
    with (
        ThreadPoolExecutor(cpu_count()) as pool,
        path.open("xb", buffering=1 << 20) as sink,
        ReadAhead(decompressed_stream(counted(source.open())), on_bytes) as stream,
    ):
        packer = BlockWriter(sink, options.codec(), options.block_size, pool=pool)
        root = tar_layer.read_tar_layer(stream, packer)
        pieces = packer.finish()
        digest = f"sha256:{stream.drain()}"
    if digest != source.digest:
        raise LayerError(
            f"the layer's content has digest {digest}, not {source.digest}",
            cure="The image is damaged or was tampered with: pull or build it again.",
        )
    return freeze_tree(root, [DataPart(path, pieces)], packer.fragments, [0])
