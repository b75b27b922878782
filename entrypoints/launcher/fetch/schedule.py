"""Which node gets which piece next, and from whom. Pure: no sockets, no clock.

A piece that no node has is fetched from the origin by one of them; one that some have goes from
node to node, the rarest first, so that soon every node has something that others lack. Each node
gives to two at a time: with more, all of them would wait longer for a piece that they can pass on.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

#: In place of a node's number: from the origin.
ORIGIN = -1
#: Pieces on their way to a node at a time, and from a node.
TAKES, GIVES = 4, 2
#: From the origin: at first, and at most. One more as long as a piece takes less than QUICK
#: seconds, one less where it takes more than SLOW.
ORIGIN_TAKES, MOST_ORIGIN_TAKES = 4, 64
QUICK_SECONDS, SLOW_SECONDS = 0.5, 2.0
#: A node that is alone waits for nobody's bandwidth but its own.
ALONE_TAKES = 8
#: Pieces, and nodes, that are looked at for one decision, however many there are.
LOOKED_AT = 64
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
    missing: set[int]
    taking: dict[int, int] = field(default_factory=dict)  # piece -> source


class Schedule:
    """The nodes of a job that fetch one file."""

    def __init__(self, pieces: int, *, alone: bool = False) -> None:
        self._holders: list[set[int]] = [set() for _ in range(pieces)]
        self._nodes: dict[int, _Node] = {}
        self._waiting: OrderedDict[int, None] = OrderedDict()  # nodes with something to take
        self._giving: Counter[int] = Counter()
        self._strikes: Counter[int] = Counter()
        self._at_origin: set[int] = set()
        self._takes = ALONE_TAKES if alone else TAKES
        self._origin_takes = ALONE_TAKES if alone else ORIGIN_TAKES
        self._random = random.Random(0)  # noqa: S311 - to spread load, the same in every run

    @property
    def finished(self) -> bool:
        """Whether every node has everything."""
        return not any(node.missing for node in self._nodes.values())

    def join(self, node: int, missing: Iterable[int]) -> None:
        """A node, and what it lacks; ValueError for pieces that do not exist."""
        lacks = set(missing)
        if any(not 0 <= piece < len(self._holders) for piece in lacks):
            raise ValueError("there is no such piece")
        self.leave(node)
        self._nodes[node] = _Node(lacks)
        self._waiting[node] = None
        for piece, holders in enumerate(self._holders):
            if piece not in lacks:
                holders.add(node)

    def leave(self, node: int) -> None:
        """A node is gone: nobody waits for what it was taking."""
        gone = self._nodes.pop(node, None)
        self._waiting.pop(node, None)
        if gone is None:
            return
        for piece, source in gone.taking.items():
            self._release(piece, source)
        for holders in self._holders:
            holders.discard(node)

    def got(self, node: int, piece: int, seconds: float) -> None:
        """A node has a piece now; ValueError where it was not told to take it."""
        member = self._nodes[node]
        source = self._taken(member, piece)
        member.missing.discard(piece)
        self._holders[piece].add(node)
        if source == ORIGIN:
            if seconds < QUICK_SECONDS:
                self._origin_takes = min(MOST_ORIGIN_TAKES, self._origin_takes + 1)
            elif seconds > SLOW_SECONDS:
                self._origin_takes = max(ORIGIN_TAKES, self._origin_takes - 1)

    def failed(self, node: int, piece: int) -> None:
        """A node did not get a piece from where it was told to: that source counts as worse."""
        source = self._taken(self._nodes[node], piece)
        if source == ORIGIN:
            return
        self._holders[piece].discard(source)
        self._strikes[source] += 1
        if self._strikes[source] >= STRIKES:
            for holders in self._holders:
                holders.discard(source)

    def _taken(self, member: _Node, piece: int) -> int:
        if piece not in member.taking:
            raise ValueError("it was not told to take this piece")
        source = member.taking.pop(piece)
        self._release(piece, source)
        return source

    def _release(self, piece: int, source: int) -> None:
        if source == ORIGIN:
            self._at_origin.discard(piece)
        else:
            self._giving[source] -= 1

    def assign(self) -> list[Assignment]:
        """What is to be taken now."""
        out: list[Assignment] = []
        while round_of_nodes := self._round():
            out += round_of_nodes
        return out

    def _round(self) -> list[Assignment]:
        """One piece at most for each node, so that those asked first do not take all."""
        out: list[Assignment] = []
        idle = not any(node.taking for node in self._nodes.values())
        looks = len(self._waiting) if idle else min(len(self._waiting), LOOKED_AT)
        for number in list(self._waiting)[:looks]:
            self._waiting.move_to_end(number)
            member = self._nodes[number]
            assignment = self._next(number, member)
            if assignment is not None:
                member.taking[assignment.piece] = assignment.source
                out.append(assignment)
            if not member.missing:
                del self._waiting[number]
        return out

    def _next(self, number: int, member: _Node) -> Assignment | None:
        if len(member.taking) >= self._takes:
            return None
        candidates = [piece for piece in member.missing if piece not in member.taking]
        if len(candidates) > LOOKED_AT:
            candidates = self._random.sample(candidates, LOOKED_AT)
        else:
            self._random.shuffle(candidates)
        candidates.sort(key=lambda piece: len(self._holders[piece]))
        for piece in candidates:
            if not self._holders[piece]:
                if piece in self._at_origin or len(self._at_origin) >= self._origin_takes:
                    continue
                self._at_origin.add(piece)
                return Assignment(number, piece, ORIGIN)
            source = self._giver(piece)
            if source is not None:
                self._giving[source] += 1
                return Assignment(number, piece, source)
        return None

    def _giver(self, piece: int) -> int | None:
        holders = list(self._holders[piece])
        if len(holders) > LOOKED_AT:
            holders = self._random.sample(holders, LOOKED_AT)
        free = [holder for holder in holders if self._giving[holder] < GIVES]
        if not free:
            return None
        least = min(self._giving[holder] for holder in free)
        return self._random.choice([h for h in free if self._giving[h] == least])
