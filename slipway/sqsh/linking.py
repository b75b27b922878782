"""An image's layers -> the .sqsh: compiled where the cache does not have them, then linked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slipway.report.events import Event, OnEvent
from slipway.sqsh import pack
from slipway.sqsh.config_layer import config_layer
from slipway.sqsh.options import SqshOptions
from slipway.sqsh.origin import Origin
from slipway.sqsh.rewrite import READABLE_DEPTH, Written
from slipway.squashfs.cache import Cache
from slipway.squashfs.compile import compiled
from slipway.squashfs.layer import Layer
from slipway.squashfs.link import Contents, link
from slipway.squashfs.options import Options
from slipway.squashfs.pieces import Piece
from slipway.squashfs.reader import opened
from slipway.squashfs.rules import Rules

_PROGRESS_BYTES = 16 << 20


@dataclass(frozen=True)
class Packed:
    """A .sqsh that was written and checked, and its content in pieces."""

    entries: int  # paths below the root
    devices_left_out: tuple[bytes, ...]
    pieces: tuple[Piece, ...]


def link_image(
    cache: Cache,
    origin: Origin,
    path: Path,
    options: SqshOptions,
    say: Callable[[Event], None],
    task: str,
) -> Packed:
    """Write the image into `path`. Raises SlipwayError, and OSError of `path`'s file system."""
    settings = Options(options.compressor, options.level, options.block_size)
    progress = _Progress(origin, say, task)
    with compiled(cache, origin.layers, settings, progress.layer, progress.cached) as layers:
        layers = [*layers, config_layer(layers, origin, settings)]

        def check(contents: Contents) -> None:
            say(Event("progress", task, step="verify"))
            pack.check(path, _written(contents, layers, path), options)

        linked = link(
            layers,
            path,
            settings,
            Rules(
                all_root=True,
                readable_depth=READABLE_DEPTH,
                keep_devices=False,
                mtime=origin.image.created,
            ),
            on_bytes=progress.link,
            check=check,
        )
    return Packed(linked.entries, linked.devices_left_out, linked.pieces)


def _written(contents: Contents, layers: list[Layer], path: Path) -> Written:
    return Written(contents.entries, contents.inodes, _newlines(layers, path))


def _newlines(layers: list[Layer], path: Path) -> int:
    """Line breaks in all paths together; nearly always none, and then this costs nothing."""
    if not any(b"\n" in b"/".join(layer.names) for layer in layers):
        return 0
    with opened(path) as image:
        return sum(entry.path.count(b"\n") for entry in image.walk())


class _Progress:
    """Bytes of layers and of the link as events, not more often than somebody can read."""

    def __init__(self, origin: Origin, say: OnEvent, task: str) -> None:
        digests = [layer.digest for layer in origin.layers]
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
        """As slipway.squashfs.compile.OnProgress."""
        self._progress(self._steps[digest], done, total)

    def cached(self, digest: str) -> None:
        """A layer that was compiled before."""
        self._say(Event("cached", self._task, self._steps[digest]))

    def link(self, done: int, total: int) -> None:
        """Bytes of the image that are written."""
        self._progress("link", done, total)
