"""The picture of the rooms: it shows what the code imports, whatever the code is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.report.docs_site.rooms_picture import (
    draw_rooms,
    needed_uses,
    place_rooms,
    read_rooms,
)
from tests.unit.test_architecture import FLOORS, PROGRAMS


def closure(uses: Mapping[str, set[str]]) -> set[tuple[str, str]]:
    """All pairs of which the first uses the second, also through others."""
    pairs = {(room, other) for room, others in uses.items() for other in others}
    while True:
        more = {(a, d) for a, b in pairs for c, d in pairs if b == c} - pairs
        if not more:
            return pairs
        pairs |= more


@st.composite
def programs(draw: st.DrawFn) -> dict[str, set[str]]:
    """Any rooms without a circle: each uses some of those before it."""
    names = [f"room{number}" for number in range(draw(st.integers(1, 14)))]
    return {
        name: draw(st.sets(st.sampled_from(names[:number]))) if number else set()
        for number, name in enumerate(names)
    }


@given(programs())
def test_what_is_left_out_is_implied_by_what_is_drawn(uses: dict[str, set[str]]) -> None:
    needed = needed_uses(uses)
    assert closure(needed) == closure(uses)
    for room, others in needed.items():
        for other in others:  # none could be left out
            fewer = {**needed, room: others - {other}}
            assert closure(fewer) != closure(uses)


@given(programs())
def test_boxes_lie_apart_and_lines_lead_down_between_them(uses: dict[str, set[str]]) -> None:
    layout = place_rooms(uses, {})
    at = {(box.x, box.y): box.name for box in layout.boxes}
    assert sorted(at.values()) == sorted(uses)
    for box in layout.boxes:
        assert 59 <= box.x <= layout.width - 59
        assert 20 <= box.y <= layout.height - 20
        for other in layout.boxes:
            assert box is other or abs(box.x - other.x) > 118 or abs(box.y - other.y) > 40
    drawn = {(at[line[0]], at[line[-1]]) for line in layout.lines}
    assert drawn == {
        (room, other) for room, others in needed_uses(uses).items() for other in others
    }
    for line in layout.lines:
        heights = [y for _, y in line]
        assert heights == sorted(heights)
        assert len(set(heights)) == len(heights)
        for x, y in line[1:-1]:
            assert all(abs(box.x - x) > 59 for box in layout.boxes if box.y == y)


def test_rooms_that_use_each_other_are_named() -> None:
    with pytest.raises(ValueError, match="a, b"):
        place_rooms({"a": {"b"}, "b": {"a"}, "c": set()}, {})


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_the_rooms_of_the_code_are_those_of_the_test_of_its_shape(program: str) -> None:
    uses = read_rooms(PROGRAMS[program])
    floors = FLOORS[program]
    assert sorted(uses) == sorted(room for rooms in floors for room in rooms)
    floor = {room: number for number, rooms in enumerate(floors) for room in rooms}
    assert all(floor[other] < floor[room] for room, others in uses.items() for other in others)


def test_an_import_more_is_a_line_more_and_a_room_more_a_box_more(tmp_path: Path) -> None:
    def write(room: str, text: str) -> None:
        folder = tmp_path / "pack" / room
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text(f'"""The {room} & <all>."""\n')
        (folder / "part.py").write_text(text)

    def count() -> tuple[int, int]:
        tree = ElementTree.fromstring(draw_rooms(tmp_path / "pack"))
        name = "{http://www.w3.org/2000/svg}"
        return len(tree.findall(f".//{name}rect")), len(tree.findall(f".//{name}path"))

    write("low", "import os\n")
    write("other", "")
    assert count() == (2, 0)
    write("high", "def f():\n    from pack.low import part\n")
    assert count() == (3, 1)
    write("high", "from pack import low, other\nimport pack.low.part\n")
    assert count() == (3, 2)
    assert "high uses low, other" in draw_rooms(tmp_path / "pack")
