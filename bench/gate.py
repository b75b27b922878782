"""How long the launchers of many nodes take to meet, and to know that one of them has failed.

    python -m bench.gate 1000            # one row
    python -m bench.gate                 # the curve, 16 to 4,000 nodes

Node 0's real GateServer in this process; all other launchers simulated by a second process, which
speaks for each over a connection of its own on loopback: handshake, `start` with its digest, and
when all have met, one of them fails and the others answer. "met" is from the first connection to
the moment at which the last launcher knows that all are there, "MB" what went over all connections
in both directions until then, "known" from the failure to the moment at which the last one knows
the verdict. Two processes on two cores; no real network.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import selectors
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "entrypoints"))

from launcher.causes import Cause
from launcher.peers import GateServer, wire
from launcher.peers.gate_state import GateState

CURVE = (16, 64, 128, 256, 512, 1000, 2000, 4000)
JOB = "bench"
#: Connecting at once, as far as a listening socket's queue goes.
CONNECTING = 256
#: A bound for a run that hangs.
PATIENCE = 300.0


@dataclass(frozen=True)
class GateRow:
    """One run."""

    nodes: int
    met: float
    megabytes: float
    known: float


@dataclass(eq=False)
class _Launcher:
    """One simulated node's end of a connection."""

    node: int
    connection: socket.socket
    greeting: bytes
    answer: bytes = b""
    received: bytes = b""
    channel: wire.Channel | None = None
    bytes: int = 0


class Crowd:
    """All launchers of a job, in one thread."""

    def __init__(self, nodes: int, end: tuple[str, int], key: bytes) -> None:
        self._nodes, self._end, self._key = nodes, end, key
        self._selector = selectors.DefaultSelector()
        self._launchers: list[_Launcher] = []
        self._digest = hashlib.sha256(b"facts").hexdigest()[:32]
        self._joined = self._met = self._ended = 0

    def meet(self) -> None:
        """Connect all, and wait until each knows that all are there."""
        until = time.monotonic() + PATIENCE
        while self._met < self._nodes:
            assert time.monotonic() < until, f"{self._met} of {self._nodes} have met"
            while len(self._launchers) < min(self._nodes, self._joined + CONNECTING):
                self._connect(len(self._launchers))
            self._turn()

    def fail(self) -> None:
        """The last node fails; wait until each knows the verdict."""
        cause = Cause("TrainingError", "ValueError: bad batch", 1, host=f"n{self._nodes - 1}")
        failed = self._launchers[-1]
        self._say(failed, {"kind": "failed", "cause": cause.to_wire()})
        until = time.monotonic() + PATIENCE
        while self._ended < self._nodes:
            assert time.monotonic() < until, f"{self._ended} of {self._nodes} know the verdict"
            self._turn()

    def leave(self) -> None:
        """Say goodbye."""
        for launcher in self._launchers:
            self._say(launcher, {"kind": "bye"})
            launcher.connection.close()

    @property
    def bytes(self) -> int:
        """What all connections have carried, both ways."""
        return sum(launcher.bytes for launcher in self._launchers)

    def _connect(self, node: int) -> None:
        connection = socket.create_connection(self._end, timeout=PATIENCE)
        connection.setblocking(False)
        wire.tune(connection)
        launcher = _Launcher(node, connection, wire.greeting())
        self._launchers.append(launcher)
        launcher.bytes += connection.send(launcher.greeting)
        self._selector.register(connection, selectors.EVENT_READ, launcher)

    def _turn(self) -> None:
        for key, _ in self._selector.select(1.0):
            launcher: _Launcher = key.data
            data = launcher.connection.recv(1 << 18)
            assert data, f"node {launcher.node} was turned away"
            launcher.bytes += len(data)
            if launcher.channel is not None:
                for message in launcher.channel.feed(data):
                    self._hear(launcher, message)
                continue
            launcher.received += data
            self._prove(launcher)

    def _prove(self, launcher: _Launcher) -> None:
        node, key = launcher.node, self._key
        if not launcher.answer and len(launcher.received) == wire.GREETING_BYTES:
            launcher.answer, launcher.received = launcher.received, b""
            proof = wire.caller_proof(key, launcher.greeting, launcher.answer, node)
            launcher.bytes += launcher.connection.send(proof)
        elif launcher.answer and len(launcher.received) == wire.SEAL_BYTES:
            ends = (launcher.greeting, launcher.answer)
            wire.check_gate_proof(key, *ends, node, launcher.received)
            launcher.channel = wire.Channel(key, *ends, node, at_gate=False)
            self._joined += 1
            self._say(launcher, {"kind": "join", "job": JOB})
            start = {"kind": "gather", "name": "start", "value": [8, self._digest]}
            self._say(launcher, {**start, "timeout": PATIENCE})

    def _hear(self, launcher: _Launcher, message: dict[str, Any]) -> None:
        if message["kind"] == "gathered":
            assert len(message["values"]) == self._nodes
            self._met += 1
        elif message["kind"] == "collect" and launcher.node != self._nodes - 1:
            self._say(launcher, {"kind": "failed", "cause": None})
        elif message["kind"] == "end":
            self._ended += 1

    def _say(self, launcher: _Launcher, message: dict[str, Any]) -> None:
        assert launcher.channel is not None
        launcher.channel.put(wire.encode(message))
        launcher.bytes += launcher.channel.send(launcher.connection)
        assert not launcher.channel.pending, "a small message fills no socket"


def _play(nodes: int, end: tuple[str, int], key: bytes, report: Connection) -> None:
    """The second process."""
    crowd = Crowd(nodes, end, key)
    began = time.monotonic()
    crowd.meet()
    met, size = time.monotonic() - began, crowd.bytes
    began = time.monotonic()
    crowd.fail()
    report.send((met, size, time.monotonic() - began))
    crowd.leave()


def measure_gate(nodes: int) -> GateRow:
    """One run with so many nodes; SystemExit where the limit of open files forbids it."""
    raise_file_limit(nodes)
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listener.setblocking(False)
    key = os.urandom(32)
    server = GateServer(GateState([f"n{node}" for node in range(nodes)]), JOB, key, [listener])
    end = listener.getsockname()
    server.start()
    reader, writer = multiprocessing.Pipe(duplex=False)
    crowd = multiprocessing.get_context("fork").Process(
        target=_play, args=(nodes, end, key, writer)
    )
    crowd.start()
    writer.close()
    try:
        met, size, known = reader.recv()
    except EOFError:
        raise SystemExit("the simulated launchers did not get through: see above") from None
    crowd.join()
    server.join(10)
    return GateRow(nodes, met, size / 1e6, known)


def raise_file_limit(nodes: int) -> None:
    """Each of the two processes holds a connection a node."""
    wanted = nodes + 1024
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= wanted:
        return
    if hard != unlimited and hard < wanted:
        raise SystemExit(
            f"{nodes} launchers need {wanted} open files in a process, and the hard limit here is "
            f"{hard}: raise it (ulimit -Hn {wanted}, as root) or ask for fewer nodes"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(argv: Sequence[str]) -> None:
    """Print a row for each number of nodes."""
    parser = argparse.ArgumentParser(description="time until many launchers meet")
    parser.add_argument("nodes", nargs="*", type=int, help="numbers of nodes (default: a curve)")
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    args = parser.parse_args(argv)
    if any(nodes < 2 for nodes in args.nodes):
        parser.error("a gate is for two nodes or more")
    if not args.json:
        # Of one row, the row alone is the output.
        heading = sys.stderr if len(args.nodes) == 1 else sys.stdout
        print("| nodes | all met after s | MB in all | result known by all after s |", file=heading)
        print("|---|---|---|---|", file=heading, flush=True)
    for nodes in args.nodes or CURVE:
        row = measure_gate(nodes)
        if args.json:
            print(json.dumps(row.__dict__), flush=True)
        else:
            figures = f"{row.met:.2f} | {row.megabytes:.1f} | {row.known:.2f}"
            print(f"| {row.nodes} | {figures} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
