"""Node 0's end of the gate: connections in, a GateState, messages out.

Anybody can connect to a port. Until a caller has proven that it belongs to the job (wire.py) it has
one place of a few hundred, a hundred-odd bytes and some seconds; the one that has waited longest
makes room for the next. Nothing that one connection does, or that the system refuses, ends this
thread: the others' answers depend on it.
"""

from __future__ import annotations

import errno
import resource
import selectors
import socket
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from launcher import events
from launcher.causes import GATE, LaunchError
from launcher.peers import wire
from launcher.peers.addresses import own_end, plain_address
from launcher.peers.gate_state import GateState, name_some

REMIND_SECONDS = 30.0
#: Connections that have not proven anything yet.
UNPROVEN = 512
#: Accepted in a row before the ones that are there are heard.
ACCEPT_BURST = 64
#: What the launcher itself may have open beside connections.
OWN_FILES = 128
#: Without a file to accept a connection with, the port is left alone for a moment.
PAUSE_SECONDS = 0.2
#: Addresses of strangers that are told apart in events.
TOLD_STRANGERS = 16
RECEIVE_BYTES = 1 << 18
#: All that the system or a defect of ours can raise in a turn.
TROUBLE = (
    OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
    ArithmeticError, MemoryError,
)  # fmt: skip


@dataclass(eq=False)
class _Caller:
    """One connection. `channel` once it is proven, `node` once it has joined."""

    connection: socket.socket
    address: str
    until: float
    greeting: bytes = b""
    received: bytearray = field(default_factory=bytearray)
    answer: bytes = b""
    number: int = -1
    channel: wire.Channel | None = None
    node: int = -1
    heard: float = 0.0
    writing: bool = False


class GateServer:
    """Runs in a thread until every node has left."""

    def __init__(
        self,
        state: GateState,
        job: str,
        key: bytes,
        listeners: Sequence[socket.socket],
    ) -> None:
        self._job = job
        self._key = key
        self._state = state
        self._selector = selectors.DefaultSelector()
        self._listeners = list(listeners)
        self._paused_until = 0.0
        self._unproven: OrderedDict[_Caller, None] = OrderedDict()
        # Have proven, and are yet to join; no stranger takes their place.
        self._proven: OrderedDict[_Caller, None] = OrderedDict()
        self._members: dict[int, _Caller] = {}
        self._strangers: Counter[str] = Counter()
        # Told of at the end of a turn: telling may find more of them.
        self._departed: deque[int] = deque()
        self._next_look = self._reminded = time.monotonic()
        self._thread = threading.Thread(target=self._serve, name="gate", daemon=True)
        self._limit = file_room(len(state.hosts))
        self.sent_bytes = 0
        #: Node 0's address at which the first other node has reached it.
        self.reached_at = ""
        for listener in self._listeners:
            self._selector.register(listener, selectors.EVENT_READ, None)

    @property
    def own_end(self) -> tuple[str, int]:
        """Where node 0's own launcher connects to."""
        return own_end(self._listeners[0])

    def start(self) -> None:
        """Begin to accept nodes."""
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Wait until all nodes have left, so that none takes our exit for a loss."""
        self._thread.join(seconds)

    def _serve(self) -> None:
        try:
            while not self._state.over:
                self._guard(self._turn)
        finally:
            # Whatever happened here, no node may wait for an answer that will not come.
            for caller in [*self._unproven, *self._proven, *self._members.values()]:
                self._finish(caller)
            for listener in self._listeners:
                listener.close()
            self._selector.close()

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except TROUBLE as error:
            # A defect, or the system's refusal: told, and the next turn is taken all the same.
            events.emit("gate-trouble", error=f"{type(error).__name__}: {error}")
            time.sleep(PAUSE_SECONDS)

    def _turn(self) -> None:
        """Everything that is due once."""
        for key, mask in self._selector.select(self._patience()):
            caller = key.data
            if caller is None:
                self._accept(key.fileobj)
                continue
            if mask & selectors.EVENT_WRITE and caller.connection.fileno() >= 0:
                self._flush(caller)
            if mask & selectors.EVENT_READ and caller.connection.fileno() >= 0:
                self._read(caller)
        now = time.monotonic()
        deadline = self._state.next_deadline()
        if deadline is not None and now >= deadline:
            self._send(self._state.tick(now))
        self._end_handshakes(now)
        if now >= self._next_look:
            self._look(now)
        while self._departed:
            self._send(self._state.lost(self._departed.popleft(), now))

    def _patience(self) -> float:
        now = time.monotonic()
        times = [self._next_look, self._state.next_deadline()]
        times += [next(iter(group)).until for group in (self._unproven, self._proven) if group]
        if self._paused_until:
            times.append(self._paused_until)
        return max(0.0, min(at for at in times if at is not None) - now)

    def _look(self, now: float) -> None:
        """Now and then: who is silent, who is missing, and a sign of life to all."""
        late = now - self._next_look  # stopped ourselves, or starved: nobody else's silence
        self._next_look = now + wire.BEAT_SECONDS / 2
        for caller in list(self._members.values()):
            caller.heard += max(0.0, late)
            if now - caller.heard > wire.DEAF_SECONDS:
                self._drop(caller, f"not a word for {wire.DEAF_SECONDS:g} s")
        self._send([(node, wire.BEAT) for node in list(self._members)])
        if now - self._reminded >= REMIND_SECONDS:
            self._reminded = now
            missing = self._state.awaited().get("start")
            if missing:
                refused = dict(self._strangers.most_common(TOLD_STRANGERS))
                more = {"refused": refused} if refused else {}
                events.emit("waiting", missing=name_some(missing), **more)

    # -- before the proof --------------------------------------------------------------------

    def _accept(self, listener: Any) -> None:
        for _ in range(ACCEPT_BURST):
            try:
                connection, peer = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    return  # of the connection, which is gone (accept(2))
                self._make_room()
                return
            try:
                connection.setblocking(False)
                wire.tune(connection)
                until = time.monotonic() + wire.HANDSHAKE_SECONDS
                caller = _Caller(connection, plain_address(peer[0]), until)
                self._selector.register(connection, selectors.EVENT_READ, caller)
            except OSError:
                connection.close()
                continue
            self._unproven[caller] = None
            if len(self._unproven) > self._limit:
                self._refuse(next(iter(self._unproven)), "it made room for others")

    def _make_room(self) -> None:
        """No file is left to accept with."""
        if self._unproven:
            self._refuse(next(iter(self._unproven)), "no file was left")
            return
        self._paused_until = time.monotonic() + PAUSE_SECONDS
        for listener in self._listeners:
            self._selector.unregister(listener)

    def _end_handshakes(self, now: float) -> None:
        if self._paused_until and now >= self._paused_until:
            self._paused_until = 0.0
            for listener in self._listeners:
                self._selector.register(listener, selectors.EVENT_READ, None)
        for group in (self._unproven, self._proven):
            while group and now >= next(iter(group)).until:
                self._refuse(next(iter(group)), "it has not joined in time")

    def _refuse(self, caller: _Caller, why: str) -> None:
        """Close without a word: a stranger learns nothing. Told once for each address."""
        self._finish(caller)
        known = caller.address in self._strangers
        if known or len(self._strangers) < 4096:
            self._strangers[caller.address] += 1
        if not known and len(self._strangers) <= TOLD_STRANGERS:
            events.emit("gate-refused", address=caller.address, why=why)

    def _handshake(self, caller: _Caller) -> None:
        """Take the next fixed number of bytes; no more is read before they are right."""
        wanted = wire.PROOF_BYTES if caller.greeting else wire.GREETING_BYTES
        data = caller.connection.recv(wanted - len(caller.received))
        if not data:
            raise wire.StrangerError("it closed the connection")
        caller.received += data
        if not caller.greeting:
            wire.check_greeting(bytes(caller.received))
        if len(caller.received) < wanted:
            return
        received, caller.received = bytes(caller.received), bytearray()
        if not caller.greeting:
            caller.greeting, caller.answer = received, wire.greeting()
            self._say(caller, caller.answer)
            return
        ends = (caller.greeting, caller.answer)
        caller.number = wire.node_of_proof(self._key, *ends, received)
        self._say(caller, wire.gate_proof(self._key, *ends, caller.number))
        caller.channel = wire.Channel(self._key, *ends, caller.number, at_gate=True)
        del self._unproven[caller]
        caller.until = time.monotonic() + wire.HANDSHAKE_SECONDS
        self._proven[caller] = None

    def _say(self, caller: _Caller, data: bytes) -> None:
        """A few bytes, which a new connection takes at once or not at all."""
        if caller.connection.send(data) < len(data):
            raise wire.StrangerError("it takes no answer")

    # -- members -----------------------------------------------------------------------------

    def _read(self, caller: _Caller) -> None:
        try:
            if caller.channel is None:
                self._handshake(caller)
                return
            data = caller.connection.recv(RECEIVE_BYTES)
            messages = caller.channel.feed(data)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ValueError, MemoryError) as error:
            self._drop(caller, str(error))
            return
        caller.heard = time.monotonic()
        for message in messages:
            try:
                self._handle(caller, message)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self._drop(caller, f"{type(error).__name__}: {error}")
                return
        if not data:
            self._drop(caller, "it closed the connection")

    def _handle(self, caller: _Caller, message: dict[str, Any]) -> None:
        kind = message["kind"]
        if kind == "beat":
            return
        if caller.node >= 0:
            self._send(self._state.receive(caller.node, message, time.monotonic()))
        elif kind == "join":
            self._join(caller, str(message["job"]))
        else:
            raise ValueError(f"{kind!r} from a node that has not joined")

    def _join(self, caller: _Caller, job: str) -> None:
        """A proven caller has the gate's proof, too, and takes its place."""
        if job != self._job:
            self._turn_away(caller, f"this gate belongs to job {self._job!r}, not {job!r}")
        elif not self._state.join(caller.number):
            self._turn_away(caller, self._state.refusal(caller.number))
        else:
            del self._proven[caller]
            caller.node = caller.number
            caller.heard = time.monotonic()
            self._members[caller.node] = caller
            if caller.node != 0 and not self.reached_at:
                self.reached_at = plain_address(caller.connection.getsockname()[0])
            self._send(self._state.welcome(caller.node))

    def _turn_away(self, caller: _Caller, why: str) -> None:
        assert caller.channel is not None, "only the proven are told why"
        caller.channel.put(wire.encode({"kind": "refused", "why": why}))
        caller.channel.send(caller.connection)
        self._refuse(caller, why)

    def _send(self, out: list[tuple[int, dict[str, Any]]]) -> None:
        """Queue messages and send what goes. One message to all is encoded once."""
        encoded: dict[int, bytes] = {}
        for node, message in out:
            caller = self._members.get(node)
            if caller is None or caller.channel is None:
                continue
            body = encoded.get(id(message))
            if body is None:
                body = encoded[id(message)] = wire.encode(message)
            caller.channel.put(body)
        for node in dict.fromkeys(node for node, _ in out):
            caller = self._members.get(node)
            if caller is not None:
                self._flush(caller)

    def _flush(self, caller: _Caller) -> None:
        assert caller.channel is not None, "only members are written to"
        try:
            self.sent_bytes += caller.channel.send(caller.connection)
        except OSError as error:
            self._drop(caller, str(error))
            return
        if caller.channel.pending != caller.writing:
            caller.writing = caller.channel.pending
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if caller.writing else 0)
            self._selector.modify(caller.connection, wanted, caller)

    def _drop(self, caller: _Caller, why: str) -> None:
        if caller.node < 0:
            self._refuse(caller, why)
            return
        self._finish(caller)
        self._members.pop(caller.node, None)
        if not self._state.has_left(caller.node):
            events.emit("gate-dropped", node=caller.node, error=why)
            self._departed.append(caller.node)

    def _finish(self, caller: _Caller) -> None:
        self._unproven.pop(caller, None)
        self._proven.pop(caller, None)
        if caller.connection.fileno() >= 0:
            self._selector.unregister(caller.connection)
            caller.connection.close()


def file_room(nodes: int) -> int:
    """How many unproven connections there may be, after the limit of open files was raised.

    LaunchError where the limit does not let all nodes connect.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = nodes + UNPROVEN + OWN_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        if raised > soft:
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    room = UNPROVEN if soft == resource.RLIM_INFINITY else min(UNPROVEN, soft - nodes - OWN_FILES)
    if room < min(nodes, 16):
        raise LaunchError(
            f"{nodes} nodes need {nodes + OWN_FILES + 16} open files on node 0, and the limit is "
            f"{soft} (ulimit -n)",
            code=GATE,
            kind="GateError",
        )
    return room
