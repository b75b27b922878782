"""Sizes as rectangles: a squarified treemap (Bruls, Huizing, van Wijk 2000). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rectangle:
    """A tile. The same units as the area that was divided."""

    x: float
    y: float
    width: float
    height: float


def treemap(sizes: Sequence[float], width: float, height: float) -> list[Rectangle]:
    """A rectangle for each size, its area in proportion; none of area where the size is 0.

    The tiles are as near to squares as the order of sizes, largest first, allows.
    """
    total = sum(size for size in sizes if size > 0)
    tiles = [Rectangle(0, 0, 0, 0)] * len(sizes)
    order = sorted((n for n, size in enumerate(sizes) if size > 0), key=lambda n: -sizes[n])
    if not order:
        return tiles
    scale = width * height / total
    areas = [sizes[number] * scale for number in order]
    x = y = 0.0
    done = 0
    while done < len(areas):
        side = min(width, height)
        count = _row_length(areas[done:], side)
        row = areas[done : done + count]
        thickness = sum(row) / side if side else 0.0
        at = 0.0
        for number, area in zip(order[done : done + count], row, strict=True):
            length = area / thickness if thickness else 0.0
            upright = width >= height  # the row is a column at the left
            tiles[number] = (
                Rectangle(x, y + at, thickness, length)
                if upright
                else Rectangle(x + at, y, length, thickness)
            )
            at += length
        if width >= height:
            x, width = x + thickness, max(width - thickness, 0.0)
        else:
            y, height = y + thickness, max(height - thickness, 0.0)
        done += count
    return tiles


def _row_length(areas: Sequence[float], side: float) -> int:
    """How many of the areas make the row whose worst tile is nearest to a square."""
    count, worst = 1, _worst(areas[:1], side)
    while count < len(areas):
        longer = _worst(areas[: count + 1], side)
        if longer > worst:
            break
        count, worst = count + 1, longer
    return count


def _worst(row: Sequence[float], side: float) -> float:
    total = sum(row)
    if not total or not side or not min(row):
        return float("inf")
    return max(side**2 * max(row) / total**2, total**2 / (side**2 * min(row)))
