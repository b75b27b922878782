"""Packing one part, and what goes between `pool` and its worker processes.

A job and its answer are pickles behind a four-byte length; both ends are the same program.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from slipway.core import Piece
from slipway.squashfs.compile.block_writer import BlockWriter
from slipway.squashfs.compile.directory_layer import file_reader
from slipway.squashfs.compile.layer_tree import FileData
from slipway.squashfs.format import find_codec


@dataclass(frozen=True)
class PackJob:
    """Pack files into the new file `output`.

    A file is its path below the folder `base`, or its position in the file `base`; and its size.
    """

    base: bytes
    files: list[tuple[bytes | int, int]]
    part: int
    compressor: str
    level: int | None
    block_size: int
    output: Path


@dataclass(frozen=True)
class PackedPart:
    """What a job made: the data of each file in turn."""

    files: list[FileData]
    fragments: list[tuple[int, int, int]]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class PackFailure:
    """Why a job failed; `code` is the system's error number, 0 for none."""

    what: str
    where: str | None
    cure: str | None
    code: int = 0


def pack_job(job: PackJob) -> PackedPart:
    """Do a job. Raises LayerError and OSError."""
    codec = find_codec(job.compressor, job.level, job.block_size)
    files = []
    with job.output.open("xb", buffering=1 << 20) as sink:
        packer = BlockWriter(sink, codec, job.block_size, part=job.part)
        with contextlib.ExitStack() as opened:
            spool: IO[bytes] | None = None
            for source, size in job.files:
                if isinstance(source, int):
                    if spool is None:
                        spool = opened.enter_context(open(job.base, "rb"))  # noqa: PTH123 - bytes
                    spool.seek(source)
                    files.append(packer.add(size, spool.read))
                    continue
                handle, read = file_reader(job.base + b"/" + source)
                try:
                    files.append(packer.add(size, read))
                finally:
                    os.close(handle)
        pieces = packer.finish()
    return PackedPart(files, packer.fragments, pieces)


def send_message(stream: IO[bytes], value: Any) -> None:
    """Write one pickle."""
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    stream.write(struct.pack("<I", len(data)) + data)
    stream.flush()


def receive_message(stream: IO[bytes]) -> Any:
    """Read one pickle; None at the end of the stream."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    return pickle.loads(stream.read(struct.unpack("<I", head)[0]))  # noqa: S301 - our own child's
