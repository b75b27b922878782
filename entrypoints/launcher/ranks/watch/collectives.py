"""Which collective each rank has issued, and whose is another one. Pure.

On GPUs a collective returns at once and ranks wait later, all at the same line: their stacks are
alike. What each process group of a rank has issued (user_python/site/rank_answers.py) tells them
apart: who has not come to a collective, whose operation or sizes differ, and whose GPU has not
begun with it, because something before it does not end.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PENDING, STARTED, DONE = "scheduled", "started", "done"
#: A relayed row stays small.
MOST_GROUPS, MOST_OPS, NAME_CHARS = 12, 24, 80
#: Of these all ranks' sizes have to be the same; of others they may differ from rank to rank.
_EQUAL = ("reduce", "broadcast", "_base")
#: Of these they have to be the same as a rule; what went through did well.
_MOSTLY_EQUAL = ("all_gather", "allgather")
#: Who has issued one of these where others have not is ahead of its time.
_BARRIER = "barrier"


@dataclass(frozen=True)
class CollectiveOp:
    """One collective of a process group, by its number in that group."""

    number: int
    name: str
    sizes: str
    state: str

    def kind(self, *, went_through: bool) -> tuple[str, str]:
        """What has to be the same on all ranks."""
        equal = _EQUAL if went_through else (*_EQUAL, *_MOSTLY_EQUAL)
        return (self.name, self.sizes if any(word in self.name for word in equal) else "")

    def text(self) -> str:
        """``all_reduce of 65536 Float``."""
        return f"{self.name} of {self.sizes}" if self.sizes else self.name


@dataclass(frozen=True)
class GroupOps:
    """What one rank has issued in one process group: its last number, and those around the first
    that is not complete."""

    name: str
    last: int
    ops: Mapping[int, CollectiveOp]

    @property
    def pending(self) -> CollectiveOp | None:
        """The first that is not complete."""
        waited = [op for op in self.ops.values() if op.state != DONE]
        return min(waited, key=lambda op: op.number) if waited else None


def groups_from_wire(data: object) -> dict[str, GroupOps]:
    """What a rank's own process says, or another node of it; ValueError for anything else."""
    if not isinstance(data, Mapping):
        raise ValueError("not a rank's process groups")
    found = {}
    try:
        for name, one in list(data.items())[:MOST_GROUPS]:
            ops = [_op_from_wire(row) for row in one["ops"][:MOST_OPS]]
            found[str(name)[:NAME_CHARS]] = GroupOps(
                name=str(name)[:NAME_CHARS],
                last=int(one["last"]),
                ops={op.number: op for op in ops},
            )
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a rank's process groups: {error!r}") from error
    return found


def _op_from_wire(row: Sequence[Any]) -> CollectiveOp:
    number, name, sizes, state = row
    if state not in (PENDING, STARTED, DONE):
        raise ValueError(f"not the state of a collective: {state!r}")
    return CollectiveOp(int(number), str(name)[:NAME_CHARS], str(sizes)[:NAME_CHARS], state)


def parse_answer(text: str) -> tuple[dict[str, Any], str]:
    """(process groups for the wire, why there are none) of the text that a rank has written."""
    try:
        data = json.loads(text)
        groups = data.get("groups", {})
        groups_from_wire(groups)
    except (ValueError, AttributeError):
        return {}, ""  # not whole: it gave no answer in time
    return groups, str(data.get("error", ""))[:160]


@dataclass(frozen=True)
class OddCollective:
    """Who is set apart by its collectives, why, and what belongs to it in words."""

    ranks: tuple[int, ...]
    why: str
    details: tuple[str, ...] = ()


def find_odd_collective(groups: Mapping[int, Mapping[str, GroupOps]]) -> OddCollective | None:
    """The first of these that some process group shows, by rank; None where all are alike.

    A difference of operations comes first, then ranks that have not issued what others wait for,
    then GPUs that have not begun with what others have.
    """
    names = sorted({name for one in groups.values() for name in one})
    waiting = {rank for rank, one in groups.items() if any(g.pending for g in one.values())}
    for find in (_find_unlike, _find_behind, _find_not_begun):
        found = []
        for name in names:
            mine = {rank: one[name] for rank, one in groups.items() if name in one}
            if len(mine) > 1 and any(one.pending for one in mine.values()):
                odd = find(mine)
                found += [odd] if odd is not None else []
        # Who is behind in one group may wait in another: the cause is who waits in none.
        roots = [odd for odd in found if not waiting.intersection(odd.ranks)]
        if found:
            return (roots or found)[0]
    return None


def _find_unlike(group: Mapping[int, GroupOps]) -> OddCollective | None:
    """The first number at which ranks have issued different things."""
    numbers = sorted({number for one in group.values() for number in one.ops})
    for number in numbers:
        ops = {rank: one.ops[number] for rank, one in group.items() if number in one.ops}
        through = all(op.state == DONE for op in ops.values())
        kinds = {rank: op.kind(went_through=through) for rank, op in ops.items()}
        (usual, most), *others = Counter(kinds.values()).most_common()
        if not others:
            continue
        odd = {rank: op for rank, op in ops.items() if kinds[rank] != usual}
        if others[0][1] == most:
            # Two halves: a barrier is what a rank comes to too early; else nobody knows.
            early = {rank: op for rank, op in ops.items() if _BARRIER in op.name}
            odd = early if 0 < len(early) < len(ops) else ops
        rest = [rank for rank in ops if rank not in odd]
        shown = [*list(odd)[:3], *rest[:1]]
        details = tuple(f"rank {rank}: {ops[rank].text()}" for rank in shown)
        why = f"which issued another collective than others as number {number}"
        return OddCollective(tuple(sorted(odd)), why, details)
    return None


def _find_behind(group: Mapping[int, GroupOps]) -> OddCollective | None:
    waited = [op for one in group.values() if (op := one.pending)]
    first = min(waited, key=lambda op: op.number)
    behind = sorted(rank for rank, one in group.items() if one.last < first.number)
    if not behind or len(behind) == len(group):
        return None
    why = f"which has not issued collective number {first.number}"
    return OddCollective(tuple(behind), why, (f"others wait in {first.text()}",))


def _find_not_begun(group: Mapping[int, GroupOps]) -> OddCollective | None:
    """Needs the start events of TORCH_NCCL_ENABLE_TIMING."""
    waited = {rank: op for rank, one in group.items() if (op := one.pending)}
    first = min(op.number for op in waited.values())
    states = {rank: op for rank, op in waited.items() if op.number == first}
    idle = sorted(rank for rank, op in states.items() if op.state == PENDING)
    if not idle or len(idle) == len(states) or any(op.state == DONE for op in states.values()):
        return None
    why = "whose GPU has not begun with it: something before it does not end (a kernel)"
    return OddCollective(
        tuple(idle), why, (f"collective number {first}: {states[idle[0]].text()}",)
    )
