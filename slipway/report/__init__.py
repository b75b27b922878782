"""Pages that a person looks at: what is built and why, where size and time lie, how a job fared.

In come records, sidecars, check results, run logs and job logs; out comes one folder of static
pages that open from file:// without network. It starts nothing and changes nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.report.docs_site import REPORT_FOLDER, build_site, draw_rooms, stage_pages
    from slipway.report.live_view import WatchRequest, watch_work
    from slipway.report.report import ReportRequest, write_report

__all__ = [
    "REPORT_FOLDER",
    "ReportRequest",
    "WatchRequest",
    "build_site",
    "draw_rooms",
    "stage_pages",
    "watch_work",
    "write_report",
]

__getattr__ = lazy_face(
    __name__,
    {
        "docs_site": "REPORT_FOLDER build_site draw_rooms stage_pages",
        "live_view": "WatchRequest watch_work",
        "report": "ReportRequest write_report",
    },
)
