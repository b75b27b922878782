"""Files that are there twice: found, and with each file read once, whatever they are like."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from slipway.squashfs.link import duplicate_files
from slipway.squashfs.link.merged_tree import MergedTree
from tests.unit.squashfs.test_images import noise
from tests.unit.squashfs.test_layers import archive, compile_all, member

SIZE = 10 * 4096  # blocks that nothing compresses are all stored with the same sizes
COUNT = 60
END = duplicate_files._END
HEAD, TAIL = noise(SIZE)[:END], noise(SIZE)[-END:]


def shard(number: int) -> bytes:
    return noise(SIZE * COUNT)[number * SIZE :][:SIZE]


def between(number: int) -> bytes:
    """Told apart by its middle alone."""
    return HEAD + shard(number)[: SIZE - 2 * END] + TAIL


@pytest.mark.parametrize(
    ("content", "most"), [(shard, 2 * END * COUNT), (between, (2 * END + SIZE) * COUNT)]
)
def test_many_files_with_blocks_of_the_same_sizes_are_each_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, most: int
) -> None:
    members = [member(f"{n:03}", data=content(n)) for n in range(COUNT)]  # type: ignore[operator]
    (layer,) = compile_all(tmp_path, archive(members))
    merged = MergedTree([layer])
    read = 0
    pread = os.pread

    def counted(handle: int, size: int, at: int) -> bytes:
        nonlocal read
        data = pread(handle, size, at)
        read += len(data)
        return data

    monkeypatch.setattr(os, "pread", counted)
    assert duplicate_files.find_duplicates(merged) == {}
    assert 0 < read <= most


def test_each_repetition_leads_to_the_first_in_the_order_of_the_image(tmp_path: Path) -> None:
    """In one layer beside others that are alike, across layers, and not for hard links."""
    lower = archive(
        [
            member("a", data=shard(0)),
            member("b", data=shard(1)),
            member("c", data=between(0)),
            member("d", data=between(1)),
        ]
    )
    upper = archive(
        [
            member("e", data=shard(1)),
            member("f", data=between(0)),
            member("g", data=shard(2)),
            member("h", b"1", linkname="g"),
            member("i", data=shard(1)),
        ]
    )
    layers = compile_all(tmp_path, lower, upper)
    found = duplicate_files.find_duplicates(MergedTree(layers))
    starts = [dict(zip(layer.names, layer.columns["start"], strict=True)) for layer in layers]
    # The second of two equal files of one layer is no data of its own: compiling saw it.
    named = {
        (extent.layer, name): (first.layer, other)
        for extent, first in found.items()
        for name, start in starts[extent.layer].items()
        for other, place in starts[first.layer].items()
        if start == extent.start and place == first.start and name not in (b"",) and other
    }
    assert named[1, b"e"] == (0, b"b")
    assert named[1, b"f"] == (0, b"c")
    assert not {(1, b"g"), (1, b"h"), (0, b"c"), (0, b"d")} & named.keys()
