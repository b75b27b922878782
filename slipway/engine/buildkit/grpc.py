"""A gRPC server for unary methods on one socket, as small as a BuildKit session needs it.

The daemon dials nothing: it turns the connection that we opened around and becomes the HTTP/2
client on it. Semantics: grpc/grpc:doc/PROTOCOL-HTTP2.md; HTTP/2 itself is the library h2.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from urllib.parse import quote

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from slipway.engine.buildkit.protobuf import frame_message, unframe_messages

Handler = Callable[[bytes], bytes]
"""Takes a request message and returns the reply message; may raise GrpcError."""

_UNKNOWN, NOT_FOUND, _UNIMPLEMENTED = 2, 5, 12
_HEADERS = [(":status", "200"), ("content-type", "application/grpc")]


class GrpcError(Exception):
    """A refusal that the caller is told about by its gRPC status code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class GrpcServer:
    """Serves `methods` (full path -> handler) on `sock` until the peer leaves or `close` is called.

    Each call runs in a thread of its own: a handler may ask a registry's API for a token, and the
    daemon drops a session that leaves a health check unanswered (moby/buildkit:session/grpc.go).
    """

    def __init__(
        self, sock: socket.socket, methods: Mapping[str, Handler], *, received: bytes = b""
    ) -> None:
        self._sock = sock
        self._methods = methods
        self._received = received
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self._changed = threading.Condition()  # guards _h2 and the writing side of _sock
        self._closed = False
        self._paths: dict[int, str] = {}
        self._bodies: dict[int, bytearray] = {}
        self._threads = [threading.Thread(target=self._serve, name="buildkit-session", daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Close the connection and wait for the threads; calling it again does nothing."""
        self._hang_up()
        for thread in self._threads:
            thread.join(timeout=5)  # a handler in a network call ends when that call does
        self._sock.close()

    def _hang_up(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        with suppress(OSError):  # the daemon closed it first
            self._sock.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        # A build sees the same end on its own connection, and says why.
        with suppress(OSError, h2.exceptions.ProtocolError):
            with self._changed:
                self._h2.initiate_connection()
                self._take(self._received)
            while data := self._sock.recv(65536):
                with self._changed:
                    self._take(data)
        self._hang_up()

    def _take(self, data: bytes) -> None:
        for event in self._h2.receive_data(data) if data else ():
            if isinstance(event, h2.events.RequestReceived):
                headers = dict(event.headers)
                self._paths[event.stream_id] = headers.get(b":path", b"").decode("ascii", "replace")
                self._bodies[event.stream_id] = bytearray()
            elif isinstance(event, h2.events.DataReceived):
                self._bodies[event.stream_id] += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self._start_answer(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self._paths.pop(event.stream_id, None)
                self._bodies.pop(event.stream_id, None)
        self._flush()
        self._changed.notify_all()  # a window may have opened

    def _start_answer(self, stream: int) -> None:
        path, body = self._paths.pop(stream), bytes(self._bodies.pop(stream))
        thread = threading.Thread(
            target=self._answer, args=(stream, path, body), name=f"buildkit{path}", daemon=True
        )
        self._threads = [old for old in self._threads if old.is_alive()] + [thread]
        thread.start()

    def _answer(self, stream: int, path: str, body: bytes) -> None:
        handler = self._methods.get(path)
        try:
            if handler is None:
                raise GrpcError(_UNIMPLEMENTED, f"{path} is not served")
            reply = frame_message(handler(unframe_messages(body)))
        except GrpcError as error:
            reply, trailers = b"", _trailers(error.code, str(error))
        except Exception as error:  # noqa: BLE001 - the daemon is told, whatever it was
            reply, trailers = b"", _trailers(_UNKNOWN, str(error))
        else:
            trailers = [("grpc-status", "0")]
        # The daemon may give up a call or the connection; then nobody is left to answer.
        with suppress(OSError, h2.exceptions.ProtocolError):
            self._send(stream, reply, trailers)

    def _send(self, stream: int, reply: bytes, trailers: list[tuple[str, str]]) -> None:
        with self._changed:
            if not reply:
                self._h2.send_headers(stream, _HEADERS + trailers, end_stream=True)
                return self._flush()
            self._h2.send_headers(stream, _HEADERS)
            while reply:
                room = min(
                    self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size
                )
                if self._closed:
                    return None
                if room <= 0:
                    self._flush()
                    self._changed.wait()
                    continue
                self._h2.send_data(stream, reply[:room])
                reply = reply[room:]
            self._h2.send_headers(stream, trailers, end_stream=True)
            return self._flush()

    def _flush(self) -> None:
        if out := self._h2.data_to_send():
            self._sock.sendall(out)


def _trailers(code: int, message: str) -> list[tuple[str, str]]:
    return [("grpc-status", str(code)), ("grpc-message", quote(message, safe=" "))]
