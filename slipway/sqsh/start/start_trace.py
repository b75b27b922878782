"""What a start reads of an image: files and ranges in the order in which they are touched.

A trace is a text, one file a line, that fits other images than the one it was made in: folders of
Python and its version are written as fields.

    slipway-start/1
    command: python -c 'import torch'
    0-65536,131072-262144 {packages}/torch/lib/libtorch_cpu.so
    all {stdlib}/json/__init__.py

`{packages}` is a folder site-packages or dist-packages, `{stdlib}` the folder python3.N of the
standard library, `{version}` and `{tag}` stand for 3.N and cpython-3N.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway.core import SlipwayError

FORMAT = "slipway-start/1"
DEFAULT_TRACE = Path(__file__).with_name("torch-deepspeed.start")
"""A start of `import torch, deepspeed, torch.distributed.fsdp`: most training jobs begin so."""

_GRAIN = 64 << 10  # ranges are rounded to it: versions of a library differ by more
_GAP = 128 << 10  # what is left out between two ranges is at least so long
_MOST_LINES, _MOST_RANGES = 200_000, 10_000
_PACKAGES = re.compile(r"^(?:.*/)?(?:site|dist)-packages/(.+)$")
_STDLIB = re.compile(r"^(?:.*/)?lib(?:64)?/python3\.\d+/(.+)$")
_BINARY = re.compile(r"^(?:.*/)?bin/python3\.\d+$")
_TAG = re.compile(r"\bcpython-3\d+\b")
_RANGE = re.compile(r"(\d{1,15})-(\d{1,15})")


@dataclass(frozen=True)
class TouchedFile:
    """A path, as a trace writes it, and the ranges (start, end) that are read; none means all."""

    path: str
    ranges: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class StartTrace:
    """The files of a start, in order."""

    command: str
    files: tuple[TouchedFile, ...]

    @property
    def digest(self) -> str:
        """What decides the order of an image's data; the command does not."""
        text = "\n".join(_line(file) for file in self.files)
        return hashlib.sha256(text.encode()).hexdigest()


def general_path(path: str) -> str:
    """A path of one image as a trace writes it."""
    text = _TAG.sub("{tag}", path)
    if match := _PACKAGES.match(text):
        return f"{{packages}}/{match[1]}"
    if match := _STDLIB.match(text):
        return f"{{stdlib}}/{match[1]}"
    return "{bin}/python{version}" if _BINARY.match(text) else text


def make_trace(
    command: str,
    reads: Mapping[bytes, Sequence[tuple[int, int]]],
    sizes: Mapping[bytes, int],
) -> StartTrace:
    """A trace of what was read: the ranges by path, in the order of first reads."""
    files: dict[str, TouchedFile] = {}
    for path, ranges in reads.items():
        text = path.decode(errors="surrogateescape")
        if not text.isprintable() or "{" in text:
            continue  # nothing that a start needs is called so
        general = general_path(text)
        merged = merge_ranges(ranges, _GRAIN, _GAP)
        if merged and merged[0][0] == 0 and merged[0][1] >= sizes[path]:
            merged = ()
        files.setdefault(general, TouchedFile(general, merged))
    told = "".join(character if character.isprintable() else " " for character in command)
    return StartTrace(told, tuple(files.values()))


def merge_ranges(
    ranges: Iterable[tuple[int, int]], grain: int, gap: int
) -> tuple[tuple[int, int], ...]:
    """Ranges, sorted and rounded outwards to `grain`; those less than `gap` apart are one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        start, end = start // grain * grain, -(-end // grain) * grain
        if merged and start - merged[-1][1] < gap:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return tuple(merged)


def trace_text(trace: StartTrace) -> str:
    """A trace as it is kept."""
    lines = [FORMAT, f"command: {trace.command}", *map(_line, trace.files)]
    return "\n".join(lines) + "\n"


def _line(file: TouchedFile) -> str:
    ranges = ",".join(f"{start}-{end}" for start, end in file.ranges) or "all"
    return f"{ranges} {file.path}"


def read_trace(path: Path) -> StartTrace:
    """The trace in a file. Raises SlipwayError for what is none."""
    try:
        return parse_trace(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SlipwayError(
            f"this is not a trace of a start ({error})",
            where=str(path),
            cure="Make it again: `./inv sqsh.trace NAME -- CMD`.",
        ) from error


@functools.cache
def default_trace() -> StartTrace:
    """The one that comes with Slipway."""
    return read_trace(DEFAULT_TRACE)


def parse_trace(text: str) -> StartTrace:
    """The trace that a text says. Raises ValueError."""
    head, _, rest = text.partition("\n")
    command, _, rest = rest.partition("\n")
    if head != FORMAT or not command.startswith("command: "):
        raise ValueError(f"it does not begin with {FORMAT} and a command")
    lines = rest.splitlines()
    if len(lines) > _MOST_LINES:
        raise ValueError(f"{len(lines)} files, and {_MOST_LINES} are the most")
    files = tuple(_file(line) for line in lines)
    if len({file.path for file in files}) != len(files):
        raise ValueError("a path stands there twice")
    return StartTrace(command.removeprefix("command: "), files)


def _file(line: str) -> TouchedFile:
    words, _, path = line.partition(" ")
    if not path or path.startswith("/"):
        raise ValueError(f"a line without a path: {line!r}")
    if words == "all":
        return TouchedFile(path)
    ranges = []
    for word in words.split(","):
        match = _RANGE.fullmatch(word)
        if match is None:
            raise ValueError(f"no range: {word!r}")
        ranges.append((int(match[1]), int(match[2])))
    ordered = all(
        start < end and (not at or ranges[at - 1][1] < start)
        for at, (start, end) in enumerate(ranges)
    )
    if not ordered or len(ranges) > _MOST_RANGES:
        raise ValueError(f"ranges that are not in order: {line!r}")
    return TouchedFile(path, tuple(ranges))
