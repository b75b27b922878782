"""A node's end of the gate: the other launchers of this job, as seen from here.

torchrun needs minutes to notice that a peer is missing (c10d 609 s, static over 900 s); a TCP
connection between the launchers tells in seconds, and carries the root cause along.
"""

from __future__ import annotations

import os
import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from launcher import events
from launcher.causes import GATE, PEER, UNRESOLVED, Cause, LaunchError, cause_from_wire
from launcher.peers import wire
from launcher.peers.addresses import PeerRoute, find_route, listen, plain_address
from launcher.peers.gate_server import REMIND_SECONDS, GateServer
from launcher.peers.gate_state import COLLECT_SECONDS, GateState
from launcher.peers.peers import COLLECTING, PeerError
from launcher.stop_request import StopRequest

CONNECT_SECONDS = 0.5
#: A port may still be another job's for a moment, one that is ending; not for minutes.
STRANGER_SECONDS = 20.0
#: Node 0's verdict is waited for so much longer than node 0 waits for the others' reports.
VERDICT_SECONDS = COLLECT_SECONDS + 3.0
GOODBYE_SECONDS = 5.0


@dataclass(frozen=True)
class GatePlace:
    """Where a job's launchers meet, and as whom this one comes."""

    hosts: tuple[str, ...]
    node: int
    job: str
    port: int
    key: bytes


class Gate:
    """The connection to node 0's GateServer; node 0 connects to itself like the others.

    One thread owns the socket. All others leave messages for it and go on: a peer, or a network,
    that takes nothing any more must not hold up a SIGTERM.
    """

    def __init__(
        self,
        place: GatePlace,
        halt: StopRequest,
        make_state: Callable[[Sequence[str]], GateState] = GateState,
    ) -> None:
        self.topics: dict[str, Callable[[Any], None]] = {}
        self._place = place
        self._halt = halt
        self._make_state = make_state
        self._wait_lock = threading.Lock()
        self._waiting: dict[str, queue.SimpleQueue[list[Any] | None]] = {}
        self._judged = False
        self._ended = threading.Event()
        self._leaving = False
        self._verdict: Cause | None = None
        self._server: GateServer | None = None
        self._connection: socket.socket | None = None
        self._outbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._thread: threading.Thread | None = None

    def connect(self, patience: float) -> None:
        """Meet node 0, for at most `patience` seconds; LaunchError 71 or 76 if it is not there."""
        if self._place.node == 0:
            self._serve()
        deadline = time.monotonic() + patience
        reminded = float("-inf")
        spoke: wire.StrangerError | None = None
        while True:
            try:
                self._open(deadline)
                return
            except OSError as caught:
                error = caught
                now = time.monotonic()
                # The last try has little time left: its silence says less than an answer before it.
                if isinstance(error, wire.SilentStrangerError):
                    error = spoke or error
                elif isinstance(error, wire.StrangerError):
                    spoke = error
                if isinstance(error, wire.StrangerError):
                    deadline = min(deadline, now + STRANGER_SECONDS)
                if now > deadline:
                    raise self._unreachable(error) from error
                if now - reminded > REMIND_SECONDS:
                    reminded = now
                    where = {"gate": self._place.hosts[0], "port": self._place.port}
                    events.emit("waiting", **where, why=str(error))
            self._halt.sleep(CONNECT_SECONDS)

    def _serve(self) -> None:
        place = self._place
        try:
            listeners = listen(place.hosts, place.port)
        except OSError as error:
            raise LaunchError(
                f"cannot listen on gate port {place.port}: {error}. Is another job on this "
                "machine? Choose another --gate-port and --port on all nodes",
                code=GATE,
                kind="GateError",
            ) from error
        addresses = [listener.getsockname()[0] for listener in listeners]
        events.emit("gate", listening=addresses, port=place.port)
        self._server = GateServer(self._make_state(place.hosts), place.job, place.key, listeners)
        self._server.start()

    def _open(self, deadline: float) -> None:
        """Connect, prove, be proven to; OSError when that did not succeed."""
        place = self._place
        end = self._server.own_end if self._server else (place.hosts[0], place.port)
        patience = max(1.0, deadline - time.monotonic())
        selector = selectors.DefaultSelector()  # before anything: a file may be refused
        try:
            connection = socket.create_connection(end, timeout=min(5.0, patience))
            try:
                wire.tune(connection)
                channel = prove_membership(connection, place, min(wire.HANDSHAKE_SECONDS, patience))
                connection.setblocking(False)
            except OSError:
                connection.close()
                raise
        except OSError:
            selector.close()
            raise
        self._connection = connection
        self._send({"kind": "join", "job": place.job})
        self._thread = threading.Thread(
            target=self._run, args=(connection, channel, selector), name="peers", daemon=True
        )
        self._thread.start()

    def _unreachable(self, error: OSError) -> LaunchError:
        host, port = self._place.hosts[0], self._place.port
        if isinstance(error, socket.gaierror):
            return LaunchError(f"no address for {host}", code=UNRESOLVED, kind="GateError")
        if isinstance(error, wire.StrangerError):
            text = (
                f"what answers at {host}:{port} is not this job's gate: {error}. Another job or "
                "program may use the port (--gate-port), or LAUNCH_SECRET or the job's name differ"
            )
        else:
            text = f"no gate at {host}:{port}: {error}. The port must be open between nodes"
        return LaunchError(text, code=GATE, kind="GateError")

    def route(self) -> PeerRoute | None:
        """The two ends of the connection; node 0's own end is where another node has reached it."""
        assert self._connection is not None, "asked for after all have met"
        if self._server is not None:
            own = self._server.reached_at
            return find_route(own, own) if own else None
        local, master = self._connection.getsockname()[0], self._connection.getpeername()[0]
        return find_route(plain_address(local), plain_address(master))

    def gather(
        self,
        name: str,
        value: Any,
        *,
        timeout: float | None = None,
        halt: StopRequest | None = None,
    ) -> list[Any]:
        """Everyone's value, in node order, once all have given theirs (see Peers)."""
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
        self._ended.wait(VERDICT_SECONDS)
        return self._verdict or cause

    def leave(self) -> None:
        """Say goodbye; node 0 stays until everyone has."""
        self._leaving = True
        if self._thread is not None:
            self._send({"kind": "bye"})
            self._outbox.put(None)
            self._wake()
            self._thread.join(GOODBYE_SECONDS)
        if self._server is not None:
            self._server.join(10)

    def _send(self, message: dict[str, Any]) -> None:
        if self._connection is not None:
            self._outbox.put(message)
            self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._wake_writer, b"\0")
        except BlockingIOError:
            return  # full of wake-ups already

    # -- the thread that owns the connection --------------------------------------------------

    def _run(
        self, connection: socket.socket, channel: wire.Channel, selector: selectors.BaseSelector
    ) -> None:
        try:
            with connection, selector:
                selector.register(self._wake_reader, selectors.EVENT_READ)
                selector.register(connection, selectors.EVENT_READ)
                self._exchange(connection, channel, selector)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError) as error:
            if not self._leaving:
                events.emit("gate-lost", error=f"{type(error).__name__}: {error}")
        finally:
            self._lost()

    def _exchange(
        self, connection: socket.socket, channel: wire.Channel, selector: selectors.BaseSelector
    ) -> None:
        """Until the connection ends, or goodbye has been said."""
        heard = time.monotonic()
        next_beat = heard + wire.BEAT_SECONDS
        over = False
        while not (over and not channel.pending):
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if channel.pending else 0)
            selector.modify(connection, wanted)
            ready = selector.select(max(0.0, next_beat - time.monotonic()))
            for key, mask in ready:
                if key.fileobj is not connection:
                    os.read(self._wake_reader, 4096)
                elif mask & selectors.EVENT_READ:
                    data = connection.recv(1 << 20)
                    for message in channel.feed(data):
                        self._handle(message)
                    if not data:
                        raise ConnectionResetError("the gate has closed the connection")
                    heard = time.monotonic()
            over = self._take_messages(channel) or over
            channel.send(connection)
            now = time.monotonic()
            if now >= next_beat:
                heard += now - next_beat  # stopped ourselves, or starved: nobody else's silence
                next_beat = now + wire.BEAT_SECONDS
                channel.put(wire.encode(wire.BEAT))
                if now - heard > wire.DEAF_SECONDS:
                    raise TimeoutError(f"not a word for {wire.DEAF_SECONDS:g} s")

    def _take_messages(self, channel: wire.Channel) -> bool:
        """Move what others have left here to the channel; whether that was all for good."""
        while True:
            try:
                message = self._outbox.get_nowait()
            except queue.Empty:
                return False
            if message is None:
                return True
            channel.put(wire.encode(message))

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
            self._end(Cause("GateError", str(message["why"]), GATE, host=self._place.hosts[0]))

    def _lost(self) -> None:
        if not self._leaving:
            message = "the connection to this node's launcher was lost"
            self._end(Cause("NodeLost", message, PEER, host=self._place.hosts[0]))

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


def prove_membership(connection: socket.socket, place: GatePlace, patience: float) -> wire.Channel:
    """Both ends prove that they know the key, within `patience` seconds."""
    until = time.monotonic() + patience
    caller = wire.greeting()
    connection.sendall(caller)
    gate = _receive(connection, wire.GREETING_BYTES, until)
    wire.check_greeting(gate)
    connection.sendall(wire.caller_proof(place.key, caller, gate, place.node))
    proof = _receive(connection, wire.SEAL_BYTES, until)
    wire.check_gate_proof(place.key, caller, gate, place.node, proof)
    return wire.Channel(place.key, caller, gate, place.node, at_gate=False)


def admit_caller(connection: socket.socket, key: bytes, patience: float) -> int:
    """The other end of `prove_membership`: the node that has called, within `patience` seconds.

    Raises StrangerError for whoever does not know the key; all that it has learned is random bytes.
    """
    until = time.monotonic() + patience
    caller = _receive(connection, wire.GREETING_BYTES, until)
    gate = wire.greeting()
    connection.sendall(gate)
    node = wire.node_of_proof(key, caller, gate, _receive(connection, wire.PROOF_BYTES, until))
    connection.sendall(wire.gate_proof(key, caller, gate, node))
    return node


def _receive(connection: socket.socket, size: int, until: float) -> bytes:
    """Exactly so many bytes; StrangerError when they do not come in time."""
    data = b""
    while len(data) < size:
        left = until - time.monotonic()
        if left <= 0:
            raise wire.SilentStrangerError("it does not answer")
        connection.settimeout(left)
        try:
            piece = connection.recv(size - len(data))
        except (TimeoutError, socket.timeout):
            raise wire.SilentStrangerError("it does not answer") from None
        except ConnectionError:
            piece = b""
        if not piece:
            raise wire.StrangerError("it closes the connection")
        data += piece
        if size == wire.GREETING_BYTES:
            wire.check_greeting(data)
    return data
