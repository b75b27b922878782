"""Add-ons: which of them an image has, and what happens to each on its base. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.matrix.addons.decisions import AxisChoice, decide_addon, is_for, read_tool

__all__ = ["AxisChoice", "decide_addon", "is_for", "read_tool"]

__getattr__ = lazy_face(__name__, {"decisions": "AxisChoice decide_addon is_for read_tool"})
