"""Images that no engine builds: build, push and .sqsh with `--no-engine`, and for an engine.

In come the same image names and settings either way. Without an engine the base stays in its
registry; with one, what is new is loaded into it on top of the base that it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.pipeline.appended.base_sources import BaseSources, check_one_base
    from slipway.pipeline.appended.disk_plan import AppendedDisk, appended_disk
    from slipway.pipeline.appended.engine_images import (
        EngineBase,
        described_by_engine,
        keep_ran_steps,
        load_appended,
    )
    from slipway.pipeline.appended.own_layers import OwnLayers
    from slipway.pipeline.appended.ship_appended import ship_appended

__all__ = [
    "AppendedDisk",
    "BaseSources",
    "EngineBase",
    "OwnLayers",
    "appended_disk",
    "check_one_base",
    "described_by_engine",
    "keep_ran_steps",
    "load_appended",
    "ship_appended",
]

__getattr__ = lazy_face(
    __name__,
    {
        "base_sources": "BaseSources check_one_base",
        "disk_plan": "AppendedDisk appended_disk",
        "engine_images": "EngineBase described_by_engine keep_ran_steps load_appended",
        "own_layers": "OwnLayers",
        "ship_appended": "ship_appended",
    },
)
