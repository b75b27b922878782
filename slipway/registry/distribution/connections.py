"""Connections that tell a slow answer or a slow upload from one that has ended.

An answer that was cut within its head is a cut, and no answer: http.client takes the end of the
stream for the end of the head, and an upload's location would then be missing, or half of it, with
a status that says all is well. A head has an end, too: http.client waits for the answer behind any
number of "100 Continue", and behind lines that come one a minute.

What is sent may take any time as long as it moves: a time-out is of one piece of 128 KiB, and not
of a whole body, which a slow link needs minutes for (Python: "The socket timeout is now the maximum
total duration to send all data", socket.sendall).
"""

from __future__ import annotations

import http.client
import io
import time
from typing import IO, Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

_BLANK = (b"\r\n", b"\n")
_MOST_LINES = 1000  # of a head and of what comes before it
_LONGEST_HEAD_S = 180.0

_SENT_AT_ONCE = 128 << 10  # urllib3's own is 16 KiB: thousands of rounds of Python
SILENCE_S = 60.0
"""How long a connection may be silent between two bytes."""


class _LineReader(io.BufferedIOBase):
    """A stream whose last line is remembered, and whose lines have an end."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._lines = 0
        self._deadline = time.monotonic() + _LONGEST_HEAD_S
        self.last = b""

    def readline(self, size: int | None = -1, /) -> bytes:
        """As the stream's own. Raises RemoteDisconnected after too many, or too much time."""
        self._lines += 1
        if self._lines > _MOST_LINES or time.monotonic() > self._deadline:
            raise http.client.RemoteDisconnected("the head of an answer has no end")
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
        super().init_poolmanager(*args, blocksize=_SENT_AT_ONCE, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        """As requests does."""
        manager = super().proxy_manager_for(*args, blocksize=_SENT_AT_ONCE, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager
