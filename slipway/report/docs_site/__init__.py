"""The documents as a site: pages staged with links that hold there, built by zensical; and the
picture of the rooms, which is drawn of the code's imports.

In come the repository's Markdown files, out comes a folder of static pages. Zensical is what the
authors of Material for MkDocs, whose support ends in 2026, go on with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.report.docs_site.rooms_picture import draw_rooms
    from slipway.report.docs_site.site_build import build_site
    from slipway.report.docs_site.site_pages import REPORT_FOLDER, stage_pages

__all__ = ["REPORT_FOLDER", "build_site", "draw_rooms", "stage_pages"]

__getattr__ = lazy_face(
    __name__,
    {
        "rooms_picture": "draw_rooms",
        "site_build": "build_site",
        "site_pages": "REPORT_FOLDER stage_pages",
    },
)
