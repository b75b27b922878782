"""What runs record for a person to look at later: how they went, and what images are made of.

Nothing is decided by it: a run that cannot record it goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.pipeline.recording.layer_notes import note_appended_layers, note_engine_layers
    from slipway.pipeline.recording.run_records import recorded_run

__all__ = ["note_appended_layers", "note_engine_layers", "recorded_run"]

__getattr__ = lazy_face(
    __name__,
    {
        "layer_notes": "note_appended_layers note_engine_layers",
        "run_records": "recorded_run",
    },
)
