"""A node of a job with spares, from meeting all the others until the job is over.

The main thread has the signals; one other does what the leader says (peers/roster.py), one after
another: start a launcher for a beginning of the job, end it, wait, go.
"""

from __future__ import annotations

import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Union

from launcher import events
from launcher.causes import HANG, OK, PEER, STOPPED, LaunchError
from launcher.main_job import STOP_SIGNALS, LauncherProcess
from launcher.peers import (
    HALT,
    LEAVE,
    ORDER,
    OVER,
    REPORT,
    TELL,
    TRAIN,
    Gate,
    GatePlace,
    NodeReport,
    Roster,
    RosterPolicy,
    RosterState,
    derive_part_key,
    roster_from_wire,
)
from launcher.plan import Plan
from launcher.platforms import AttemptPlace, NodePool, muster_port
from launcher.spares.attempt import Attempt, AttemptEnd
from launcher.stop_request import StopRequest

#: How long the launcher below may take to end its ranks after another node was lost.
CUT_SECONDS = 8.0
#: How long the next leader may take to notice that its turn has come.
LEADER_SECONDS = 15.0
#: How long the leader may take to decide after this node's ranks have ended.
ORDER_SECONDS = 40.0
#: The same where the leader itself is what hangs.
BLAMED_SECONDS = 6.0
#: How long a node that lost its leader waits to be told that it is the lost one.
REFUSAL_SECONDS = 3.0


@dataclass(frozen=True)
class _LeaderLost:
    """The connection to a leader has ended."""

    leader: int
    why: str


@dataclass(frozen=True)
class _Order:
    """What a leader says."""

    leader: int
    data: Mapping[str, Any]


class _Stop:
    """A person or the platform has told this node to stop."""


Event = Union[_Order, AttemptEnd, _LeaderLost, _Stop]


def roster_policy(plan: Plan, pool: NodePool) -> RosterPolicy:
    """What --spares and --max-restarts mean together."""
    settings = plan.context.settings
    most = settings.number("max-restarts")
    given = settings.given("max-restarts")
    return RosterPolicy(pool.training, most if given else pool.spares, failures=most > 0)


class PoolNode:
    """`run` is called in the launcher process, below init. `command`: its own, to start anew."""

    def __init__(self, plan: Plan, command: Sequence[str]) -> None:
        pool = plan.context.pool
        assert pool is not None, "asked for with --spares"
        self._plan = plan
        self._pool: NodePool = pool
        self._command = command
        self._process = LauncherProcess()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._attempt: Attempt | None = None
        self._roster: Roster | None = None
        self._end: AttemptEnd | None = None
        self._lost: tuple[str, ...] = ()
        self._leader = 0
        self._certain = False
        self._stopping = False

    def run(self) -> int:
        """Do everything; the exit code."""
        events.set_node(self._pool.host, self._pool.node)
        threading.Thread(target=self._work, name="pool", daemon=True).start()
        return self._process.serve(self._signalled)

    def _signalled(self, number: int) -> None:
        if number in STOP_SIGNALS:
            self._stopping = True
            self._events.put(_Stop())
        attempt = self._attempt
        if attempt is not None:
            attempt.signal(number)

    def _work(self) -> None:
        code = PEER
        try:
            code = self._life()
        except LaunchError as error:
            code = error.code
            events.emit("failed", code=code, cause=error.cause.headline())
        finally:
            self._cut(0)
            self._process.put(lambda: code)

    def _life(self) -> int:
        """All nodes meet and check themselves; then the job, whoever leads."""
        code = self._meet()
        if code != OK:
            return code
        while True:
            if self._stopping and self._attempt is None:
                return STOPPED
            gate = self._join_leader()
            ended = None if gate is None else self._follow(gate)
            if gate is not None:
                gate.leave()
            if ended is not None:
                return ended
            if self._stopping and self._end is not None:
                return self._end.code
            self._leader = self._next_leader()

    def _meet(self) -> int:
        """As a job on all nodes would, the spares among them, but for the training."""
        self._attempt = self._start(
            AttemptPlace(self._pool.hosts, self._pool.node, restart=-1, meets_only=True)
        )
        while True:
            event = self._events.get()
            if isinstance(event, AttemptEnd):
                self._attempt = None
                return STOPPED if self._stopping and event.code == OK else event.code

    def _start(self, place: AttemptPlace) -> Attempt:
        return Attempt(self._command, self._plan.context.env, place, self._events.put)

    # -- leaders -----------------------------------------------------------------------------

    def _next_leader(self) -> int:
        """The next in order that is not known to be lost; LaunchError after the last."""
        for node in range(self._leader + 1, len(self._pool.hosts)):
            if self._pool.hosts[node] not in self._lost:
                return node
        raise LaunchError("no other node is left", code=PEER, kind="NodesLost")

    def _place(self) -> GatePlace:
        """All nodes, the leader first: where this node finds it, with a key of its time."""
        hosts, settings = self._pool.hosts, self._plan.context.settings
        return GatePlace(
            hosts=hosts[self._leader :] + hosts[: self._leader],
            node=(self._pool.node - self._leader) % len(hosts),
            job=self._plan.context.topology.job,
            port=muster_port(settings.number("port"), settings.number("gate-port")),
            key=derive_part_key(self._plan.job_key, f"leader {self._leader}"),
        )

    def _join_leader(self) -> Gate | None:
        """Report to the leader; None where it is not there."""
        halt = StopRequest()
        policy = roster_policy(self._plan, self._pool)
        leader = self._leader
        gate = Gate(self._place(), halt, partial(RosterState, policy=policy, passed=leader))
        gate.topics[ORDER] = lambda data: self._events.put(_Order(leader, data))
        try:
            gate.connect(LEADER_SECONDS)
        except LaunchError as error:
            gate.leave()
            if self._leader == self._pool.node:
                raise
            events.emit("leader-lost", leader=self._leader_host, why=str(error))
            return None

        def lost() -> None:
            why = halt.cause.message if halt.cause else ""
            self._events.put(_LeaderLost(leader, why))

        halt.tell(lost)
        self._report(gate)
        return gate

    @property
    def _leader_host(self) -> str:
        return self._pool.hosts[self._leader]

    def _report(self, gate: Gate) -> None:
        end = self._end
        report = NodeReport(
            roster=self._roster,
            code=end.code if end else None,
            cause=end.cause if end else None,
            lost=self._lost,
            certain=self._certain,
        )
        gate.announce(REPORT, report.to_wire())

    def _follow(self, gate: Gate) -> int | None:
        """Do as the leader says; the exit code, or None when it is lost."""
        while True:
            try:
                event = self._events.get(timeout=self._patience())
            except queue.Empty:
                events.emit("leader-lost", leader=self._leader_host, why="it does not decide")
                self._certain = False
                return None
            code: int | None = None
            if isinstance(event, AttemptEnd):
                self._note_end(event, gate)
            elif isinstance(event, _Stop):
                # A leader that waits stays for those that save.
                leads = self._leader == self._pool.node
                if self._attempt is None and self._end is None and not leads:
                    code = STOPPED
            elif event.leader != self._leader:
                continue  # of one that is lost
            elif isinstance(event, _LeaderLost):
                return self._ask_back(event.why)
            else:
                code = self._obey(event.data)
            if code is not None:
                return code

    def _patience(self) -> float | None:
        """How long a leader may be silent now; None while ranks run, or have ended well."""
        end = self._end
        if end is None or end.code in (OK, STOPPED):
            return None
        cause = end.cause
        blamed = cause is not None and cause.code == HANG and cause.host == self._leader_host
        return BLAMED_SECONDS if blamed else ORDER_SECONDS

    def _note_end(self, end: AttemptEnd, gate: Gate) -> None:
        if self._roster is not None and end.restart == self._roster.restart:
            self._attempt, self._end = None, end
            self._report(gate)

    def _ask_back(self, why: str) -> int | None:
        """The connection has ended: the leader may be lost, or have taken this node for lost."""
        if self._leader == self._pool.node:
            raise LaunchError(
                f"the gate of this node has ended: {why}", code=PEER, kind="GateError"
            )
        halt, gone = StopRequest(), threading.Event()
        gate = Gate(self._place(), halt)
        self._certain = False
        try:
            gate.connect(0.0)
        except LaunchError as error:
            self._certain = isinstance(error.__cause__, ConnectionRefusedError)
            events.emit("leader-lost", leader=self._leader_host, why=why)
            return None
        with halt.telling(gone.set):
            gone.wait(REFUSAL_SECONDS)
        gate.leave()
        refused = halt.cause.message if halt.cause else why
        events.emit("left", text=f"{self._leader_host} says: {refused}")
        return PEER

    # -- what the leader says ----------------------------------------------------------------

    def _obey(self, order: Mapping[str, Any]) -> int | None:
        what, why = order["do"], str(order["why"])
        self._lost = tuple(str(host) for host in order.get("lost", self._lost))
        if what == TRAIN:
            self._begin(roster_from_wire(order["roster"]), why)
        elif what == HALT:
            events.emit("cut", text=why)
            self._cut(CUT_SECONDS)
        elif what == LEAVE:
            self._cut(0)
            events.emit("left", text=f"the job goes on without this node: {why}")
            return PEER
        elif what == TELL:
            events.emit("spares", text=why)
        elif what == OVER:
            self._cut(CUT_SECONDS)
            code = int(order["code"])
            events.emit("over", text=why, code=code)
            return self._own_code(code)
        return None

    def _own_code(self, code: int) -> int:
        """A node that has trained last ends with its own launcher's code."""
        end = self._end
        return code if code == OK or end is None or end.code == OK else end.code

    def _begin(self, roster: Roster, why: str) -> None:
        self._cut(0)
        self._roster, self._end, self._certain = roster, None, False
        trains = self._pool.host in roster.hosts
        events.emit("begin-again" if roster.restart else "begin", text=why, trains=trains)
        if not trains:
            self._read_ahead()
            return
        if self._stopping:
            self._events.put(AttemptEnd(roster.restart, STOPPED, None))
            return
        node = roster.hosts.index(self._pool.host)
        self._attempt = self._start(AttemptPlace(roster.hosts, node, roster.restart))
        if self._stopping:  # meanwhile
            self._attempt.signal(signal.SIGTERM)

    def _read_ahead(self) -> None:
        """What every rank will read first is in memory when this node's turn comes. Uses no GPU."""
        context = self._plan.context
        if self._plan.runner == "python":
            return
        with suppress(OSError):  # no such Python: the ranks will say so, should they be needed
            subprocess.Popen(
                [context.python, "-c", "import torch.distributed.run"],
                env={**context.env, "CUDA_VISIBLE_DEVICES": ""},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def _cut(self, seconds: float) -> None:
        """No rank of this node is left when this returns."""
        attempt = self._attempt
        if attempt is not None:
            attempt.end_within(seconds)
