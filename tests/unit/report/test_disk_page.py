"""Disks: no byte counted twice, and tiles whose areas are the sizes."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from slipway.report.disk_page import MOST_TILES, disk_page, draw_treemap, own_sizes
from slipway.report.report_facts import StoredData
from slipway.report.treemap import treemap
from tests.support.report_samples import disk_facts


@settings(max_examples=50)
@given(st.lists(st.integers(0, 10**12), max_size=40))
@example([1, 40_408_173_470, 40_408_173_470, 40_408_173_470])
@example([1, 40_408_173_471, 40_408_173_471])
@example([1] * 20 + [10**18] * 20)
def test_tiles_have_the_areas_of_their_sizes_and_do_not_overlap(sizes: list[int]) -> None:
    tiles = treemap(sizes, 1000, 420)
    total = sum(sizes)
    for tile, size in zip(tiles, sizes, strict=True):
        area = 1000 * 420 * size / total if total else 0
        assert tile.width * tile.height == pytest.approx(area, rel=1e-6, abs=1e-6)
        assert 0 <= tile.x <= tile.x + tile.width <= 1000 + 1e-9
        assert 0 <= tile.y <= tile.y + tile.height <= 420 + 1e-9
    drawn = [tile for tile in tiles if tile.width * tile.height > 1e-3]
    for number, one in enumerate(drawn):
        for other in drawn[number + 1 :]:
            wide = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
            high = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
            assert wide < 1e-3 or high < 1e-3


def test_data_inside_of_other_data_counts_once() -> None:
    sizes = {place.what: own for place, own in own_sizes(disk_facts().places)}
    assert sizes == {"docker data-root": 700, "BuildKit cache": 300, "Slipway cache": 200}


def test_two_kinds_in_one_folder_are_not_each_others_parents() -> None:
    places = [StoredData(name, "/same", "d", 100, 1) for name in ("a", "b")]
    assert sum(own for _, own in own_sizes(places)) == 100


def test_the_page_has_the_numbers_of_the_facts() -> None:
    page = disk_page(disk_facts())
    assert page.stored.total == 1200
    assert [(tile.what, tile.size) for tile in page.removable.tiles] == [
        ("unused images", 400),
        ("cached files", 30),
    ]
    assert page.unknown == ("enroot data",)
    assert sum(tile.share for tile in page.stored.tiles) == pytest.approx(1)


def test_small_things_are_one_tile_together() -> None:
    picture = draw_treemap([("file", str(n), n) for n in range(1, MOST_TILES + 11)])
    last = picture.tiles[-1]
    assert (len(picture.tiles), last.name) == (MOST_TILES + 1, "10 smaller ones")
    assert picture.total == sum(range(1, MOST_TILES + 11))
