"""How layers are compiled and images are linked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

import zstandard

from slipway.core import UsageError
from slipway.squashfs.format.compressors import LEVELS, Codec, find_codec

WRITABLE_DEPTH = 15
"""Down to which level `enroot import` gives directories u+w; the root is level 0."""

_REVISION = 4
"""Part of every cache key: raised when the same input would give other bytes."""


@dataclass(frozen=True)
class SqshOptions:
    """Compressor (a key of LEVELS), its level (None: the library's) and block size (bytes).

    The default is zstd-1 in 256 KiB blocks: a bit more than half the size of enroot's default
    (lzo), and a third less work than zstd-3, which saves another tenth; a start from the file reads
    a fifth less than with 1 MiB, and the file is 0.4 % larger (docs/lab/performance.md has the
    figures). Every kernel since 4.14 mounts it. Raises UsageError for values that squashfs does not
    have.
    """

    compressor: str = "zstd"
    level: int | None = 1
    block_size: int = 1 << 18

    def __post_init__(self) -> None:
        if self.compressor not in LEVELS:
            raise UsageError(
                f"squashfs has no compressor {self.compressor!r}",
                cure=f"Use one of: {', '.join(LEVELS)}.",
            )
        levels = LEVELS[self.compressor]
        if self.level is not None and (levels is None or self.level not in levels):
            allowed = f"{levels.start} to {levels.stop - 1}" if levels else "no level at all"
            raise UsageError(
                f"level {self.level} does not exist for {self.compressor}",
                cure=f"{self.compressor} takes {allowed}.",
            )
        if self.block_size not in {1 << bits for bits in range(12, 21)}:
            raise UsageError(
                f"{self.block_size} bytes is no squashfs block size",
                cure="Use a power of two from 4096 (4 KiB) to 1048576 (1 MiB).",
            )

    @classmethod
    def parse(cls, text: str) -> SqshOptions:
        """``zstd-3``, ``lz4``, ``none``: a compressor, with or without a level.

        Without, zstd has this class's default and gzip and lzo have mksquashfs' own (9, 8).
        """
        name, dash, level = text.partition("-")
        if not dash:
            return cls() if name == cls.compressor else cls(name, None)
        if not (level.isascii() and level.isdecimal()):
            raise UsageError(
                f"{text!r} is no compression",
                cure=f"A compressor ({', '.join(LEVELS)}), and a level if it has any: zstd-3.",
            )
        return cls(name, int(level))

    def as_json(self) -> dict[str, Any]:
        """As plain values, for the sidecar."""
        return asdict(self)

    @property
    def asked(self) -> dict[str, Any]:
        """What a user chooses, and `parse` reads; the rest comes with the version of Slipway."""
        return {"compressor": self.compressor, "level": self.level}

    def codec(self) -> Codec:
        """The codec to write with. Raises SquashfsError where a library is missing."""
        return find_codec(self.compressor, self.level, self.block_size)

    def layer_key(self, layer: str) -> str:
        """Name of the cache entry for a layer, by its digest (the diff id).

        What the layer was read from does not count: folders and archives of the same layer are
        compiled to the same bytes.
        """
        library = list(zstandard.ZSTD_VERSION) if self.compressor == "zstd" else []
        text = json.dumps([_REVISION, layer, asdict(self), library], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:40]


@dataclass(frozen=True)
class HotFile:
    """A file that a start reads: its path below the root, and (start, end) of what is read of its
    content; no ranges mean all of it. Where it is not there, all of `instead` is read."""

    path: bytes
    ranges: tuple[tuple[int, int], ...] = ()
    instead: bytes = b""


@dataclass(frozen=True)
class ImageRules:
    """What changes on the way into the image, and what of it is read first.

    `all_root`: every file belongs to 0:0 (as `mksquashfs -all-root`). `readable`: everything gets
    u+rX, as by `chmod -R`: r, and x for directories and for what anybody may execute.
    `writable_depth`: directories down to this level get u+w; the root is 0, -1 leaves all as they
    are. `keep_devices`: device nodes stay. `mtime`: of directories that no layer describes, in
    seconds. `hot`: the files that a start reads, in order; those that are not there do not count.
    """

    all_root: bool = False
    readable: bool = False
    writable_depth: int = -1
    keep_devices: bool = True
    mtime: int = 0
    hot: tuple[HotFile, ...] = ()

    def file_mode(self, mode: int) -> int:
        """The mode of anything but a directory or a symbolic link."""
        if self.readable:
            mode |= 0o500 if mode & 0o111 else 0o400
        return mode

    def directory_mode(self, mode: int, depth: int) -> int:
        """The mode of a directory so far below the root."""
        if self.readable:
            mode |= 0o500
        if depth <= self.writable_depth:
            mode |= 0o200
        return mode
