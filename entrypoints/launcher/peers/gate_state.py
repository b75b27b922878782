"""What the launchers of one job tell each other, as a state machine without sockets.

Node 0 runs it. Every node sends: `gather` (give a value, get everyone's once all have given theirs:
also a barrier), `relay` (a message to all), `stop` (a SIGTERM that everyone should hear of),
`failed` (what went wrong here, or that nothing did), `bye`. When something fails anywhere,
every node is told to stop its ranks and say what it saw; the oldest error that is no echo of
another one becomes the verdict, the same on every node.

Each message costs the same however many nodes there are, but for those that are sent to all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from launcher.causes import GATE, PEER, Cause, cause_from_wire, root_cause

#: How long nodes may take to say what they saw. Ranks get one second of it to end (supervise.py).
COLLECT_SECONDS = 2.0

#: Of many hosts, how many a sentence names.
NAMED_HOSTS = 8

Message = Mapping[str, Any]


def name_some(hosts: Sequence[str]) -> str:
    """A few of the hosts, for a person."""
    rest = len(hosts) - NAMED_HOSTS
    return ", ".join(hosts[:NAMED_HOSTS]) + (f" and {rest} more" if rest > 0 else "")


@dataclass
class _Gather:
    values: dict[int, Any] = field(default_factory=dict)
    deadline: float | None = None


class GateState:
    """All nodes of one job. Times are seconds on one monotonic clock, given by the caller."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self.hosts = tuple(hosts)
        self._present: set[int] = set()
        self._left: set[int] = set()
        self._lost: set[int] = set()
        # Present, neither gone nor heard since something failed: the verdict waits for these.
        self._silent: set[int] = set()
        self._gathers: dict[str, _Gather] = {}
        self._seen: dict[int, tuple[Cause | None, float]] = {}
        self._collect_until: float | None = None
        self.verdict: Cause | None = None

    @property
    def over(self) -> bool:
        """Whether nobody is left to be answered.

        Nodes that never came are waited for only as long as the job may still begin.
        """
        ended = self.verdict is not None or 0 in self._left or 0 in self._lost
        return not self._here() if ended else self._gone() == len(self.hosts)

    def _gone(self) -> int:
        return len(self._left) + len(self._lost)  # no node is in both

    def _here(self) -> int:
        """How many nodes are connected; who is gone was present before."""
        return len(self._present) - self._gone()

    def awaited(self) -> dict[str, list[str]]:
        """What is being waited for: each unfinished gather, and the hosts it lacks."""
        return {
            name: [host for i, host in enumerate(self.hosts) if i not in gather.values]
            for name, gather in self._gathers.items()
        }

    def next_deadline(self) -> float | None:
        """When `tick` has something to do."""
        times = [g.deadline for g in self._gathers.values() if g.deadline is not None]
        if self._collect_until is not None:
            times.append(self._collect_until)
        return min(times, default=None)

    def join(self, node: int) -> bool:
        """A node has connected; False if it is unknown or here already."""
        if not 0 <= node < len(self.hosts) or node in self._present:
            return False
        self._present.add(node)
        self._silent.add(node)
        return True

    def refusal(self, node: int) -> str:
        """Why a node that has tried to join may not."""
        return f"node {node} is unknown here or connected already"

    def welcome(self, node: int) -> list[tuple[int, dict[str, Any]]]:
        """What a node has missed that came late."""
        if self.verdict is not None:
            return [(node, self._end())]
        return [] if self._collect_until is None else [(node, {"kind": "collect"})]

    def receive(self, node: int, message: Message, now: float) -> list[tuple[int, dict[str, Any]]]:
        """Handle one message; ValueError if it is not one of ours."""
        kind = message.get("kind")
        if kind == "gather":
            return self._gather(node, message, now)
        if kind == "relay":
            sent = {"kind": "relay", "topic": message["topic"], "data": message["data"]}
            to = message.get("to")
            if to is None:
                return self._to_all(sent)
            return [(to, sent)] if to in self._present else []
        if kind == "stop":
            return self._to_all({"kind": "stop", "cause": message["cause"]})
        if kind == "failed":
            wire = message["cause"]
            return self._note(node, None if wire is None else cause_from_wire(wire), now)
        if kind == "bye":
            self._left.add(node)
            self._silent.discard(node)
            return self._deserted(now)
        raise ValueError(f"unknown message {kind!r}")

    def lost(self, node: int, now: float) -> list[tuple[int, dict[str, Any]]]:
        """A node's connection is gone; without a goodbye that is a failure of the job."""
        if node in self._left or node in self._lost:
            return []
        self._lost.add(node)
        self._silent.discard(node)
        if self.verdict is not None:
            return []
        host = self.hosts[node]
        message = "the connection to this node's launcher was lost"
        cause = Cause("NodeLost", message, PEER, host=host)
        return self._note(node, cause, now)

    def has_left(self, node: int) -> bool:
        """Whether a node has said goodbye."""
        return node in self._left

    def tick(self, now: float) -> list[tuple[int, dict[str, Any]]]:
        """Handle deadlines that have passed."""
        out: list[tuple[int, dict[str, Any]]] = []
        for name, gather in self._gathers.items():
            if gather.deadline is not None and now >= gather.deadline:
                gather.deadline = None
                missing = [h for i, h in enumerate(self.hosts) if i not in gather.values]
                message = f"{name_some(missing)} did not come to {name!r}"
                out += self._note(-1, Cause("GateTimeout", message, GATE, host=missing[0]), now)
        if self._collect_until is not None and now >= self._collect_until:
            out += self._decide(now)
        return out

    def _gather(self, node: int, message: Message, now: float) -> list[tuple[int, dict[str, Any]]]:
        name = str(message["name"])
        gather = self._gathers.setdefault(name, _Gather())
        gather.values[node] = message["value"]
        timeout = message.get("timeout")
        if timeout is not None and gather.deadline is None:
            gather.deadline = now + float(timeout)
        if len(gather.values) < len(self.hosts):
            return self._deserted(now)
        del self._gathers[name]
        values = [gather.values[i] for i in range(len(self.hosts))]
        return self._to_all({"kind": "gathered", "name": name, "values": values})

    def _deserted(self, now: float) -> list[tuple[int, dict[str, Any]]]:
        """A gather can not be completed once a node has left without giving its value."""
        for gather in self._gathers.values() if self._left else ():
            for node in sorted(self._left.difference(gather.values)):
                message = "this node has left the job early"
                cause = Cause("NodeLeft", message, PEER, host=self.hosts[node], secondary=True)
                return self._note(-1, cause, now)
        return []

    def _note(self, node: int, cause: Cause | None, now: float) -> list[tuple[int, dict[str, Any]]]:
        if self.verdict is not None:
            return [(node, self._end())] if node in self._present else []
        first_report = self._collect_until is None
        if first_report:
            self._collect_until = now + COLLECT_SECONDS
        if cause is not None or node not in self._seen:
            self._seen[node] = (cause, now)
        self._silent.discard(node)
        out = self._to_all({"kind": "collect"}) if first_report else []
        if not self._silent:
            out += self._decide(now)
        return out

    def _decide(self, now: float) -> list[tuple[int, dict[str, Any]]]:
        self._collect_until = None
        reports = [
            replace(cause, age=cause.age + (now - at))
            for cause, at in self._seen.values()
            if cause is not None
        ]
        self.verdict = root_cause(reports)
        return self._to_all(self._end())

    def _end(self) -> dict[str, Any]:
        wire = self.verdict.to_wire() if self.verdict else None
        return {"kind": "end", "cause": wire}

    def _to_all(self, message: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
        return [(node, message) for node in sorted(self._present - self._lost - self._left)]
