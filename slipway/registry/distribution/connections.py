"""Connections that tell a slow answer or a slow upload from one that has ended.

An answer that was cut within its head is a cut, and no answer: http.client takes the end of the
stream for the end of the head, and an upload's location would then be missing, or half of it, with
a status that says all is well.

What is sent may take any time as long as it moves: a time-out is of one piece of 16 KiB, and not of
a whole body, which a slow link needs minutes for (Python: "The socket timeout is now the maximum
total duration to send all data", socket.sendall).
"""

from __future__ import annotations

import http.client
import io
from typing import IO, Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

_BLANK = (b"\r\n", b"\n")

SILENCE_S = 60.0
"""How long a connection may be silent between two bytes."""


class _LineReader(io.BufferedIOBase):
    """A stream whose last line is remembered."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.last = b""

    def readline(self, size: int | None = -1, /) -> bytes:
        """As the stream's own."""
        self.last = bytes(self._stream.readline(size))
        return self.last


class _WholeHead(http.client.HTTPResponse):
    def begin(self) -> None:
        """Read the head. Raises RemoteDisconnected where no blank line ends it."""
        stream: Any = self.fp
        lines = _LineReader(stream)
        self.fp = lines  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            self.fp = stream
        if lines.last not in _BLANK:
            raise http.client.RemoteDisconnected("the connection was cut within an answer's head")


class _Plain(HTTPConnection):
    response_class = _WholeHead

    def connect(self) -> None:
        """Connect; what is sent then may be silent for as long as what is read."""
        super().connect()
        self.sock.settimeout(SILENCE_S)


class _Secure(HTTPSConnection):
    response_class = _WholeHead

    def connect(self) -> None:
        """Connect; what is sent then may be silent for as long as what is read."""
        super().connect()
        self.sock.settimeout(SILENCE_S)


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


_POOLS = {"http": _PlainPool, "https": _SecurePool}


def sent_in_pieces(body: bytes | None) -> IO[bytes] | None:
    """A body as http.client sends in pieces; requests sends one without a length otherwise."""
    return io.BytesIO(body) if body else None


class RegistryAdapter(HTTPAdapter):
    """requests' adapter, with such connections, through a proxy as well; it tries nothing again."""

    def __init__(self) -> None:
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """As requests does."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        """As requests does."""
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager
