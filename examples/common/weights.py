"""Write a model as from_pretrained reads it: safetensors, one weight in memory at a time.

The format is 8 bytes with the header's length, a JSON header, the raw bytes
(safetensors/safetensors:README.md, "Format"); it needs no library, so neither does pre-training.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

SHARD_BYTES = 5 * 10**9
_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


@dataclass(frozen=True)
class Weight:
    """One tensor to be written; `whole` gathers it, and must be called by all ranks at once."""

    name: str
    shape: tuple[int, ...]
    whole: Callable[[], torch.Tensor]

    @property
    def count(self) -> int:
        """Its number of elements."""
        return int(torch.Size(self.shape).numel())


def write(
    folder: Path,
    weights: Sequence[Weight],
    dtype: torch.dtype,
    *,
    first: bool,
    stem: str = "model",
) -> None:
    """All ranks call this; the `first` one writes. Every file appears whole."""
    parts = shards([(w.name, w.count * dtype.itemsize) for w in weights], SHARD_BYTES)
    by_name = {weight.name: weight for weight in weights}
    index: dict[str, str] = {}
    for number, names in enumerate(parts, 1):
        file = f"{stem}-{number:05}-of-{len(parts):05}.safetensors"
        file = f"{stem}.safetensors" if len(parts) == 1 else file
        index.update(dict.fromkeys(names, file))
        _write_shard(folder / file, [by_name[name] for name in names], dtype, first=first)
    if first and len(parts) > 1:
        size = sum(weight.count for weight in weights) * dtype.itemsize
        listing = {"metadata": {"total_size": size}, "weight_map": index}
        write_json(folder / f"{stem}.safetensors.index.json", listing)


def shards(sizes: Sequence[tuple[str, int]], limit: int) -> list[list[str]]:
    """Names in files of at most `limit` bytes; a larger tensor has a file of its own."""
    parts: list[list[str]] = []
    filled = 0
    for name, size in sizes:
        if not parts or filled + size > limit:
            parts.append([])
            filled = 0
        parts[-1].append(name)
        filled += size
    return parts


def _write_shard(path: Path, weights: Sequence[Weight], dtype: torch.dtype, *, first: bool) -> None:
    if not first:
        for weight in weights:
            weight.whole()
        return
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for weight in weights:
        begin, end = end, end + weight.count * dtype.itemsize
        header[weight.name] = {
            "dtype": _NAMES[dtype],
            "shape": list(weight.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as sink:
        sink.write(struct.pack("<Q", len(text)) + text)
        for weight in weights:
            data = weight.whole().detach().to("cpu", dtype).contiguous()
            sink.write(memoryview(data.view(-1).view(torch.uint8).numpy()))
    partial.replace(path)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """A JSON file that appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
