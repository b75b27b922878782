"""`inv lock`: ask registries and the package index, and write what was found to images/lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.resolve.currency_report import CurrencyReport, check_currency
    from slipway.resolve.image_tables import (
        PACKAGE,
        ImageTables,
        fetch_image_tables,
        read_image_tables,
    )
    from slipway.resolve.lock_update import LockOptions, update_locks
    from slipway.resolve.system_packages import BaseState

__all__ = [
    "PACKAGE",
    "BaseState",
    "CurrencyReport",
    "ImageTables",
    "LockOptions",
    "check_currency",
    "fetch_image_tables",
    "read_image_tables",
    "update_locks",
]

__getattr__ = lazy_face(
    __name__,
    {
        "currency_report": "CurrencyReport check_currency",
        "image_tables": "ImageTables PACKAGE fetch_image_tables read_image_tables",
        "lock_update": "LockOptions update_locks",
        "system_packages": "BaseState",
    },
)
