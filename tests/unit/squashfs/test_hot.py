"""What a start reads of a linked image: the hot ranges hold it, and nothing that is far from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slipway.squashfs import (
    DIR,
    HotFile,
    ImageRules,
    LayerCache,
    SqshOptions,
    compile_layers,
    link_image,
)
from slipway.squashfs import open_image as opened
from tests.unit.squashfs.test_images import noise
from tests.unit.squashfs.test_layers import Member, archive, member, source

BLOCK = 4096
FILES: dict[str, bytes] = {
    **{f"d/small-{n}": noise(200 + 37 * n) for n in range(60)},
    "big": noise(600_000),
    "hole": bytes(3 * BLOCK) + noise(400_000) + bytes(9000),
    "exact": noise(2 * BLOCK),
    "empty": b"",
}
LAYERS: list[list[Member]] = [
    [member(path, data=data) for path, data in FILES.items() if not path.endswith("7")],
    [member(path, data=data) for path, data in FILES.items() if path.endswith("7")],
    [member("big-too", data=FILES["big"]), member("d/.wh.small-3", data=b"")],
]
PATHS = [*FILES, "big-too", "absent", "d", "d/small-3/x", "big/x"]
RANGES = st.lists(
    st.tuples(st.integers(0, 700_000), st.integers(1, 300_000)).map(lambda r: (r[0], sum(r))),
    max_size=3,
)
STARTS = st.lists(
    st.builds(HotFile, st.sampled_from([p.encode() for p in PATHS]), RANGES.map(tuple))
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> LayerCache:
    return LayerCache(tmp_path_factory.mktemp("hot") / "cache")


@settings(
    max_examples=25,
    suppress_health_check=list(HealthCheck),
)
@given(start=STARTS)
def test_a_start_needs_nothing_but_the_hot_ranges(
    start: list[HotFile], cache: LayerCache, tmp_path: Path
) -> None:
    options = SqshOptions("zstd", 1, BLOCK)
    image, hot_only = tmp_path / "image.sqsh", tmp_path / "hot.sqsh"
    with compile_layers(cache, [source(archive(layer)) for layer in LAYERS], options) as layers:
        linked = link_image(layers, image, options, ImageRules(hot=tuple(start)))
    whole = image.read_bytes()
    part = bytearray(len(whole))
    for (first, end), following in zip(linked.hot, [*linked.hot, (len(whole), 0)][1:], strict=True):
        assert 0 <= first < end <= following[0]
        part[first:end] = whole[first:end]
    if not linked.hot:
        return
    hot_only.write_bytes(part)
    wanted = {file.path: file.ranges for file in reversed(start)}
    with opened(image) as complete, opened(hot_only) as sparse:
        entries = {entry.path: entry.inode for entry in sparse.walk()}
        assert entries == {entry.path: entry.inode for entry in complete.walk()}
        for path, ranges in wanted.items():
            inode = entries.get(path)
            if inode is None or inode.kind == DIR:
                continue
            for first, end in ranges or ((0, inode.size),):
                blocks = range(first // BLOCK, -(-min(end, inode.size) // BLOCK))
                for number in blocks:
                    read = sparse.content_block(inode, number)
                    assert read == complete.content_block(inode, number)


def test_what_no_start_reads_is_not_hot(cache: LayerCache, tmp_path: Path) -> None:
    options, rules = SqshOptions("zstd", 1, BLOCK), ImageRules(hot=(HotFile(b"d/small-0"),))
    with compile_layers(cache, [source(archive(layer)) for layer in LAYERS], options) as layers:
        linked = link_image(layers, tmp_path / "a.sqsh", options, rules)
    assert sum(end - first for first, end in linked.hot) < linked.size // 2


@pytest.mark.parametrize("path", [b"/d/small-0", b"d//small-0", b"//d///small-0"])
def test_a_path_may_have_more_slashes_than_it_needs(
    cache: LayerCache, tmp_path: Path, path: bytes
) -> None:
    options = SqshOptions("zstd", 1, BLOCK)
    with compile_layers(cache, [source(archive(layer)) for layer in LAYERS], options) as layers:
        hot = [
            link_image(layers, tmp_path / "a.sqsh", options, ImageRules(hot=(HotFile(name),))).hot
            for name in (path, b"d/small-0", b"d/absent", b"absent/small-0")
        ]
    assert hot[0] == hot[1] != hot[2] == hot[3]
