"""A node's end of the gate: the other launchers of this job, as seen from here.

torchrun needs minutes to notice that a peer is missing (c10d 609 s, static over 900 s); a TCP
connection between the launchers tells in seconds, and carries the root cause along.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from launcher import events
from launcher.causes import GATE, PEER, UNRESOLVED, Cause, LaunchError, cause_from_wire
from launcher.peers import wire
from launcher.peers.gate_server import REMIND_SECONDS, GateServer
from launcher.peers.gate_state import COLLECT_SECONDS
from launcher.peers.peers import COLLECTING, LonePeers, PeerError
from launcher.stop_request import StopRequest

CONNECT_SECONDS = 0.5


class Gate(LonePeers):
    """The connection to node 0's GateServer; node 0 connects to itself like the others."""

    def __init__(
        self, hosts: Sequence[str], node: int, job: str, port: int, halt: StopRequest
    ) -> None:
        super().__init__()
        self._hosts = tuple(hosts)
        self._node = node
        self._job = job
        self._port = port
        self._halt = halt
        self._send_lock = threading.Lock()
        self._wait_lock = threading.Lock()
        self._waiting: dict[str, queue.SimpleQueue[list[Any] | None]] = {}
        self._judged = False
        self._ended = threading.Event()
        self._leaving = False
        self._verdict: Cause | None = None
        self._server: GateServer | None = None
        self._connection: socket.socket | None = None

    def connect(self, patience: float) -> None:
        """Meet node 0, for at most `patience` seconds; LaunchError 71 or 76 if it is not there."""
        if self._node == 0:
            self._serve()
        deadline = time.monotonic() + patience
        said = float("-inf")
        while True:
            try:
                self._open()
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise self._unreachable(error) from error
            if time.monotonic() - said > REMIND_SECONDS:
                said = time.monotonic()
                events.emit("waiting", gate=self._hosts[0], port=self._port)
            self._halt.sleep(CONNECT_SECONDS)

    def _serve(self) -> None:
        try:
            listener = wire.listen(self._hosts, self._port)
        except OSError as error:
            raise LaunchError(
                f"cannot listen on gate port {self._port}: {error}. Is another job on this "
                "machine? Choose another --gate-port and --port on all nodes",
                code=GATE,
                kind="GateError",
            ) from error
        events.emit("gate", listening=listener.getsockname())
        self._server = GateServer(self._hosts, self._job, listener)
        self._server.start()

    def _open(self) -> None:
        connection = socket.create_connection((self._hosts[0], self._port), timeout=5)
        connection.settimeout(None)
        wire.tune(connection)
        hello = {"protocol": wire.PROTOCOL, "node": self._node, "job": self._job}
        connection.sendall(wire.encode(hello))
        self._connection = connection  # from here on other threads may send
        threading.Thread(target=self._read, args=(connection,), name="peers", daemon=True).start()

    def _unreachable(self, error: OSError) -> LaunchError:
        host = self._hosts[0]
        if isinstance(error, socket.gaierror):
            return LaunchError(f"no address for {host}", code=UNRESOLVED, kind="GateError")
        return LaunchError(
            f"no gate at {host}:{self._port}: {error}. The port must be open between nodes",
            code=GATE,
            kind="GateError",
        )

    def gather(
        self,
        name: str,
        value: Any,
        *,
        timeout: float | None = None,
        halt: StopRequest | None = None,
    ) -> list[Any]:
        """Everyone's value, in node order, once all have given theirs.

        `timeout` counts from the first value; then the verdict names who is missing. Raises the
        job's verdict as PeerError when it fails meanwhile, HaltedError on any request to `halt`.
        """
        inbox: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()
        with self._wait_lock:
            self._waiting[name] = inbox
            if self._judged:
                inbox.put(None)
        self._send({"kind": "gather", "name": name, "value": value, "timeout": timeout})
        if halt is None:
            values = inbox.get()
        else:
            with halt.telling(lambda: inbox.put(None)):
                values = inbox.get()
            halt.check()
        if values is None:
            raise PeerError(self._verdict or COLLECTING)
        return values

    def announce(self, topic: str, data: Any, *, node: int | None = None) -> None:
        """Tell all nodes, this one included; with `node` that one alone."""
        self._send({"kind": "relay", "topic": topic, "data": data, "to": node})

    def stop(self, cause: Cause) -> None:
        """Tell all nodes that a stop was requested."""
        self._send({"kind": "stop", "cause": cause.to_wire()})

    def fail(self, cause: Cause | None) -> Cause | None:
        """Report what went wrong here; what the whole job failed of, decided within seconds."""
        if self._connection is None:
            return cause
        self._send({"kind": "failed", "cause": cause.to_wire() if cause else None})
        self._ended.wait(COLLECT_SECONDS + 1)
        return self._verdict or cause

    def leave(self) -> None:
        """Say goodbye; node 0 stays until everyone has."""
        self._leaving = True
        self._send({"kind": "bye"})
        if self._server is not None:
            self._server.join(10)

    def _send(self, message: dict[str, Any]) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            with self._send_lock:
                connection.sendall(wire.encode(message))
        except OSError:
            self._lost()

    def _read(self, connection: socket.socket) -> None:
        lines = wire.Lines()
        lines.limit = wire.MAX_LINE
        with connection:
            while True:
                try:
                    data = connection.recv(1 << 20)
                except OSError:
                    data = b""
                if not data:
                    return self._lost()
                try:
                    for message in lines.feed(data):
                        self._handle(message)
                except (ValueError, KeyError, TypeError) as error:
                    events.emit("gate-garbled", error=repr(error))
                    return self._lost()

    def _handle(self, message: dict[str, Any]) -> None:
        kind = message["kind"]
        if kind == "gathered":
            with self._wait_lock:
                self._waiting.pop(message["name"]).put(message["values"])
        elif kind == "relay":
            self.topics[message["topic"]](message["data"])
        elif kind == "stop":
            self._halt.request(cause_from_wire(message["cause"]), hard=False)
        elif kind == "collect":
            self._give_up(COLLECTING)
        elif kind == "end":
            wired = message["cause"]
            self._end(cause_from_wire(wired) if wired else None)
        elif kind == "refused":
            self._end(Cause("GateError", str(message["why"]), GATE, host=self._hosts[0]))

    def _lost(self) -> None:
        if not self._leaving:
            message = "the connection to this node's launcher was lost"
            self._end(Cause("NodeLost", message, PEER, host=self._hosts[0]))

    def _end(self, cause: Cause | None) -> None:
        if self._ended.is_set():
            return
        self._verdict = cause
        self._ended.set()
        self._give_up(cause or COLLECTING)

    def _give_up(self, cause: Cause) -> None:
        """Everything that waits here has to stop: the job cannot succeed any more."""
        self._halt.request(cause, hard=True)
        with self._wait_lock:
            self._judged = True
            for inbox in self._waiting.values():
                inbox.put(None)
