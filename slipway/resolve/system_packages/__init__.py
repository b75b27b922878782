"""Packages of a distribution, resolved for what is installed in a base, and locked by hash.

In come the package database of a base and names; out come files of archives in the order of their
installation, whose signatures were checked. The host's own apt or dnf does it in a folder of its
own: nothing of this host's packages is read or changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.resolve.system_packages.system_locks import (
        BaseState,
        SystemWant,
        system_wants,
        update_system_lock,
    )

__all__ = ["BaseState", "SystemWant", "system_wants", "update_system_lock"]

__getattr__ = lazy_face(
    __name__, {"system_locks": "BaseState SystemWant system_wants update_system_lock"}
)
