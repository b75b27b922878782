"""Asking a daemon whether it is there, before any client library is tried on it.

docker-py leaves its socket open when a unix socket refuses the connection, so that a daemon that
is gone is found out here.
"""

from __future__ import annotations

import socket
from pathlib import Path

DEFAULT_URL = "unix:///var/run/docker.sock"
_UNIX = "unix://"

ANSWER_S = 20.0  # a daemon that takes longer for a ping hangs


def ping(path: str | Path, *, timeout_s: float = ANSWER_S) -> str | None:
    """Why the daemon behind a unix socket does not answer; None when it does.

    dockerd listens long before it serves. One that ends in between resets the connections of those
    who wait for it, which tells nothing of who listens now: that one is asked, once.
    """
    silence = ""
    for _ in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout_s)
            try:
                sock.connect(str(path))
                sock.sendall(b"GET /_ping HTTP/1.0\r\nHost: localhost\r\n\r\n")
                answer = sock.recv(64)
            except (ConnectionResetError, BrokenPipeError) as error:
                silence = error.strerror or str(error)
                continue
            except OSError as error:
                return error.strerror or str(error)
        return None if b" 200 " in answer else f"it said {answer!r}"
    return silence
