"""Which node gets which piece next, and from whom. Pure: no sockets, no clock.

A piece that no node has is fetched from the origin by one of them; one that some have goes from
node to node, the rarest first, so that soon every node has something that others lack. Where links
are what takes the time, a node gives to one and takes from one at a time: shared by several, all of
them would wait longer for a piece that they can pass on. Where pieces come quickly, several at a
time hide the time between two of them.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

#: In place of a node's number: from the origin.
ORIGIN = -1
#: Of pieces between nodes: to a node, and from one, where they take long, and where they do not.
NARROW, WIDE = (1, 1), (4, 2)
#: From the origin, all nodes together: at first and at least, and at most.
ORIGIN_TAKES, MOST_ORIGIN_TAKES = 2, 64
#: One more where a piece takes less than so many seconds, one less where it takes more.
ORIGIN_QUICK, ORIGIN_SLOW = 1.0, 2.0
#: The same for pieces between nodes.
QUICK, SLOW = 0.25, 0.5
#: Bytes of a piece that tells something of a link.
TELLING_BYTES = 1 << 20
#: A node that is alone waits for nobody's bandwidth but its own.
ALONE_TAKES = 8
#: Nodes, givers and pieces that are looked at for one decision, however many there are.
LOOKED_AT = 16
#: A node that has given so many damaged pieces, or none at all so often, is asked no more.
STRIKES = 2


@dataclass(frozen=True)
class Assignment:
    """A node is to take a piece from a node, or from the ORIGIN."""

    node: int
    piece: int
    source: int


@dataclass
class _Node:
    """Pieces are bits: thousands of them are compared in one step."""

    missing: int
    has: int
    pending: int = 0  # may be in an older file of the node, which is being read
    taking: dict[int, int] = field(default_factory=dict)  # piece -> source
    taking_bits: int = 0
    giving: int = 0
    at_origin: int = 0  # of `taking`
    strikes: int = 0


class Schedule:
    """So many nodes of a job that fetch one file, whose pieces have these sizes."""

    def __init__(self, sizes: Sequence[int], nodes: int) -> None:
        self._sizes = sizes
        self._expected = nodes
        pieces = self._pieces = len(sizes)
        self._counts = [0] * pieces  # of nodes that have each
        self._nobody = (1 << pieces) - 1  # has these
        self._pending_counts = [0] * pieces
        self._pending = 0  # at any node: soon one has them, and nobody asks the origin
        self._nodes: dict[int, _Node] = {}
        self._waiting: OrderedDict[int, None] = OrderedDict()  # nodes that can take one more
        self._running = 0
        self._givers: OrderedDict[int, None] = OrderedDict()  # nodes that can give one more
        self._at_origin = 0
        self._origin_count = 0
        self._takes, self._gives = NARROW
        self._origin_takes = ALONE_TAKES if nodes == 1 else ORIGIN_TAKES
        self._random = random.Random(0)  # noqa: S311 - to spread load, the same in every run

    @property
    def _origin_share(self) -> int:
        """Of a node: what is fetched by several can be given by several."""
        return -(-self._origin_takes // self._expected)

    @property
    def finished(self) -> bool:
        """Whether every node has everything."""
        return not any(node.missing or node.pending for node in self._nodes.values())

    def join(self, node: int, missing: Iterable[int], pending: Iterable[int] = ()) -> None:
        """A node, what it lacks, and what it will `settle`; ValueError for no such pieces."""
        lacks, later = self._bits_of(missing), self._bits_of(pending)
        if lacks & later:
            raise ValueError("a piece is missing, or it may be there")
        self.leave(node)
        member = self._nodes[node] = _Node(lacks, 0)
        self._list_taker(node, member)
        self._wait_for(member, later, 1)
        for piece in range(self._pieces):
            if not (lacks | later) >> piece & 1:
                self._gain(node, member, piece)

    def settle(self, node: int, has: Iterable[int], lacks: Iterable[int]) -> None:
        """What a node has of its pending pieces, and what it lacks; ValueError for others."""
        member = self._nodes[node]
        there, missing = self._bits_of(has), self._bits_of(lacks)
        if (there | missing) & ~member.pending or there & missing:
            raise ValueError("it was not to settle this piece")
        self._wait_for(member, there | missing, -1)
        member.missing |= missing
        self._list_taker(node, member)
        for piece in _bits(there):
            self._gain(node, member, piece)

    def _wait_for(self, member: _Node, bits: int, change: int) -> None:
        member.pending ^= bits
        for piece in _bits(bits):
            self._pending_counts[piece] += change
            if self._pending_counts[piece]:
                self._pending |= 1 << piece
            else:
                self._pending &= ~(1 << piece)

    def _bits_of(self, pieces: Iterable[int]) -> int:
        bits = 0
        for piece in pieces:
            if not 0 <= piece < self._pieces:
                raise ValueError("there is no such piece")
            bits |= 1 << piece
        return bits

    def leave(self, node: int) -> None:
        """A node is gone: nobody waits for what it was taking."""
        gone = self._nodes.get(node)
        if gone is None:
            return
        for piece in list(gone.taking):
            self._taken(node, gone, piece)
        self._lose(node, gone, gone.has)
        self._wait_for(gone, gone.pending, -1)
        del self._nodes[node]
        self._waiting.pop(node, None)

    def got(self, node: int, piece: int, seconds: float) -> None:
        """A node has a piece now; ValueError where it was not told to take it."""
        member = self._nodes[node]
        source = self._taken(node, member, piece)
        member.missing &= ~(1 << piece)
        self._list_taker(node, member)
        self._gain(node, member, piece)
        if self._sizes[piece] >= TELLING_BYTES and self._expected > 1:
            self._adapt(source, seconds)

    def _adapt(self, source: int, seconds: float) -> None:
        """How many at a time, by how long one took."""
        before = self._takes, self._origin_takes
        if source == ORIGIN:
            if seconds < ORIGIN_QUICK:
                self._origin_takes = min(MOST_ORIGIN_TAKES, self._origin_takes + 1)
            elif seconds > ORIGIN_SLOW:
                self._origin_takes = max(ORIGIN_TAKES, self._origin_takes - 1)
        elif seconds < QUICK:
            self._takes, self._gives = WIDE
        elif seconds > SLOW:
            self._takes, self._gives = NARROW
        if (self._takes, self._origin_takes) != before:
            for node, member in self._nodes.items():
                self._list_taker(node, member)
                self._list_giver(node, member)

    def failed(self, node: int, piece: int) -> None:
        """A node did not get a piece from where it was told to: that source counts as worse."""
        source = self._taken(node, self._nodes[node], piece)
        giver = self._nodes.get(source)
        if giver is None:
            return
        giver.strikes += 1
        self._lose(source, giver, giver.has if giver.strikes >= STRIKES else 1 << piece)

    def _gain(self, node: int, member: _Node, piece: int) -> None:
        if member.strikes >= STRIKES:
            return  # it is asked for nothing: to the others nobody has the piece yet
        member.has |= 1 << piece
        self._counts[piece] += 1
        self._nobody &= ~(1 << piece)
        self._list_giver(node, member)

    def _lose(self, node: int, member: _Node, bits: int) -> None:
        """What a node cannot give, whether or not it has it."""
        bits &= member.has
        member.has &= ~bits
        for piece in _bits(bits):
            self._counts[piece] -= 1
            if not self._counts[piece]:
                self._nobody |= 1 << piece
        self._list_giver(node, member)

    def _list_giver(self, node: int, member: _Node) -> None:
        if member.has and member.giving < self._gives and member.strikes < STRIKES:
            self._givers.setdefault(node)
        else:
            self._givers.pop(node, None)

    def _list_taker(self, node: int, member: _Node) -> None:
        peers = len(member.taking) - member.at_origin
        if member.missing & ~member.taking_bits and (
            peers < self._takes or member.at_origin < self._origin_share
        ):
            self._waiting.setdefault(node)
        else:
            self._waiting.pop(node, None)

    def _taken(self, node: int, member: _Node, piece: int) -> int:
        if piece not in member.taking:
            raise ValueError("it was not told to take this piece")
        source = member.taking.pop(piece)
        member.taking_bits &= ~(1 << piece)
        self._running -= 1
        member.at_origin -= source == ORIGIN
        self._list_taker(node, member)
        if source == ORIGIN:
            self._at_origin &= ~(1 << piece)
            self._origin_count -= 1
        elif source in self._nodes:
            giver = self._nodes[source]
            giver.giving -= 1
            self._list_giver(source, giver)
        return source

    def assign(self) -> list[Assignment]:
        """What is to be taken now."""
        out: list[Assignment] = []
        while round_of_nodes := self._round():
            out += round_of_nodes
        return out

    def _round(self) -> list[Assignment]:
        """One piece at most for each node, so that those asked first do not take all."""
        out: list[Assignment] = []
        # Where nothing is on its way, nothing that ends would have the others looked at.
        looks = LOOKED_AT if self._running else len(self._waiting)
        for number in list(islice(self._waiting, looks)):
            if not self._givers and self._origin_count >= self._origin_takes:
                break
            self._waiting.move_to_end(number)
            member = self._nodes[number]
            assignment = self._next(number, member)
            if assignment is not None:
                member.taking[assignment.piece] = assignment.source
                member.taking_bits |= 1 << assignment.piece
                self._running += 1
                out.append(assignment)
                self._list_taker(number, member)
        return out

    def _next(self, number: int, member: _Node) -> Assignment | None:
        wanted = member.missing & ~member.taking_bits
        fresh = wanted & self._nobody & ~self._at_origin & ~self._pending
        if (
            fresh
            and self._origin_count < self._origin_takes
            and member.at_origin < self._origin_share
        ):
            piece = self._choose(fresh)
            self._at_origin |= 1 << piece
            self._origin_count += 1
            member.at_origin += 1
            return Assignment(number, piece, ORIGIN)
        if len(member.taking) - member.at_origin >= self._takes:
            return None
        for giver in list(islice(self._givers, LOOKED_AT)):
            self._givers.move_to_end(giver)
            source = self._nodes[giver]
            if giver != number and wanted & source.has:
                source.giving += 1
                self._list_giver(giver, source)
                return Assignment(number, self._choose(wanted & source.has), giver)
        return None

    def _choose(self, bits: int) -> int:
        """The rarest of some of the pieces."""
        shift = self._random.randrange(self._pieces)
        some = list(islice(_bits(bits >> shift << shift or bits), LOOKED_AT))
        return min(some, key=self._counts.__getitem__)


def _bits(bits: int) -> Iterator[int]:
    """The numbers of the bits that are set."""
    while bits:
        lowest = bits & -bits
        bits ^= lowest
        yield lowest.bit_length() - 1
