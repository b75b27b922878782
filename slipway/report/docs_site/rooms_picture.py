"""The picture of the rooms: read from the code's imports, drawn as SVG, the same for the same code.

Rooms stand in rows: each above all that it uses. An arrow that other arrows already imply is left
out. Lines go between the boxes of a row, not behind them.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

_BOX_W, _BOX_H, _LANE_W, _GAP, _ROW, _MARGIN = 118, 40, 10, 16, 96, 24
_SWEEPS = 12

_STYLE = """
svg { font: 600 15px system-ui, sans-serif; background: #fff; }
rect { fill: #eaf2fd; stroke: #0550ae; stroke-width: 1.5; }
text { fill: #1b1f24; text-anchor: middle; }
path { fill: none; stroke: #6e7781; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
  svg { background: #0d1117; } rect { fill: #14243d; stroke: #79b8ff; }
  text { fill: #e6edf3; } path { stroke: #8b949e; }
}
"""


@dataclass(frozen=True)
class RoomBox:
    """Where a room stands in the picture: its middle, in the picture's own units."""

    name: str
    x: float
    y: float
    purpose: str = ""


@dataclass(frozen=True)
class RoomsLayout:
    """Boxes, and lines from a room to one that it uses, each by the points that it goes through."""

    width: float
    height: float
    boxes: tuple[RoomBox, ...]
    lines: tuple[tuple[tuple[float, float], ...], ...]


def read_rooms(folder: Path) -> dict[str, set[str]]:
    """Room -> rooms that its modules import, of the package in `folder`; wherever it stands."""
    package = folder.name
    uses: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*.py")):
        room, *inside = path.relative_to(folder).parts
        if not inside:
            continue
        named = uses.setdefault(room, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in _imported(node):
                top, _, rest = name.partition(".")
                other = rest.partition(".")[0]
                if top == package and other not in ("", room) and _is_room(folder / other):
                    named.add(other)
    return uses


def _is_room(path: Path) -> bool:
    return (path / "__init__.py").is_file()


def _imported(node: ast.AST) -> list[str]:
    """The full names that an import names."""
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return []


def needed_uses(uses: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Without those that others imply: what a room uses through a room that it uses."""
    below = {room: _below(room, uses) for room in uses}
    return {
        room: {other for other in others if not any(other in below[each] for each in others)}
        for room, others in uses.items()
    }


def _below(room: str, uses: Mapping[str, set[str]]) -> set[str]:
    below: set[str] = set()
    more = list(uses[room])
    while more:
        other = more.pop()
        if other not in below:
            below.add(other)
            more += uses[other]
    return below


def place_rooms(uses: Mapping[str, set[str]], purposes: Mapping[str, str]) -> RoomsLayout:
    """Rooms in rows, by the longest way down; the order within a row has few crossings.

    Raises ValueError where rooms use each other in a circle.
    """
    level = _levels(uses)
    rows, ways = _rows(needed_uses(uses), level)
    for sweep in range(_SWEEPS):
        _order(rows, ways, downwards=sweep % 2 == 0)
    places: dict[str, tuple[float, float]] = {}
    widths = [sum(map(_width, row)) + _GAP * (len(row) - 1) for row in rows]
    full = max(widths, default=0.0) + 2 * _MARGIN
    for number, row in enumerate(rows):
        x = (full - widths[number]) / 2
        y = _MARGIN + _BOX_H / 2 + _ROW * (len(rows) - 1 - number)
        for item in row:
            places[item] = (x + _width(item) / 2, y)
            x += _width(item) + _GAP
    boxes = tuple(RoomBox(room, *places[room], purposes.get(room, "")) for room in sorted(uses))
    lines = tuple(tuple(places[item] for item in way) for way in ways)
    return RoomsLayout(full, 2 * _MARGIN + _BOX_H + _ROW * (len(rows) - 1), boxes, lines)


def _levels(uses: Mapping[str, set[str]]) -> dict[str, int]:
    level: dict[str, int] = {}
    while len(level) < len(uses):
        ready = [room for room in uses if room not in level and uses[room] <= set(level)]
        if not ready:
            raise ValueError(f"rooms use each other: {', '.join(sorted(set(uses) - set(level)))}")
        known = {
            room: 1 + max((level[other] for other in uses[room]), default=-1) for room in ready
        }
        level |= known
    return level


def _rows(
    uses: Mapping[str, set[str]], level: Mapping[str, int]
) -> tuple[list[list[str]], list[tuple[str, ...]]]:
    """What stands in each row, lowest first: rooms, and lanes (">...") for lines that pass by;
    and each line as the items that it goes through, from above."""
    rows: list[list[str]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for room in sorted(uses):
        rows[level[room]].append(room)
    ways = []
    for room in sorted(uses):
        for other in sorted(uses[room]):
            between = range(level[room] - 1, level[other], -1)
            lanes = [f">{room}>{other}>{number}" for number in between]
            for number, lane in zip(between, lanes, strict=True):
                rows[number].append(lane)
            ways.append((room, *lanes, other))
    return rows, ways


def _order(rows: list[list[str]], ways: Sequence[tuple[str, ...]], *, downwards: bool) -> None:
    """Sort each row by the middle of its neighbours in the row before."""
    near: dict[str, list[str]] = {}
    for way in ways:
        for upper, lower in itertools.pairwise(way):
            if downwards:
                near.setdefault(lower, []).append(upper)
            else:
                near.setdefault(upper, []).append(lower)
    for row in reversed(rows) if downwards else rows:
        at = {item: (number + 0.5) / len(each) for each in rows for number, item in enumerate(each)}
        row.sort(
            key=lambda item: (
                sum(at[other] for other in near.get(item, [item])) / len(near.get(item, [item])),
                item,
            )
        )


def _width(item: str) -> float:
    return _LANE_W if item.startswith(">") else _BOX_W


def draw_rooms(folder: Path) -> str:
    """The SVG of the package in `folder`; what it shows stands as text in it, too."""
    uses = read_rooms(folder)
    layout = place_rooms(uses, {room: _purpose(folder / room) for room in uses})
    needed = needed_uses(uses)
    told = "; ".join(
        f"{room} uses {', '.join(sorted(needed[room]))}" for room in sorted(needed) if needed[room]
    )
    title = f"The rooms of {escape(folder.name)}, each above those that it uses"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {layout.width:g} {layout.height:g}" '
        'role="img" aria-labelledby="title desc">',
        f'<title id="title">{title}</title>',
        f'<desc id="desc">{escape(told)}</desc>',
        f"<style>{_STYLE}</style>",
        *(f'<path d="{_curve(line)}"/>' for line in layout.lines),
        *(_box(box) for box in layout.boxes),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _purpose(room: Path) -> str:
    """The first sentence of its face."""
    docstring = ast.get_docstring(ast.parse((room / "__init__.py").read_text("utf-8"))) or ""
    return docstring.partition("\n")[0]


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """Down from the lower edge of one box to the upper edge of another, upright in each lane."""
    (x, y), *others = points
    y += _BOX_H / 2
    path = [f"M{x:g} {y:g}"]
    for number, (to_x, middle) in enumerate(others, 1):
        to_y = middle - _BOX_H / 2
        half = (to_y - y) / 2
        path.append(f"C{x:g} {y + half:g} {to_x:g} {to_y - half:g} {to_x:g} {to_y:g}")
        if number < len(others):
            to_y += _BOX_H
            path.append(f"V{to_y:g}")
        x, y = to_x, to_y
    return "".join(path)


def _box(box: RoomBox) -> str:
    left, top = box.x - _BOX_W / 2, box.y - _BOX_H / 2
    return (
        f"<g><title>{escape(box.purpose)}</title>"
        f'<rect x="{left:g}" y="{top:g}" width="{_BOX_W}" height="{_BOX_H}" rx="5"/>'
        f'<text x="{box.x:g}" y="{box.y + 5:g}">{escape(box.name)}</text></g>'
    )
