"""A link between a client and a registry: bytes pass as they are, are counted, slowed and cut.

It knows nothing of HTTP, so that a cut comes anywhere: in a request's head, in a body, in an
answer, between the two.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

_PIECE = 1 << 16


@dataclass
class Link:
    """The state of one link, and what passed through it.

    `cuts`: at these counts of bytes, of both directions and all connections together, the
    connection that carries the byte is reset. `rate`: bytes a second that the client can send, all
    connections together. `silence`: seconds for which nothing passes, once, after `silent_after`
    bytes.
    """

    upstream: tuple[str, int]
    cuts: list[int] = field(default_factory=list)
    rate: float | None = None
    silence: float = 0.0
    silent_after: int = 0
    host: str = ""
    sent: int = 0  # by the client
    received: int = 0
    connections: int = 0
    edges: list[int] = field(default_factory=list)  # counts at which a piece had passed
    lock: threading.Lock = field(default_factory=threading.Lock)
    _free_at: float = 0.0

    def clear(self, *cuts: int, rate: float | None = None) -> None:
        """Count anew, cut so, and be as slow as that."""
        with self.lock:
            self.cuts, self.rate = sorted(cuts), rate
            self.sent = self.received = self.connections = 0
            self.edges = []

    def pass_on(self, data: bytes, *, up: bool) -> tuple[bytes, bool]:
        """What of a piece passes, and whether the connection is cut behind it."""
        with self.lock:
            before = self.sent + self.received
            cut = bool(self.cuts) and self.cuts[0] <= before + len(data)
            if cut:
                data = data[: max(0, self.cuts.pop(0) - before)]
            if up:
                self.sent += len(data)
            else:
                self.received += len(data)
            self.edges.append(before + len(data))
            wait = self._wait(len(data)) if up else 0.0
        if wait > 0:
            time.sleep(wait)
        return data, cut

    def _wait(self, size: int) -> float:
        now, wait = time.monotonic(), 0.0
        if self.rate:
            self._free_at = max(now, self._free_at) + size / self.rate
            wait = self._free_at - now
        if self.silence and self.sent > self.silent_after:
            wait, self.silence = wait + self.silence, 0.0
        return wait


@contextlib.contextmanager
def linked(host: str) -> Iterator[Link]:
    """A link to the registry at `host` (an address with a port); its own is `Link.host`."""
    address, _, port = host.rpartition(":")
    link = Link((address, int(port)))
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        link.host = f"127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=_accept, args=(listener, link), daemon=True)
        thread.start()
        yield link
        listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept()
        thread.join()


def _accept(listener: socket.socket, link: Link) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:  # it was shut down
            return
        link.connections += 1
        threading.Thread(target=_connect, args=(link, client), daemon=True).start()


def _connect(link: Link, client: socket.socket) -> None:
    """One connection, until it has ended in both directions."""
    with client:
        try:
            registry = socket.create_connection(link.upstream)
        except OSError:  # the registry does not run
            _reset_at_close(client)
            return
        with registry:
            up = threading.Thread(target=_pump, args=(link, client, registry, True), daemon=True)
            up.start()
            _pump(link, registry, client, False)
            up.join()


def _pump(link: Link, source: socket.socket, target: socket.socket, up: bool) -> None:
    cut = False
    with contextlib.suppress(OSError):  # the other direction has ended this one
        while not cut and (data := source.recv(_PIECE)):
            data, cut = link.pass_on(data, up=up)
            target.sendall(data)
    if cut:
        for end in (source, target):
            _reset_at_close(end)
    # A client that has sent all may still read; a registry that has answered all is done.
    for end in (source, target) if cut or not up else (target,):
        with contextlib.suppress(OSError):  # the other thread has done it
            end.shutdown(socket.SHUT_RDWR if cut or not up else socket.SHUT_WR)


def _reset_at_close(connection: socket.socket) -> None:
    """Have close() send RST, as a connection ends that is cut."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
