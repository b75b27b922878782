"""Node 0's end of the gate: connections in, a Meeting, messages out."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from launcher import events
from launcher.peers import wire
from launcher.peers.gate_state import GateState

REMIND_SECONDS = 30.0


@dataclass
class _Peer:
    connection: socket.socket
    lines: wire.Lines = field(default_factory=wire.Lines)
    node: int = -1


class GateServer:
    """Runs in a thread until every node has left."""

    def __init__(self, hosts: Sequence[str], job: str, listener: socket.socket) -> None:
        self._job = job
        self._meeting = GateState(hosts)
        self._selector = selectors.DefaultSelector()
        self._listener = listener
        self._peers: dict[int, _Peer] = {}
        self._reminded = time.monotonic()
        self._selector.register(listener, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._serve, name="gate", daemon=True)

    def start(self) -> None:
        """Begin to accept nodes."""
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Wait until all nodes have left, so that none takes our exit for a loss."""
        self._thread.join(seconds)

    def _serve(self) -> None:
        with self._selector, self._listener:
            try:
                while not self._meeting.over:
                    for key, _ in self._selector.select(self._patience()):
                        if key.data is None:
                            self._accept()
                        else:
                            self._read(key.data)
                    self._send(self._meeting.tick(time.monotonic()))
                    self._remind()
            finally:
                # Whatever happened here, no node may wait for an answer that will not come.
                for key in list(self._selector.get_map().values()):
                    if key.data is not None:
                        self._close(key.data)

    def _patience(self) -> float:
        deadline = self._meeting.next_deadline()
        now = time.monotonic()
        return REMIND_SECONDS if deadline is None else min(REMIND_SECONDS, max(0.0, deadline - now))

    def _remind(self) -> None:
        """While nodes gather before training, say now and then who is missing."""
        now = time.monotonic()
        missing = self._meeting.awaited().get("start")
        if missing and now - self._reminded >= REMIND_SECONDS:
            self._reminded = now
            events.emit("waiting", missing=missing)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        wire.tune(connection)
        connection.settimeout(wire.SILENCE_SECONDS)
        self._selector.register(connection, selectors.EVENT_READ, _Peer(connection))

    def _read(self, peer: _Peer) -> None:
        try:
            data = peer.connection.recv(1 << 20)
            messages = list(peer.lines.feed(data))
            for message in messages:
                self._handle(peer, message)
        except (OSError, ValueError, KeyError, TypeError) as error:
            # A stranger, or a peer that is no longer itself.
            events.emit("gate-dropped", node=peer.node, error=str(error))
            data = b""
        if not data:
            self._drop(peer)

    def _handle(self, peer: _Peer, message: dict[str, Any]) -> None:
        if peer.node >= 0:
            self._send(self._meeting.receive(peer.node, message, time.monotonic()))
            return
        if message.get("protocol") != wire.PROTOCOL:
            raise ValueError("not a launcher")
        node, job = int(message["node"]), message["job"]
        if job != self._job:
            self._refuse(peer, f"this gate belongs to job {self._job!r}, not {job!r}")
        elif not self._meeting.join(node):
            self._refuse(peer, f"node {node} is unknown here or connected already")
        else:
            peer.node = node
            peer.lines.limit = wire.MAX_LINE
            self._peers[node] = peer
            self._send(self._meeting.welcome(node))

    def _refuse(self, peer: _Peer, why: str) -> None:
        peer.connection.sendall(wire.encode({"kind": "refused", "why": why}))
        raise ValueError(why)

    def _send(self, out: list[tuple[int, dict[str, Any]]]) -> None:
        lost = []
        for node, message in out:
            peer = self._peers.get(node)
            if peer is None:
                continue
            try:
                peer.connection.sendall(wire.encode(message))
            except OSError:
                lost.append(peer)
        for peer in lost:
            self._drop(peer)

    def _drop(self, peer: _Peer) -> None:
        self._close(peer)
        if peer.node >= 0:
            self._send(self._meeting.lost(peer.node, time.monotonic()))

    def _close(self, peer: _Peer) -> None:
        if peer.connection.fileno() >= 0:
            self._selector.unregister(peer.connection)
            peer.connection.close()
        self._peers.pop(peer.node, None)
