"""Pieces from node to node, between nodes that have proven that they are of one job.

A connection is for one piece: both ends prove that they know the job's key (as at the gate), the
caller says the piece's digest, and the server answers with its size and its bytes. Whoever sent it,
a piece counts by its digest alone; the proof keeps strangers from costing a node its disk and link.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

from launcher.fetch.partial_file import PartialFile
from launcher.fetch.sqsh_sidecar import SqshSidecar
from launcher.peers import GatePlace, admit_caller, listen_everywhere, prove_membership

HANDSHAKE_SECONDS = 10.0
#: Without a byte for so long, a transfer has failed.
STALL_SECONDS = 15.0
#: Connections at a time, proven or not: a node's schedule gives to two.
MOST_CONNECTIONS = 64
_DIGEST_BYTES = 32
_SIZE = struct.Struct("!Q")
_ABSENT = (1 << 64) - 1
_BUFFER = 1 << 18
#: Woken for no less, but for a piece's end: a link of 10 MB/s gives a few KB at a time, and each
#: costs a turn of the loop. So much has to come within STALL_SECONDS.
_LEAST_BYTES = 1 << 16


class PieceServer:
    """Gives the pieces of a file that `has_piece` says are right. Runs until `close`."""

    def __init__(
        self, key: bytes, handle: int, sidecar: SqshSidecar, has_piece: Callable[[int], bool]
    ) -> None:
        self._key = key
        self._handle = handle
        self._pieces = sidecar.pieces
        self._numbers = {piece.sha256: n for n, piece in enumerate(sidecar.pieces)}
        self._has_piece = has_piece
        self._slots = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._listener = listen_everywhere(0)
        self._listener.setblocking(True)
        self.port: int = self._listener.getsockname()[1]
        self.given_bytes = 0
        self._count_lock = threading.Lock()
        threading.Thread(target=self._serve, name="pieces", daemon=True).start()

    def close(self) -> None:
        """Accept nobody any more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept(2)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except ConnectionError:
                continue  # of the connection, which is gone
            except OSError:
                return
            if not self._slots.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            with connection:
                admit_caller(connection, self._key, HANDSHAKE_SECONDS)
                connection.settimeout(STALL_SECONDS)
                digest = _receive(connection, _DIGEST_BYTES).hex()
                number = self._numbers.get(digest, -1)
                if number < 0 or not self._has_piece(number):
                    connection.sendall(_SIZE.pack(_ABSENT))
                    return
                piece = self._pieces[number]
                connection.sendall(_SIZE.pack(piece.size))
                with open(self._handle, "rb", closefd=False) as stream:
                    sent = connection.sendfile(stream, piece.starts[0], piece.size)
                with self._count_lock:
                    self.given_bytes += sent
        except OSError:
            return  # a stranger, or a node that is gone: it has told its own story
        finally:
            self._slots.release()


def fetch_from_peer(
    address: tuple[str, int], place: GatePlace, file: PartialFile, number: int
) -> int:
    """Bring a piece of another node into the file; the bytes that came.

    Raises OSError where it did not come, ValueError where it came with another digest.
    """
    piece = file.sidecar.pieces[number]
    with socket.create_connection(address, timeout=HANDSHAKE_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        prove_membership(connection, place, HANDSHAKE_SECONDS)
        connection.settimeout(STALL_SECONDS)
        connection.sendall(bytes.fromhex(piece.sha256))
        size: int = _SIZE.unpack(_receive(connection, _SIZE.size))[0]
        if size == _ABSENT:
            raise ConnectionError("it does not have the piece")
        if size != piece.size:
            raise ValueError(f"it says that the piece has {size} bytes")
        hasher, offset = hashlib.sha256(), 0
        while offset < piece.size:
            least = min(_LEAST_BYTES, piece.size - offset)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
            data = connection.recv(min(_BUFFER, piece.size - offset))
            if not data:
                raise ConnectionError("it ended early")
            file.write(number, offset, data)
            hasher.update(data)
            offset += len(data)
    if hasher.hexdigest() != piece.sha256:
        raise ValueError("the piece has another digest")
    return offset


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("it ended early")
        data += part
    return data
