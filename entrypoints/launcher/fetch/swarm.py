"""The nodes of a job that fetch one file together: node 0 keeps the schedule, at a gate.

The gate (launcher/peers) proves who belongs to the job and tells when a node is lost. A node says
what it lacks and what has come; node 0 answers with what to take next, and from whom. Where node 0
is gone, each node goes on by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from launcher.causes import LaunchError
from launcher.fetch.schedule import ORIGIN, Assignment, Schedule
from launcher.peers import Gate, GatePlace, GateState
from launcher.stop_request import StopRequest

TOPIC = "fetch"
#: Nodes that have not come after so long are not waited for.
COMING_SECONDS = 60.0

Message = dict[str, Any]


@dataclass(frozen=True)
class Take:
    """Take a piece: from the node at `address`, or, where that is None, from the origin."""

    piece: int
    address: tuple[str, int] | None


class Over:
    """Every node has the file."""


class Lost:
    """Node 0 is gone: whoever is left goes on alone."""


class SwarmState(GateState):
    """Node 0's side: the gate's members and the schedule of their pieces."""

    def __init__(self, hosts: Sequence[str], digest: str, sizes: Sequence[int]) -> None:
        super().__init__(hosts)
        self._digest = digest
        self._pieces = len(sizes)
        self._schedule = Schedule(sizes, len(hosts))
        self._addresses: dict[int, tuple[str, int]] = {}
        self._deadline: float | None = None
        self._patient = True
        self._told_over = False

    def receive(self, node: int, message: Any, now: float) -> list[tuple[int, Message]]:
        """As GateState; ValueError for what no node of ours says."""
        if self._deadline is None and self._patient:
            self._deadline = now + COMING_SECONDS
        kind = message.get("kind")
        if kind == "bye":
            self._schedule.leave(node)
            super().receive(node, message, now)
        elif kind == "relay" and message.get("topic") == TOPIC:
            refusal = self._hear(node, message["data"])
            if refusal:
                return [(node, _relay({"refused": refusal}))]
        else:
            raise ValueError(f"{kind!r} is nothing that a fetching node says")
        return self._orders()

    def _hear(self, node: int, data: Any) -> str:
        """One message of a node; a refusal for what it should know of."""
        what = data["say"]
        if what == "join":
            if data["digest"] != self._digest:
                return "node 0 fetches another file: the origin has changed meanwhile, start again"
            port = data["port"]
            if type(port) is not int or not 0 < port < 1 << 16:
                raise ValueError("no port")
            self._addresses[node] = str(data["host"]), port
            self._schedule.join(
                node, self._numbers(data["missing"]), self._numbers(data["pending"])
            )
        elif what == "settled":
            has, lacks = self._numbers(data["has"]), self._numbers(data["lacks"])
            self._schedule.settle(node, has, lacks)
        elif what == "got":
            self._schedule.got(node, int(data["piece"]), float(data["seconds"]))
        elif what == "failed":
            self._schedule.failed(node, int(data["piece"]))
        else:
            raise ValueError(f"{what!r} is nothing that a fetching node says")
        return ""

    def _numbers(self, bits: Any) -> set[int]:
        return piece_numbers(str(bits), self._pieces)

    def lost(self, node: int, now: float) -> list[tuple[int, Message]]:
        """A node without a goodbye: the others go on without it."""
        del now
        if node not in self._left:
            self._lost.add(node)
        self._schedule.leave(node)
        return self._orders()

    def next_deadline(self) -> float | None:
        """When nodes that have not come are given up."""
        return self._deadline

    def tick(self, now: float) -> list[tuple[int, Message]]:
        """Give them up."""
        if self._deadline is not None and now >= self._deadline:
            self._deadline, self._patient = None, False
        return self._orders()

    def _orders(self) -> list[tuple[int, Message]]:
        orders: dict[int, list[list[Any]]] = {}
        for order in self._schedule.assign():
            orders.setdefault(order.node, []).append(self._row(order))
        out = [(node, _relay({"take": rows})) for node, rows in orders.items()]
        members = self._present - self._left - self._lost
        all_came = len(self._present) == len(self.hosts) or not self._patient
        if (
            not self._told_over
            and all_came
            and members <= set(self._addresses)
            and self._schedule.finished
        ):
            self._told_over = True
            out += [(node, _relay({"over": True})) for node in sorted(members)]
        return out

    def _row(self, order: Assignment) -> list[Any]:
        if order.source == ORIGIN:
            return [order.piece, "", 0]
        host, port = self._addresses[order.source]
        return [order.piece, host, port]


def _relay(data: Message) -> Message:
    return {"kind": "relay", "topic": TOPIC, "data": data}


def piece_bits(numbers: Iterable[int], count: int) -> str:
    """Numbers below `count` as a hexadecimal number with their bits."""
    return f"{sum(1 << number for number in numbers):0{count // 4 + 1}x}"


def piece_numbers(text: str, count: int) -> set[int]:
    """The other end of `piece_bits`; ValueError for what is none."""
    if len(text) != count // 4 + 1:
        raise ValueError("this is of another file")
    bits = int(text, 16)
    if bits >> count:
        raise ValueError("there are no such pieces")
    return {number for number in range(count) if bits >> number & 1}


class Orders(Protocol):
    """Who tells this node what to take. Tidings go to the `tell` that it was made with."""

    def join(self, missing: set[int], pending: set[int], port: int) -> None:
        """Begin: what this node lacks, what it reads of older files, and at which port it gives."""

    def settle(self, has: set[int], lacks: set[int]) -> None:
        """What has come of older files, and what has not."""

    def got(self, piece: int, seconds: float) -> None:
        """A piece is here."""

    def failed(self, piece: int) -> None:
        """It did not come from where it should have."""

    def leave(self) -> None:
        """Say goodbye."""


class LoneOrders:
    """A node that is alone: everything comes from the origin."""

    def __init__(self, sizes: Sequence[int], tell: Callable[[object], None]) -> None:
        self._schedule = Schedule(sizes, 1)
        self._tell = tell
        self._told: set[int] = set()

    def join(self, missing: set[int], pending: set[int], port: int) -> None:
        """As Orders says."""
        del port
        self._schedule.join(0, missing, pending)
        self._go_on()

    def settle(self, has: set[int], lacks: set[int]) -> None:
        """As Orders says."""
        self._schedule.settle(0, has, lacks)
        self._go_on()

    def got(self, piece: int, seconds: float) -> None:
        """As Orders says."""
        # Of a piece that was on its way before this node was alone, nobody here knows.
        if piece in self._told:
            self._told.discard(piece)
            self._schedule.got(0, piece, seconds)
        self._go_on()

    def failed(self, piece: int) -> None:
        """As Orders says: there is no other node, but the origin."""
        self._tell(Take(piece, None))

    def leave(self) -> None:
        """As Orders says."""

    def _go_on(self) -> None:
        for order in self._schedule.assign():
            self._told.add(order.piece)
            self._tell(Take(order.piece, None))
        if self._schedule.finished:
            self._tell(Over())


class SwarmOrders:
    """A node of several. Raises LaunchError where node 0 cannot be met."""

    def __init__(
        self, place: GatePlace, digest: str, sizes: Sequence[int], tell: Callable[[object], None]
    ) -> None:
        self._tell = tell
        self._digest = digest
        self._pieces = len(sizes)
        self._halt = StopRequest()
        self._gate = Gate(place, self._halt, lambda hosts: SwarmState(hosts, digest, sizes))
        self._gate.topics[TOPIC] = self._hear
        self._is_first = place.node == 0
        self._first_host = self._own_host = ""

    def connect(self, patience: float) -> None:
        """Meet node 0."""
        self._gate.connect(patience)
        self._halt.tell(lambda: self._tell(Lost()))
        route = self._gate.route()
        self._first_host = route.master if route else ""
        self._own_host = "" if self._is_first or route is None else route.local

    def join(self, missing: set[int], pending: set[int], port: int) -> None:
        """As Orders says."""
        self._say("join", digest=self._digest, host=self._own_host, port=port,
                  missing=piece_bits(missing, self._pieces),
                  pending=piece_bits(pending, self._pieces))  # fmt: skip

    def settle(self, has: set[int], lacks: set[int]) -> None:
        """As Orders says."""
        self._say(
            "settled", has=piece_bits(has, self._pieces), lacks=piece_bits(lacks, self._pieces)
        )

    def got(self, piece: int, seconds: float) -> None:
        """As Orders says."""
        self._say("got", piece=piece, seconds=round(seconds, 3))

    def failed(self, piece: int) -> None:
        """As Orders says."""
        self._say("failed", piece=piece)

    def leave(self) -> None:
        """As Orders says; node 0 waits until the others have."""
        self._gate.leave()

    def _say(self, what: str, **data: object) -> None:
        self._gate.announce(TOPIC, {"say": what, **data}, node=0)

    def _hear(self, data: Any) -> None:
        """What node 0 says; the gate ends the connection on a ValueError, and we go on alone."""
        if "refused" in data:
            self._tell(LaunchError(str(data["refused"])[:300], kind="FetchError"))
        elif "over" in data:
            self._tell(Over())
        else:
            for piece, host, port in data["take"]:
                if type(piece) is not int or not 0 <= piece < self._pieces:
                    raise ValueError("there is no such piece")
                address = (str(host) or self._first_host, int(port)) if port else None
                self._tell(Take(piece, address))
