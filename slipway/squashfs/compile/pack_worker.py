"""A process of the pool: pack jobs come on stdin, results go to stdout.

Run as ``python -m slipway.squashfs.compile.pack_worker``. What both sides
pickle stands in pack_job: here it would belong to ``__main__``, which the other side lacks.
"""

from __future__ import annotations

import os
import sys

from slipway.core import SlipwayError
from slipway.squashfs.compile.pack_job import (
    PackedPart,
    PackFailure,
    pack_job,
    receive_message,
    send_message,
)


def main() -> None:
    """Serve jobs until stdin closes."""
    # Anything that prints by mistake must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while (job := receive_message(sys.stdin.buffer)) is not None:
        try:
            result: PackedPart | PackFailure = pack_job(job)
        except SlipwayError as error:
            result = PackFailure(error.what, error.where, error.cure)
        except OSError as error:
            name = error.filename
            where = os.fsdecode(name) if name is not None else str(job.output)
            result = PackFailure(error.strerror or str(error), where, None, error.errno or 0)
        send_message(answers, result)


if __name__ == "__main__":
    main()
