"""versions.yaml beside what AWS publishes: its tables, what differs, and the edit that follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.matrix.upstream.currency import (
        CurrencyFinding,
        compare_with_tables,
        is_left_out,
    )
    from slipway.matrix.upstream.currency_edit import edit_versions, entry_block
    from slipway.matrix.upstream.upstream_tables import TRAINING_TABLES, published_images

__all__ = [
    "TRAINING_TABLES",
    "CurrencyFinding",
    "compare_with_tables",
    "edit_versions",
    "entry_block",
    "is_left_out",
    "published_images",
]

__getattr__ = lazy_face(
    __name__,
    {
        "currency": "CurrencyFinding compare_with_tables is_left_out",
        "currency_edit": "edit_versions entry_block",
        "upstream_tables": "TRAINING_TABLES published_images",
    },
)
