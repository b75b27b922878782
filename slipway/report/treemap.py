"""Sizes as rectangles: a squarified treemap (Bruls, Huizing, van Wijk 2000). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Rectangle:
    """A tile. The same units as the area that was divided."""

    x: float
    y: float
    width: float
    height: float


def treemap(sizes: Sequence[float], width: float, height: float) -> list[Rectangle]:
    """A rectangle for each size, its area in proportion; none of area where the size is 0.

    The tiles are as near to squares as the order of sizes, largest first, allows. Fractions are
    exact: what is left beside large tiles would be rounding alone where a size is a byte of 100 GB.
    """
    total = sum(Fraction(size) for size in sizes if size > 0)
    tiles = [Rectangle(0, 0, 0, 0)] * len(sizes)
    order = sorted((n for n, size in enumerate(sizes) if size > 0), key=lambda n: -sizes[n])
    whole = Fraction(width) * Fraction(height)
    areas = [whole * Fraction(sizes[number]) / total for number in order]
    x = y = Fraction(0)
    free_width, free_height = Fraction(width), Fraction(height)
    done = 0
    while done < len(areas):
        side = min(free_width, free_height)
        count = _row_length(areas[done:], side)
        row = areas[done : done + count]
        thickness = sum(row) / side
        upright = free_width >= free_height  # the row is a column at the left
        at = Fraction(0)
        for number, area in zip(order[done : done + count], row, strict=True):
            length = area / thickness
            tiles[number] = (
                _rectangle(x, y + at, thickness, length)
                if upright
                else _rectangle(x + at, y, length, thickness)
            )
            at += length
        if upright:
            x, free_width = x + thickness, free_width - thickness
        else:
            y, free_height = y + thickness, free_height - thickness
        done += count
    return tiles


def _rectangle(x: Fraction, y: Fraction, width: Fraction, height: Fraction) -> Rectangle:
    return Rectangle(float(x), float(y), float(width), float(height))


def _row_length(areas: Sequence[Fraction], side: Fraction) -> int:
    """How many of the areas make the row whose worst tile is nearest to a square."""
    count, worst = 1, _worst(areas[:1], side)
    while count < len(areas):
        longer = _worst(areas[: count + 1], side)
        if longer > worst:
            break
        count, worst = count + 1, longer
    return count


def _worst(row: Sequence[Fraction], side: Fraction) -> Fraction:
    """The proportion of the tile of a row that is furthest from a square."""
    total = sum(row)
    return max(side**2 * max(row) / total**2, total**2 / (side**2 * min(row)))
