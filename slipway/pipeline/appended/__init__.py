"""Images without an engine, as the tasks call them: build, push and .sqsh with `--no-engine`.

In come the same image names and settings as with an engine; the base stays in its registry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.pipeline.appended.ship_appended import ship_appended

__all__ = ["ship_appended"]

__getattr__ = lazy_face(__name__, {"ship_appended": "ship_appended"})
