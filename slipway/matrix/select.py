"""Images by name or glob."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from slipway.errors import UsageError
from slipway.matrix.model import Image, Matrix, Reference
from slipway.matrix.uri import did_you_mean


def select(matrix: Matrix, patterns: Sequence[str]) -> tuple[Image, ...]:
    """The images that any of the names or globs match, each once, in the matrix' order.

    No pattern means all. Raises UsageError for a pattern that matches nothing, with near names.
    """
    for pattern in patterns:
        if not any(fnmatchcase(image.name, pattern) for image in matrix.images):
            raise _unknown(matrix, pattern, [image.name for image in matrix.images])
    return tuple(
        image
        for image in matrix.images
        if not patterns or any(fnmatchcase(image.name, pattern) for pattern in patterns)
    )


def one(matrix: Matrix, name: str) -> Image | Reference:
    """The image or the reference of exactly this name. Raises UsageError where there is none."""
    known = {**{image.name: image for image in matrix.images}, **matrix.references}
    if name not in known:
        raise _unknown(matrix, name, list(known))
    return known[name]


def _unknown(matrix: Matrix, pattern: str, names: list[str]) -> UsageError:
    return UsageError(
        f"no image {pattern!r}{did_you_mean(pattern, names)}",
        cure=f"`inv matrix` lists all {len(matrix.images)}; globs work: 'pytorch-2.13-*'",
    )
