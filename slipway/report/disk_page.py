"""The page of disks: where bytes lie, and what storage.prune would free. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from slipway.report.report_facts import DiskFacts, StoredData
from slipway.report.treemap import Rectangle, treemap

WIDTH, HEIGHT = 1000.0, 420.0
"""Of a treemap, in its own units."""

MOST_TILES = 60
"""Things of one picture; the smaller ones are one tile together."""


@dataclass(frozen=True)
class DiskTile:
    """One tile, and its line in the table beside the picture."""

    number: int
    what: str
    name: str
    size: int
    share: float  # of the picture
    box: Rectangle


@dataclass(frozen=True)
class Treemap:
    """A picture with the table of the same numbers."""

    tiles: tuple[DiskTile, ...]
    total: int


@dataclass(frozen=True)
class DiskPage:
    """What is known of disks."""

    places: tuple[StoredData, ...]
    stored: Treemap
    removable: Treemap
    older_than: str
    engine: str
    unknown: tuple[str, ...]  # kinds of data whose size only root may see


def disk_page(facts: DiskFacts) -> DiskPage:
    """The page of these facts."""
    stored = [(place.what, place.path, own) for place, own in own_sizes(facts.places)]
    going = [(item.what, item.name, item.size) for item in facts.removable]
    return DiskPage(
        places=facts.places,
        stored=draw_treemap(stored),
        removable=draw_treemap(going),
        older_than=facts.older_than,
        engine=facts.engine,
        unknown=tuple(place.what for place in facts.places if place.used is None),
    )


def own_sizes(places: Sequence[StoredData]) -> list[tuple[StoredData, int]]:
    """Each kind of data with what no other kind below it counts as well."""
    sized = [(place, PurePath(place.path)) for place in places if place.used]
    own = []
    for at, (place, _) in enumerate(sized):
        inner = sum(
            other.used or 0
            for number, (other, below) in enumerate(sized)
            if _parent(number, below, sized) == at
        )
        own.append((place, max((place.used or 0) - inner, 0)))
    return own


def _parent(number: int, path: PurePath, sized: Sequence[tuple[StoredData, PurePath]]) -> int:
    """The nearest other kind whose folder this one lies in; -1 for none."""
    above = [
        at
        for at, (_, other) in enumerate(sized)
        if at != number and (other in path.parents or (other == path and at < number))
    ]
    return max(above, key=lambda at: len(sized[at][1].parts), default=-1)


def draw_treemap(items: Sequence[tuple[str, str, int]]) -> Treemap:
    """(what, name, bytes) as tiles, largest first."""
    ordered = sorted((item for item in items if item[2] > 0), key=lambda item: -item[2])
    shown, rest = ordered[:MOST_TILES], ordered[MOST_TILES:]
    if rest:
        shown.append(("others", f"{len(rest)} smaller ones", sum(size for _, _, size in rest)))
    total = sum(size for _, _, size in shown)
    boxes = treemap([size for _, _, size in shown], WIDTH, HEIGHT)
    return Treemap(
        tuple(
            DiskTile(number, what, name, size, size / total, box)
            for number, ((what, name, size), box) in enumerate(zip(shown, boxes, strict=True), 1)
        ),
        total,
    )
