"""Ranks watched from outside: their stacks and what they use, who waits for whom, who is slow.

In come the process ids of this node's ranks and the messages of other nodes' watches; out come
reports of hangs and stragglers. Nothing here stops a rank: who is told decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher import lazy_face

if TYPE_CHECKING:
    from launcher.ranks.watch.hang_watch import HangWatch, cause_of_hang
    from launcher.ranks.watch.rank_judges import WatchOptions
    from launcher.ranks.watch.show_stacks import print_stacks
    from launcher.ranks.watch.stall import HANG_KIND, StallReport

__all__ = [
    "HANG_KIND",
    "HangWatch",
    "StallReport",
    "WatchOptions",
    "cause_of_hang",
    "print_stacks",
]

__getattr__ = lazy_face(
    __name__,
    {
        "hang_watch": "HangWatch cause_of_hang",
        "rank_judges": "WatchOptions",
        "show_stacks": "print_stacks",
        "stall": "HANG_KIND StallReport",
    },
)
