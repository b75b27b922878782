"""An image's layers -> the .sqsh: compiled where the cache does not have them, then linked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway.core import Event, OnEvent, Piece, SlipwayError
from slipway.sqsh import enroot_files, unsquashfs
from slipway.sqsh.packing import Packing
from slipway.sqsh.source_image import SourceImage
from slipway.sqsh.start import traced_files
from slipway.sqsh.unsquashfs import ExpectedContents
from slipway.squashfs import (
    DIR,
    WRITABLE_DEPTH,
    CompiledLayer,
    ImageContents,
    ImageRules,
    LayerCache,
    LayerWriter,
    SqshOptions,
    compile_layers,
    kind_at,
    open_image,
    resolve_path,
)
from slipway.squashfs import link_image as link

_EMPTY_FILES = (b"etc/hostname", b"etc/hosts", b"etc/resolv.conf")

_PROGRESS_BYTES = 16 << 20


@dataclass(frozen=True)
class SqshContents:
    """A .sqsh that was written and checked, and its content in pieces."""

    entries: int  # paths below the root
    devices_left_out: tuple[bytes, ...]
    pieces: tuple[Piece, ...]
    hot: tuple[tuple[int, int], ...]  # (start, end) of what a start reads


def link_layers(
    cache: LayerCache,
    image: SourceImage,
    path: Path,
    packing: Packing,
    say: Callable[[Event], None],
    task: str,
) -> SqshContents:
    """Write the image into `path`. Raises SlipwayError, and OSError of `path`'s file system."""
    options = packing.options
    progress = _Progress(image, say, task)
    with compile_layers(
        cache, image.layers, options, progress.layer, progress.cached, progress.waits
    ) as layers:
        layers = [*layers, config_layer(layers, image, options)]

        def check(contents: ImageContents) -> None:
            say(Event("progress", task, step="verify"))
            unsquashfs.check_sqsh_tables(path, _written(contents, layers, path), options)

        linked = link(
            layers,
            path,
            options,
            ImageRules(
                all_root=True,
                readable=True,
                writable_depth=WRITABLE_DEPTH,
                keep_devices=False,
                mtime=image.created,
                hot=tuple(traced_files(packing.start, layers, image.config.env)),
            ),
            on_bytes=progress.link,
            check=check,
        )
    return SqshContents(linked.entries, linked.devices_left_out, linked.pieces, linked.hot)


def _written(contents: ImageContents, layers: list[CompiledLayer], path: Path) -> ExpectedContents:
    return ExpectedContents(contents.entries, contents.inodes, _newlines(layers, path))


def _newlines(layers: list[CompiledLayer], path: Path) -> int:
    """Line breaks in all paths together; nearly always none, and then this costs nothing."""
    if not any(b"\n" in b"/".join(layer.names) for layer in layers):
        return 0
    with open_image(path) as image:
        return sum(entry.path.count(b"\n") for entry in image.walk())


class _Progress:
    """Bytes of layers and of the link as events, not more often than somebody can read."""

    def __init__(self, image: SourceImage, say: OnEvent, task: str) -> None:
        digests = [layer.digest for layer in image.layers]
        self._steps = {
            digest: f"layer {digests.index(digest) + 1} of {len(digests)} ({digest[7:19]})"
            for digest in digests
        }
        self._say = say
        self._task = task
        self._said: dict[str, int] = {}

    def _progress(self, step: str, done: int, total: int) -> None:
        if done - self._said.get(step, -_PROGRESS_BYTES) >= _PROGRESS_BYTES or done == total:
            self._said[step] = done
            self._say(Event("progress", self._task, step, current=done, total=total, unit="B"))

    def layer(self, digest: str, done: int, total: int) -> None:
        """As slipway.squashfs.compile.compiler.OnProgress."""
        self._progress(self._steps[digest], done, total)

    def cached(self, digest: str) -> None:
        """A layer that was compiled before."""
        self._say(Event("cached", self._task, self._steps[digest]))

    def waits(self, digest: str, holder: str) -> None:
        """Another process makes the layer. Said at once: that one may never go on."""
        task = f"{self._task}: {self._steps[digest]} is held by {holder}; waiting"
        self._say(Event("start", task))

    def link(self, done: int, total: int) -> None:
        """Bytes of the image that are written."""
        self._progress("link", done, total)


def config_layer(
    layers: Sequence[CompiledLayer], image: SourceImage, options: SqshOptions
) -> CompiledLayer:
    """The layer that goes on top of `layers`.

    Raises SlipwayError where the image has something else in the place of enroot's folder, of one
    of its files or of the working directory, or an environment that its format cannot hold.
    """
    if kind_at(layers, b"etc") not in (None, DIR):
        raise SlipwayError(
            f"/etc is not a directory in {image.reference}, and enroot needs its files there",
            cure="Make it one in the image; enroot looks for them before it follows links.",
        )
    writer = LayerWriter(options, image.created)
    writer.empty(b"dev")
    if kind_at(layers, b".dockerenv") is not None:
        writer.remove(b".dockerenv")
    _engine_files(layers, writer)
    for name, content in sorted(enroot_files.enroot_files(image.config, image.provenance).items()):
        if kind_at(layers, name.encode()) == DIR:
            raise SlipwayError(
                f"/{name} is a directory in {image.reference}, and enroot needs a file there",
                cure=f"Remove it in the image: `RUN rm -r /{name}`.",
            )
        writer.file(name.encode(), content)
    working_dir = resolve_path(layers, image.config.working_dir.encode())
    if working_dir and _is_missing(layers, working_dir, image):
        writer.directory(working_dir)
    return writer.finish()


def _is_missing(layers: Sequence[CompiledLayer], working_dir: bytes, image: SourceImage) -> bool:
    """Whether the folder has yet to be made. Raises SlipwayError where it cannot be one."""
    names = working_dir.split(b"/")
    if any(len(name) > enroot_files.NAME_MAX for name in names):
        problem = f"has a name of more than {enroot_files.NAME_MAX} bytes"
    else:
        for depth in range(1, len(names) + 1):
            kind = kind_at(layers, b"/".join(names[:depth]))
            if kind is None:
                return True
            if kind != DIR:
                break
        else:
            return False
        problem = "is not a directory there, or below something that is none"
    text = image.config.working_dir
    shown = text if len(text) <= enroot_files.NAME_MAX else f"{text[:40]}..."
    raise SlipwayError(
        f"the working directory {shown!r} of {image.reference} {problem}",
        cure="Give the image another WORKDIR.",
    )


def _engine_files(layers: Sequence[CompiledLayer], writer: LayerWriter) -> None:
    for folder in (b"proc", b"sys"):
        if kind_at(layers, folder) != DIR:
            writer.directory(folder)
    for path in _EMPTY_FILES:
        if kind_at(layers, path) != DIR:
            writer.file(path, b"", 0o755)
    if kind_at(layers, b"etc/mtab") != DIR:
        writer.symlink(b"etc/mtab", b"/proc/mounts")
