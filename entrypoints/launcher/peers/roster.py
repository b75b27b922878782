"""Which nodes of a job with spares train, and what to do when one is lost: rules without sockets.

One node, the first that is left, decides (the leader; `RosterState` is its side of the connection).
All others report how their ranks are and do as they are told. When the leader is lost, everybody
turns to the next in order and reports to that one, which then knows what there is to know.

Two halves of a torn network must not both go on: a leader needs more than half of the nodes that
there were, or half of them where it had been one of them all along, or where the leader before it
is certainly dead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from launcher.causes import HANG, OK, PEER, PREFLIGHT, STOPPED, Cause, cause_from_wire
from launcher.peers.gate_state import GateState, Message, name_some

#: Topics of the messages to the leader and from it.
REPORT, ORDER = "report", "order"
#: What orders say.
TRAIN, HALT, LEAVE, TELL, OVER = "train", "halt", "leave", "tell", "over"
LOST = "the connection to its launcher was lost"
#: How long a leader waits for the nodes that it does not know to be lost.
ASSEMBLE_SECONDS = 15.0
#: How long nodes may take to end the ranks of a beginning that has failed.
HALT_SECONDS = 20.0

Out = list[tuple[int, dict[str, Any]]]


@dataclass(frozen=True)
class Roster:
    """The nodes that train, in rank order; `restart` counts how often the job has begun again."""

    restart: int
    hosts: tuple[str, ...]

    def to_wire(self) -> dict[str, Any]:
        """As JSON values."""
        return {"restart": self.restart, "hosts": list(self.hosts)}


def roster_from_wire(data: Mapping[str, Any]) -> Roster:
    """The other end of `Roster.to_wire`."""
    return Roster(int(data["restart"]), tuple(str(host) for host in data["hosts"]))


@dataclass(frozen=True)
class RosterPolicy:
    """How many nodes train, how often the job may begin again, and whether for a rank's failure."""

    training: int
    restarts: int
    failures: bool


@dataclass(frozen=True)
class NodeReport:
    """What a node tells the leader. `code` is that of its ranks' launcher, once that has ended.

    `lost`: hosts that it knows to be out. `certain`: the leader before has certainly died.
    """

    roster: Roster | None = None
    code: int | None = None
    cause: Cause | None = None
    lost: tuple[str, ...] = ()
    certain: bool = False

    def to_wire(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "roster": self.roster.to_wire() if self.roster else None,
            "code": self.code,
            "cause": self.cause.to_wire() if self.cause else None,
            "lost": list(self.lost),
            "certain": self.certain,
        }


def report_of_node(data: Mapping[str, Any]) -> NodeReport:
    """The other end of `NodeReport.to_wire`; ValueError for anything else."""
    try:
        return NodeReport(
            roster=roster_from_wire(data["roster"]) if data["roster"] else None,
            code=None if data["code"] is None else int(data["code"]),
            cause=cause_from_wire(data["cause"]) if data["cause"] else None,
            lost=tuple(str(host) for host in data["lost"]),
            certain=bool(data["certain"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a report: {error!r}") from error


@dataclass
class _Decision:
    """What the leader goes by."""

    roster: Roster | None = None
    assembled: bool = False
    halting: bool = False
    over: bool = False
    deadline: float | None = None
    #: Nodes that there were when something was decided last.
    electorate: int = 0
    reports: dict[int, NodeReport] = field(default_factory=dict)
    #: Why each node that is out is out.
    out: dict[int, str] = field(default_factory=dict)


class RosterState(GateState):
    """The leader's side. `hosts`: the leader first, then the others in the order of succession.

    The `passed` ones at the end have been leaders before, and are lost.
    """

    def __init__(self, hosts: Sequence[str], policy: RosterPolicy, passed: int = 0) -> None:
        super().__init__(hosts)
        self._policy = policy
        gone = range(len(hosts) - passed, len(hosts))
        self._made = _Decision(electorate=len(hosts), out=dict.fromkeys(gone, LOST))

    @property
    def over(self) -> bool:
        """Whether nobody is left to be answered."""
        ended = self._made.over or bool({0} & (self._left | self._lost))
        return ended and not self._here()

    def awaited(self) -> dict[str, list[str]]:
        """Who has yet to report."""
        missing = [] if self._made.assembled else self._missing()
        return {"start": [self.hosts[node] for node in missing]}

    def next_deadline(self) -> float | None:
        """When `tick` has something to do."""
        return self._made.deadline

    def refusal(self, node: int) -> str:
        """What a node is told that was taken for lost."""
        why = self._made.out.get(node, "")
        return f"the job went on without this node: {why}" if why else super().refusal(node)

    def welcome(self, node: int) -> Out:
        """A node is told what to do once it has reported."""
        del node
        return []

    def receive(self, node: int, message: Message, now: float) -> Out:
        """Handle one message; ValueError if it is not one of ours."""
        kind = message.get("kind")
        if kind == "relay" and message["topic"] == REPORT:
            self._made.reports[node] = report_of_node(message["data"])
        elif kind == "bye":
            self._left.add(node)
            self._made.out.setdefault(node, "it was stopped")
        else:
            raise ValueError(f"unknown message {kind!r}")
        return self._step(now)

    def lost(self, node: int, now: float) -> Out:
        """A node's connection is gone."""
        if node in self._left or node in self._lost:
            return []
        self._lost.add(node)
        self._made.out.setdefault(node, LOST)
        return self._step(now)

    def tick(self, now: float) -> Out:
        """Go on without those that were waited for long enough."""
        made = self._made
        if made.deadline is None or now < made.deadline:
            return []
        made.deadline = None
        for node in self._unended() if made.assembled else self._missing():
            late = "it did not end its ranks" if made.assembled else "it did not come"
            made.out.setdefault(node, late)
        return self._step(now)

    # -- what there is to decide -------------------------------------------------------------

    def _alive(self) -> list[int]:
        return [node for node in range(len(self.hosts)) if node not in self._made.out]

    def _missing(self) -> list[int]:
        return [node for node in self._alive() if node not in self._made.reports]

    def _members(self) -> list[int]:
        assert self._made.roster is not None, "decided before anything is asked"
        return [self.hosts.index(host) for host in self._made.roster.hosts]

    def _end_of(self, node: int) -> NodeReport | None:
        """A training node's report, if its ranks of this beginning have ended."""
        report = self._made.reports.get(node)
        if report is None or report.code is None or report.roster != self._made.roster:
            return None
        return report

    def _unended(self) -> list[int]:
        return [
            node
            for node in self._members()
            if node not in self._made.out and self._end_of(node) is None
        ]

    def _step(self, now: float) -> Out:
        made = self._made
        if made.over:
            return []
        if not made.assembled:
            for report in made.reports.values():
                for host in report.lost:
                    made.out.setdefault(self.hosts.index(host), "it was lost before")
            if self._missing():
                made.deadline = made.deadline or now + ASSEMBLE_SECONDS
                return []
            return self._assembled(now)
        return self._judge(now)

    def _assembled(self, now: float) -> Out:
        """All have reported: begin, or take over from the leader before."""
        made = self._made
        made.assembled, made.deadline = True, None
        reports = [made.reports[node] for node in self._alive()]
        known = [report.roster for report in reports if report.roster is not None]
        made.electorate -= len({host for report in reports for host in report.lost})
        certain = all(report.certain for report in made.reports.values())
        if not self._may_decide(tie=not known or certain):
            return self._finish(PEER, "too few nodes are left to be sure that the others are gone")
        if known:
            made.roster = max(known, key=lambda roster: roster.restart)
            return self._judge(now)
        alive = self._alive()
        if len(alive) < self._policy.training:
            return self._finish(PEER, "too few nodes have come")
        hosts = tuple(self.hosts[node] for node in alive[: self._policy.training])
        return self._begin(Roster(0, hosts), "all have met")

    def _may_decide(self, *, tie: bool) -> bool:
        """Whether those who are here outnumber those who may be elsewhere."""
        count = len(self._alive())
        ok = 2 * count > self._made.electorate or (tie and 2 * count == self._made.electorate)
        self._made.electorate = count
        return ok

    def _judge(self, now: float) -> Out:
        """How the nodes that train are doing."""
        made = self._made
        members = self._members()
        ends = [end for end in map(self._end_of, members) if end is not None]
        codes = {end.code for end in ends}
        lost = [node for node in members if node in made.out]
        if not lost and not codes - {OK}:
            if self._unended():
                return self._tell_of_spares()
            return self._finish(OK, "all is done")
        sent: Out = []
        if not made.halting:
            made.halting, made.deadline = True, now + HALT_SECONDS
            why = self._because([*lost]) if lost else "a node's ranks have failed"
            sent = [(node, _order(HALT, why=why)) for node in self._unended()]
        if self._unended():
            return sent
        if OK in codes:
            return sent + self._finish(OK, "all is done")
        if STOPPED in codes:
            return sent + self._finish(STOPPED, "the job was told to stop")
        return sent + self._replace(ends)

    def _tell_of_spares(self) -> Out:
        """A spare that is lost changes nothing yet, and a person wants to know."""
        made = self._made
        if len(self._alive()) == made.electorate:
            return []
        lost = [node for node in made.out if node not in self._left]
        if self._left:  # they are being stopped, one after another
            return []
        if not self._may_decide(tie=True):
            return self._finish(PEER, "too few nodes are left to be sure that the others are gone")
        text = f"{self._because(lost[-1:])}; {self._waiting_text()}"
        return self._to_all(_order(TELL, why=text, lost=self._out_hosts()))

    def _replace(self, ends: Sequence[NodeReport]) -> Out:
        """All ranks have ended, badly: who goes, and who comes."""
        made = self._made
        assert made.roster is not None, "something has been running"
        self._name_culprits(ends)
        members = self._members()
        gone = [node for node in members if node in made.out]
        waiting = [node for node in self._alive() if node not in members]
        used, most = made.roster.restart, self._policy.restarts
        first = next((end.cause for end in ends if end.cause is not None), None)
        why = self._because(gone) if gone else (first.headline() if first else "ranks have failed")
        sent: Out = [
            (node, _order(LEAVE, why=made.out[node]))
            for node in gone
            if node in self._present and node not in self._lost | self._left
        ]
        if not gone and not self._policy.failures:
            return sent + self._finish(PEER, why)
        if used >= most:
            return sent + self._finish(PEER, f"{why}; it was begun again {used} of {most} times")
        if len(waiting) < len(gone):
            return sent + self._finish(PEER, f"{why}; no spare is left")
        if not self._may_decide(tie=True):
            return sent + self._finish(PEER, f"{why}; too few nodes are left to go on")
        place_of = dict(zip(gone, waiting))
        hosts = tuple(self.hosts[place_of.get(node, node)] for node in members)
        if gone:
            comes = name_some([self.hosts[node] for node in place_of.values()])
            why = f"{why}; {comes} {'takes its place' if len(gone) == 1 else 'take their places'}"
        return sent + self._begin(Roster(used + 1, hosts), why)

    def _name_culprits(self, ends: Sequence[NodeReport]) -> None:
        """Nodes that are there and must not train again: hung, unfit, or lost to another one."""
        made = self._made
        for node in self._members():
            end = self._end_of(node)
            if end is not None and end.code == PREFLIGHT:
                made.out.setdefault(node, "it failed the preflight")
        named = [end.cause for end in ends if end.cause is not None and end.cause.host]
        hung = [cause for cause in named if cause.code == HANG]
        lost = [cause for cause in named if cause.kind == "NodeLost"]
        if not hung and any(node in made.out for node in self._members()):
            return
        for cause in (hung or lost)[:1]:
            if cause.host in self.hosts:
                why = "it hangs" if hung else cause.message
                made.out.setdefault(self.hosts.index(cause.host), why)

    # -- what is said ------------------------------------------------------------------------

    def _because(self, nodes: Sequence[int]) -> str:
        return ", ".join(f"{self.hosts[node]}: {self._made.out[node]}" for node in nodes)

    def _out_hosts(self) -> list[str]:
        return [self.hosts[node] for node in sorted(self._made.out)]

    def _waiting_text(self) -> str:
        roster = self._made.roster
        assert roster is not None, "something is running"
        waiting = [
            self.hosts[node] for node in self._alive() if self.hosts[node] not in roster.hosts
        ]
        return f"{name_some(waiting)} wait" + "s" * (len(waiting) == 1) if waiting else "none waits"

    def _begin(self, roster: Roster, why: str) -> Out:
        made = self._made
        made.roster, made.halting, made.deadline = roster, False, None
        made.electorate = len(self._alive())
        text = f"{why}; {name_some(roster.hosts)} train, {self._waiting_text()}"
        if roster.restart:
            text += f"; begun again {roster.restart} of {self._policy.restarts} times"
        return [
            (node, _order(TRAIN, why=text, roster=roster.to_wire(), lost=self._out_hosts()))
            for node in self._alive()
        ]

    def _finish(self, code: int, why: str) -> Out:
        self._made.over, self._made.deadline = True, None
        return self._to_all(_order(OVER, why=why, code=code))


def _order(what: str, **more: Any) -> dict[str, Any]:
    return {"kind": "relay", "topic": ORDER, "data": {"do": what, **more}}
