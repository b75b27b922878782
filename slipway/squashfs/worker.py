"""A process that packs parts: `python -m slipway.squashfs.worker`, jobs on stdin.

Processes instead of threads, because opening, reading and booking many small files holds Python's
lock. The process ends when its stdin closes, and so with its parent.
"""

from __future__ import annotations

import os
import sys

from slipway.errors import SlipwayError
from slipway.squashfs.jobs import Done, Failed, pack, receive, send


def main() -> None:
    """Serve jobs until stdin closes."""
    # Anything that prints by mistake must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while (job := receive(sys.stdin.buffer)) is not None:
        try:
            result: Done | Failed = pack(job)
        except SlipwayError as error:
            result = Failed(error.what, error.where, error.cure)
        except OSError as error:
            name = error.filename
            where = os.fsdecode(name) if name is not None else str(job.output)
            result = Failed(error.strerror or str(error), where, None, error.errno or 0)
        send(answers, result)


if __name__ == "__main__":
    main()
