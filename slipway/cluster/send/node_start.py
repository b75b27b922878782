"""Runs on a node, as `python3 -I -S -c`: takes the program that fetches from its stdin and runs it.

It says one line of JSON about the node, behind a mark, since a login may have printed something
before. One line of JSON comes back: `program` (how many bytes of it follow), `words` and `env`. The
program is kept in memory where Python can, so that a run that is killed leaves nothing.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
from typing import IO

MARK = "slipway-send: "


def main() -> None:
    """Ends as the program does; without a word where the sender has gone."""
    # "CLIENT PORT SERVER PORT" (ssh(1)): by which of its addresses the node was reached.
    connection = os.environ.get("SSH_CONNECTION", "").split()
    hello = {"host": os.uname().nodename, "address": connection[2] if connection else ""}
    print(f"\n{MARK}{json.dumps(hello)}", flush=True)
    order = b""
    while not order.endswith(b"\n"):
        order += _read(1)  # what follows is not ours to take
    told = json.loads(order)
    with _open_nameless() as file:
        left = told["program"]
        while left:
            data = _read(min(left, 1 << 16))
            file.write(data)
            left -= len(data)
        file.flush()
        os.environ.update(told["env"])
        sys.argv = ["fetch", *told["words"]]
        runpy.run_path(f"/proc/self/fd/{file.fileno()}", run_name="__main__")


def _read(size: int) -> bytes:
    data = os.read(0, size)
    if not data:
        sys.exit(1)
    return data


def _open_nameless() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("fetch"), "w+b")
    return tempfile.TemporaryFile()


if __name__ == "__main__":
    main()
