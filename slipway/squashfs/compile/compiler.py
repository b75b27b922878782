"""Layers -> compiled layers, each once: the cache gives what it has, all cores make the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from slipway.core.processes import cpu_count
from slipway.squashfs.compile import directory_layer, tar_layer
from slipway.squashfs.compile.block_writer import Packer
from slipway.squashfs.compile.compiled_layer import Layer, Part, dump, freeze, part_name
from slipway.squashfs.compile.layer_cache import INDEX, Cache, Lock
from slipway.squashfs.compile.layer_sources import (
    DirSource,
    OnProgress,
    Source,
    TarSource,
    no_progress,
)
from slipway.squashfs.compile.layer_stream import ReadAhead, decompressed
from slipway.squashfs.compile.layer_tree import Node
from slipway.squashfs.compile.pack_job import Done, Job, pack
from slipway.squashfs.compile.worker_pool import Pool
from slipway.squashfs.format.errors import LayerError
from slipway.squashfs.format.options import Options

PART_BYTES = 128 << 20
"""File bytes of a part: small enough to keep all cores busy, large enough to share fragments.
It decides the bytes of the result."""

_SMALL_BYTES = 8 << 20


@dataclass
class _Build:
    """A layer directory that is being compiled."""

    folder: Path  # the entry's, not yet visible
    root: Node | None = None
    jobs: list[tuple[list[Node], Future[Done]]] = field(default_factory=list)


@contextlib.contextmanager
def compiled(
    cache: Cache,
    sources: Sequence[Source],
    options: Options,
    on_progress: OnProgress = no_progress,
    on_cached: Callable[[str], None] | None = None,
) -> Iterator[list[Layer]]:
    """The compiled layers of `sources`, in the same order, kept in the cache for the block.

    Raises LayerError, CacheError. Whatever was compiled before an error stays cached.
    """
    keys = [options.key(source.digest, source.kind) for source in sources]
    by_key = dict(zip(keys, sources, strict=True))
    locks: list[Lock] = []
    layers: dict[str, Layer] = {}
    try:
        missing: dict[str, Lock] = {}
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

        def made(key: str, layer: Layer) -> None:
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
    cache: Cache,
    wanted: Sequence[tuple[str, Source]],
    options: Options,
    on_made: Callable[[str, Layer], None],
    on_progress: OnProgress,
) -> None:
    """Make entries. All directories are read first, so that no core waits at a layer's end."""
    options.codec()  # a missing library is one error here, not one in each process
    with contextlib.ExitStack() as entries, Pool() as pool:
        builds: list[tuple[str, _Build, contextlib.ExitStack]] = []
        for key, source in wanted:
            if isinstance(source, DirSource):
                entry = entries.enter_context(contextlib.ExitStack())
                build = _Build(entry.enter_context(cache.make(key)))
                builds.append((key, build, entry))
                _read_directory(source, build, pool, options, on_progress)
            else:
                with cache.make(key) as folder:
                    layer = _read_archive(source, folder, options, on_progress)
                    (folder / INDEX).write_bytes(dump(layer))
                on_made(key, _load(cache, key))
        for key, build, entry in builds:
            layer = _assemble(build)
            (build.folder / INDEX).write_bytes(dump(layer))
            entry.close()
            on_made(key, _load(cache, key))


def _load(cache: Cache, key: str) -> Layer:
    layer = cache.read(key)
    if layer is None:
        raise LayerError("the compiled layer changed at once", where=str(cache.entry(key)))
    return layer


def _read_directory(
    source: DirSource, build: _Build, pool: Pool, options: Options, on_progress: OnProgress
) -> None:
    files: list[tuple[bytes, Node]] = []
    waiting = total = done = 0
    scanned = False

    def submit() -> None:
        nonlocal files, waiting
        part, size = len(build.jobs), waiting
        job = Job(
            bytes(source.folder),
            [(path, node.size) for path, node in files],
            part,
            options.compressor,
            options.level,
            options.block_size,
            build.folder / part_name(part),
        )

        def finished(future: Future[Done]) -> None:
            nonlocal done
            if future.exception() is not None:
                return
            done += size
            on_progress(source.digest, done, total if scanned else 0)

        if size < _SMALL_BYTES:  # done sooner than a process has started
            future: Future[Done] = Future()
            future.set_result(pack(job))
            future.add_done_callback(finished)
        else:
            future = pool.submit(job, finished)
        build.jobs.append(([node for _, node in files], future))
        files, waiting = [], 0

    def on_file(path: bytes, node: Node) -> None:
        nonlocal waiting, total
        files.append((path, node))
        waiting += node.size
        total += node.size
        if waiting >= PART_BYTES:
            submit()

    on_progress(source.digest, 0, 0)
    build.root = directory_layer.scan(source.folder, on_file)
    scanned = True
    if files:
        submit()


def _assemble(build: _Build) -> Layer:
    assert build.root is not None
    parts: list[Part] = []
    fragments: list[tuple[int, int, int]] = []
    before = []
    for number, (nodes, future) in enumerate(build.jobs):
        done = future.result()
        for node, data in zip(nodes, done.files, strict=True):
            node.data = data
        parts.append(Part(build.folder / part_name(number), done.pieces))
        before.append(len(fragments))
        fragments += done.fragments
    return freeze(build.root, parts, fragments, before)


def _read_archive(
    source: TarSource, folder: Path, options: Options, on_progress: OnProgress
) -> Layer:
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
        ReadAhead(decompressed(counted(source.open())), on_bytes) as stream,
    ):
        packer = Packer(sink, options.codec(), options.block_size, pool=pool)
        root = tar_layer.read_layer(stream, packer)
        pieces = packer.finish()
        digest = f"sha256:{stream.drain()}"
    if digest != source.digest:
        raise LayerError(
            f"the layer's content has digest {digest}, not {source.digest}",
            cure="The image is damaged or was tampered with: pull or build it again.",
        )
    return freeze(root, [Part(path, pieces)], packer.fragments, [0])
