"""A process of the pool: pack jobs come on stdin, results go to stdout.

Run as ``python -m slipway.squashfs.compile.pack_worker``. What both sides pickle stands in pack_job:
here it would belong to ``__main__``, which the other side does not have.
"""

from __future__ import annotations

import os
import sys

from slipway.core.errors import SlipwayError
from slipway.squashfs.compile.pack_job import Done, Failed, pack, receive, send


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
