"""Servers on loopback: of a handler of requests, and of a folder, as a page of releases would."""

from __future__ import annotations

import functools
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the output of tests is read by people."""


class _Server(http.server.ThreadingHTTPServer):
    def get_request(self) -> tuple[socket.socket, Any]:
        """Heads and bodies go as they are written: together they would wait 40 ms for each other
        (RFC 896 and delayed acknowledgements)."""
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address


@contextmanager
def serve_requests(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """Host and port of a server, for the block. Requests that hang do not hold up its end."""
    with _Server(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def serve_files(folder: Path) -> Iterator[str]:
    """The URL of the folder, for the block."""
    with serve_requests(functools.partial(_Quiet, directory=str(folder))) as host:
        yield f"http://{host}"
