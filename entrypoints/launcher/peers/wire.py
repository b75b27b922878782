"""JSON lines over TCP between launchers."""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Iterator, Sequence
from typing import Any

PROTOCOL = "slipway-launch/1"

#: The listing of a checkpoint with many thousands of files still fits.
MAX_LINE = 64 * 1024 * 1024
#: What a stranger may send before it has named itself.
MAX_HELLO = 64 * 1024

#: A node without power sends no FIN. The kernel, not our threads, answers keepalives, so a busy
#: peer is never mistaken for a dead one; seconds of silence until it counts as lost.
SILENCE_SECONDS = 15


class Lines:
    """Splits received bytes into JSON objects."""

    def __init__(self) -> None:
        self._buffer = b""
        self.limit = MAX_HELLO

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The complete objects; ValueError for anything else."""
        self._buffer += data
        while b"\n" in self._buffer:
            line, self._buffer = self._buffer.split(b"\n", 1)
            value = json.loads(line)
            if not isinstance(value, dict):
                raise ValueError("not a JSON object")
            yield value
        if len(self._buffer) > self.limit:
            raise ValueError(f"a line of more than {self.limit} bytes")


def encode(message: dict[str, Any]) -> bytes:
    """One message as bytes."""
    return json.dumps(message).encode() + b"\n"


def tune(connection: socket.socket) -> None:
    """Small messages at once, and a limit to the silence of a dead peer."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, (SILENCE_SECONDS - 5) // 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_SECONDS * 1000)


def bind_address(hosts: Sequence[str]) -> str:
    """Where node 0 listens: its own address, so that no other network reaches the gate.

    Debian lets a machine's own name resolve to 127.0.1.1, which other nodes cannot reach: then
    all interfaces.
    """
    addresses = [_address(host) for host in hosts]
    own = addresses[0]
    if own is None or _loopback(own) != all(_loopback(a) for a in addresses[1:] if a):
        return ""
    return own


def _address(host: str) -> str | None:
    try:
        return str(socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0])
    except OSError:
        return None


def _loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def listen(hosts: Sequence[str], port: int) -> socket.socket:
    """Node 0's listening socket; OSError when the port is taken."""
    address = bind_address(hosts)
    server = socket.socket()
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((address, port))
        except OSError:
            if not address:
                raise
            server.bind(("", port))  # the name may belong to a load balancer or a NAT address
        server.listen(1024)
    except OSError:
        server.close()
        raise
    return server
