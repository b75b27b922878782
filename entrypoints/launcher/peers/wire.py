"""What goes over a connection between two launchers: a proof first, then sealed JSON.

Until both ends have proven that they know the job's key, nothing is read but fixed numbers of
bytes, and nothing is said that a stranger could use:

    caller   HELLO, 32 random bytes
    gate     HELLO, 32 random bytes of its own
    caller   its node number, HMAC(key, "caller", both randoms, node number)
    gate     HMAC(key, "gate", both randoms, node number)

The caller proves first, so that a gate answers a stranger with random bytes alone. A proof is worth
nothing on another connection, because its randoms are another's. Afterwards every message is a
frame: length, sequence number's seal, JSON. The seal is an HMAC under a key of this connection and
this direction, over a running number and the text, so that nobody in between can change, repeat or
leave out a message without ending the connection.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import socket
import struct
from collections import deque
from typing import Any

HELLO = b"SLWGATE2"
RANDOM_BYTES = 32
GREETING_BYTES = len(HELLO) + RANDOM_BYTES
SEAL_BYTES = 32
_NODE = struct.Struct("!I")
_LENGTH = struct.Struct("!I")
_COUNT = struct.Struct("!Q")
PROOF_BYTES = _NODE.size + SEAL_BYTES
HEADER_BYTES = _LENGTH.size + SEAL_BYTES

#: From the first byte to the last proof, at either end.
HANDSHAKE_SECONDS = 10.0

#: The listing of a checkpoint with many thousands of files still fits.
MAX_FRAME = 64 * 1024 * 1024

#: A node without power sends no FIN. The kernel, not our threads, answers keepalives, so a busy
#: peer is never mistaken for a dead one; seconds of silence until it counts as lost.
SILENCE_SECONDS = 15

#: A launcher that is stopped (SIGSTOP) has a kernel that answers keepalives for it: so launchers
#: themselves say that they are there, now and then. Long, because a busy one may be late.
BEAT_SECONDS = 20.0
DEAF_SECONDS = 90.0

BEAT = {"kind": "beat"}


class StrangerError(OSError):
    """Whoever is at the other end has not proven that it is a launcher of this job."""


class SilentStrangerError(StrangerError):
    """It has not answered within the time that it was given."""


def greeting() -> bytes:
    """The first bytes of either end; the randoms are its tail."""
    return HELLO + os.urandom(RANDOM_BYTES)


def check_greeting(data: bytes) -> None:
    """StrangerError for what no launcher would say, as soon as a byte of it differs."""
    if data[: len(HELLO)] != HELLO[: len(data)]:
        raise StrangerError("it does not speak as a launcher does")


def caller_proof(key: bytes, caller: bytes, gate: bytes, node: int) -> bytes:
    """What proves to the gate that its caller is this node."""
    number = _NODE.pack(node)
    return number + _mac(key, b"caller", caller, gate, number)


def gate_proof(key: bytes, caller: bytes, gate: bytes, node: int) -> bytes:
    """What proves to that caller that it has reached its job's gate."""
    return _mac(key, b"gate", caller, gate, _NODE.pack(node))


def check_gate_proof(key: bytes, caller: bytes, gate: bytes, node: int, proof: bytes) -> None:
    """StrangerError unless the other end is this job's gate."""
    if not hmac.compare_digest(proof, gate_proof(key, caller, gate, node)):
        raise StrangerError("it does not know this job's key")


def node_of_proof(key: bytes, caller: bytes, gate: bytes, proof: bytes) -> int:
    """The node that a caller has proven to be; StrangerError when it has not."""
    node: int = _NODE.unpack_from(proof)[0]
    if not hmac.compare_digest(proof, caller_proof(key, caller, gate, node)):
        raise StrangerError("it does not know this job's key")
    return node


def _mac(key: bytes, *parts: bytes) -> bytes:
    return hmac.new(key, b"|".join(parts), hashlib.sha256).digest()


class Channel:
    """A proven connection without its socket: messages in, messages out, in both directions.

    What is to be sent waits here until the socket takes it, so that a slow peer stops nobody.
    """

    def __init__(self, key: bytes, caller: bytes, gate: bytes, node: int, *, at_gate: bool) -> None:
        names = (b"to caller", b"to gate") if at_gate else (b"to gate", b"to caller")
        number = _NODE.pack(node)
        self._out_key, self._in_key = (_mac(key, name, caller, gate, number) for name in names)
        self._out_count = self._in_count = 0
        self._buffer = bytearray()
        self._waiting: deque[memoryview] = deque()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages that are complete now; ValueError for anything that is not one."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= HEADER_BYTES:
            size: int = _LENGTH.unpack_from(self._buffer)[0]
            if size > MAX_FRAME:
                raise ValueError(f"a message of {size} bytes")
            end = HEADER_BYTES + size
            if len(self._buffer) < end:
                break
            seal, body = bytes(self._buffer[4:HEADER_BYTES]), bytes(self._buffer[HEADER_BYTES:end])
            del self._buffer[:end]
            if not hmac.compare_digest(seal, _seal(self._in_key, self._in_count, body)):
                raise ValueError("a message with a wrong seal")
            self._in_count += 1
            messages.append(decode(body))
        return messages

    def put(self, body: bytes) -> None:
        """Queue one encoded message; the text itself may be shared by many channels."""
        head = _LENGTH.pack(len(body)) + _seal(self._out_key, self._out_count, body)
        self._out_count += 1
        if len(body) < 4096:
            self._waiting.append(memoryview(head + body))  # one packet
        else:
            self._waiting += (memoryview(head), memoryview(body))

    @property
    def pending(self) -> bool:
        """Whether something waits for the socket."""
        return bool(self._waiting)

    def send(self, connection: socket.socket) -> int:
        """Give a non-blocking socket what it takes; how many bytes. OSError when it is broken."""
        total = 0
        while self._waiting:
            piece = self._waiting[0]
            try:
                sent = connection.send(piece)
            except (BlockingIOError, InterruptedError):
                break
            total += sent
            if sent < len(piece):
                self._waiting[0] = piece[sent:]
                break
            self._waiting.popleft()
        return total


def _seal(key: bytes, count: int, body: bytes) -> bytes:
    mac = hmac.new(key, _COUNT.pack(count), hashlib.sha256)
    mac.update(body)
    return mac.digest()


def encode(message: dict[str, Any]) -> bytes:
    """One message as bytes. Values of all nodes are written as runs: most of them are equal."""
    if message["kind"] == "gathered":
        message = {**message, "values": to_runs(message["values"])}
    return json.dumps(message, separators=(",", ":")).encode()


def decode(body: bytes) -> dict[str, Any]:
    """The other end of `encode`; ValueError for anything else."""
    try:
        message = json.loads(body)
        if message["kind"] == "gathered":
            message["values"] = from_runs(message["values"])
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"not a message: {type(error).__name__}") from error
    if not isinstance(message, dict):
        raise ValueError("not a message")
    return message


def to_runs(values: list[Any]) -> list[list[Any]]:
    """[a, a, a, b] as [[3, a], [1, b]]: a thousand equal answers are one."""
    runs: list[list[Any]] = []
    before = None
    for value in values:
        # By their texts: to Python 1, True and 1.0 are equal.
        text = json.dumps(value)
        if text == before:
            runs[-1][0] += 1
        else:
            runs.append([1, value])
        before = text
    return runs


def from_runs(runs: list[list[Any]]) -> list[Any]:
    """The other end of `to_runs`."""
    return [value for count, value in runs for _ in range(count)]


def tune(connection: socket.socket) -> None:
    """Small messages at once, and a limit to the silence of a dead peer."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, (SILENCE_SECONDS - 5) // 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_SECONDS * 1000)
