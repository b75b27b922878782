"""Who waits for whom, from one row of each rank of the job. Pure.

The odd one out is found by what sets it apart: its process is gone or stopped; it does work of its
own while others wait; it waits in another place than most. Where all wait in one place, the cause
is none of the ranks' Python: the network between two nodes, unlike shapes, or a GPU kernel.

"waiting" is what is seen; it becomes a "hang" only when the odd one itself has shown no progress
for as long as the user has set: a rank that evaluates, compiles or is being debugged is no hang.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from launcher.ranks.watch.call_stack import BACKWARD, COLLECTIVE, DEBUGGER, DEVICE, joined_ranks
from launcher.ranks.watch.collectives import (
    GroupOps,
    OddCollective,
    find_odd_collective,
    groups_from_wire,
)

WAITING, HANG_KIND = "waiting", "hang"
#: Functions that end a process group: who is in one early has left the others' collective out.
_ENDINGS = frozenset({"destroy_process_group", "barrier", "monitored_barrier", "shutdown"})
#: Above this share of memory ZeRO-2 has been seen to hang until NCCL's timeout.
NEARLY_FULL = 0.97
#: A relayed report stays small, whatever the job's size.
TEXT_CHARS = 3000
NAMED_RANKS = 4


@dataclass(frozen=True)
class RankRow:
    """What a node tells of one rank (RankTracker.row), with its host."""

    rank: int
    host: str
    kind: str
    call: str
    where: str
    code: str
    seconds: float
    idle: float
    doing: str
    after: str = ""
    network: str = ""
    memory: tuple[int, int] | None = None
    busy: int = -1
    groups: Mapping[str, GroupOps] = field(default_factory=dict)

    @property
    def waits(self) -> bool:
        """Whether it may be waiting for others."""
        return self.kind in (COLLECTIVE, DEVICE, BACKWARD)

    @property
    def place(self) -> str:
        """``all_reduce at train.py:41 in step``."""
        if self.kind == COLLECTIVE:
            return f"{self.call} at {self.where}"
        if self.kind in (DEVICE, BACKWARD):
            after = f" after {self.after}" if self.after else ""
            return f"{self.call}{after} at {self.where}"
        return f"at {self.where}" if self.where else "at an unknown line"


def row_from_wire(data: Mapping[str, Any]) -> RankRow:
    """The other end of RankTracker.row; ValueError for anything else."""
    try:
        memory = data.get("memory")
        return RankRow(
            rank=int(data["rank"]),
            host=str(data["host"])[:255],
            kind=str(data["kind"])[:20],
            call=str(data["call"])[:60],
            where=str(data["where"])[:160],
            code=str(data["code"])[:120],
            seconds=float(data["seconds"]),
            idle=float(data["idle"]),
            doing=str(data["doing"])[:160],
            after=str(data.get("after", ""))[:120],
            network=str(data.get("network", ""))[:160],
            memory=(int(memory[0]), int(memory[1])) if memory else None,
            busy=int(data.get("busy", -1)),
            groups=groups_from_wire(data.get("groups", {})),
        )
    except (KeyError, TypeError, IndexError, OverflowError) as error:
        raise ValueError(f"not a rank's row: {error!r}") from error


@dataclass(frozen=True)
class StallReport:
    """What is said of a stall. `ranks` are the odd ones; empty where none is."""

    kind: str
    ranks: tuple[int, ...]
    host: str
    text: str
    #: Seconds until the odd one counts as hung, should it show no progress; None for never.
    left: float | None = None

    @property
    def identity(self) -> tuple[object, ...]:
        """Two reports of the same stall are alike in this."""
        return (self.kind, self.ranks)


def judge_stall(rows: Sequence[RankRow], *, after: float, hang: float) -> StallReport | None:
    """The report; None where nothing stands still for `after` seconds.

    `hang` is how long the odd one has to be without progress to be called hung; 0: never.
    """
    still = [row for row in rows if row.seconds >= after]
    waiting = [row for row in still if row.waits]
    unlike = find_odd_collective({row.rank: row.groups for row in rows if row.groups})
    odd, why = _odd_ones(rows, waiting, unlike)
    if not waiting:
        # Nobody waits for anybody: only if none has made any progress is that worth a word.
        frozen = [
            row for row in rows if min(row.idle, row.seconds) >= after and row.kind != DEBUGGER
        ]
        if not rows or len(frozen) < len(rows):
            return None
        odd, why = frozen, "no rank makes progress"
    suspects = odd or waiting
    idle = min(row.idle for row in suspects)
    held = any(row.kind == DEBUGGER for row in suspects)
    hung = bool(hang) and not held and idle >= hang
    parts = [_headline(waiting, odd, why), *_describe(rows, waiting, odd, unlike)]
    if hung:
        parts.append(f"no progress for {idle:.0f} s")
    parts += _describe_surroundings(rows)
    text = "; ".join(parts)
    return StallReport(
        kind=HANG_KIND if hung else WAITING,
        ranks=tuple(row.rank for row in odd),
        host=odd[0].host if odd else "",
        text=text[:TEXT_CHARS],
        left=None if not hang or held else max(0.0, hang - idle),
    )


def _odd_ones(
    rows: Sequence[RankRow], waiting: Sequence[RankRow], unlike: OddCollective | None
) -> tuple[list[RankRow], str]:
    if not waiting:
        return [], ""
    for kinds, why in (
        ({"gone"}, "which has ended"),
        ({"stopped"}, "which is stopped"),
        ({DEBUGGER}, "which is in a debugger"),
    ):
        odd = [row for row in rows if row.kind in kinds]
        if odd:
            return odd, why
    odd = [row for row in rows if not row.waits]
    if odd:
        return odd, "which has not come to it"
    if unlike is not None:
        return [row for row in rows if row.rank in unlike.ranks], unlike.why
    early = [row for row in rows if row.call in _ENDINGS and row.kind == COLLECTIVE]
    if 0 < len(early) <= len(rows) / 2:
        return early, "which is in another call"
    moving = [row for row in rows if row not in waiting]
    groups = Counter((row.call, row.where) for row in rows if row.kind == COLLECTIVE)
    if len(groups) > 1:
        return _other_group(rows, groups), "which is in another call"
    loose = [row for row in rows if row.kind != COLLECTIVE]
    if groups and 0 < len(loose) < len(rows) and not moving:
        odd = min(loose, [row for row in rows if row.kind == COLLECTIVE], key=len)
        return list(odd), "which is in another call"
    broken = [row for row in rows if row.network]
    if broken:
        return broken, "whose network connection is broken"
    return [], ""


def _other_group(rows: Sequence[RankRow], groups: Counter[tuple[str, str]]) -> list[RankRow]:
    """Those who are not where most are; of two equal halves nobody knows who is right."""
    (first, most), *others = groups.most_common()
    if others[0][1] == most:
        return [row for row in rows if row.kind == COLLECTIVE]
    return [row for row in rows if row.kind == COLLECTIVE and (row.call, row.where) != first]


def _describe(
    rows: Sequence[RankRow],
    waiting: Sequence[RankRow],
    odd: Sequence[RankRow],
    unlike: OddCollective | None,
) -> list[str]:
    """The odd ranks, and what is known of the collective."""
    parts = [_rank_text(row) for row in odd[:NAMED_RANKS]]
    if len(odd) > NAMED_RANKS:
        parts.append(f"and {len(odd) - NAMED_RANKS} more ranks")
    if waiting and not odd:
        parts.append(
            "all are in the same call: unlike shapes or dtypes, the network between nodes, or a "
            "GPU kernel that does not end"
        )
        parts += _gpu_hint(rows)
    if unlike is not None and {row.rank for row in odd} == set(unlike.ranks):
        parts += unlike.details
    return parts


def _describe_surroundings(rows: Sequence[RankRow]) -> list[str]:
    broken = [f"rank {row.rank} [host {row.host}]: {row.network}" for row in rows if row.network]
    memory = describe_memory(rows)
    return [*broken[:NAMED_RANKS], *([memory] if memory else [])]


def _headline(waiting: Sequence[RankRow], odd: Sequence[RankRow], why: str) -> str:
    away = {row.rank for row in odd}
    others = [row for row in waiting if row.rank not in away]
    named = f"rank{'s' if len(odd) > 1 else ''} {joined_ranks([row.rank for row in odd])}"
    if not others:
        if not waiting:
            return f"{why}: {named}"
        if odd:
            return f"ranks wait for each other in different calls: {named}"
        others = list(waiting)
    longest = max(others, key=lambda row: row.seconds)
    ranks = joined_ranks([row.rank for row in others])
    verb = "ranks {} wait" if len(others) > 1 else "rank {} waits"
    text = f"{verb.format(ranks)} for {longest.seconds:.0f} s in {longest.place}"
    if longest.code:
        text += f" `{longest.code}`"
    return f"{text}, for {named} {why}" if odd else text


def _rank_text(row: RankRow) -> str:
    place = row.place if row.kind != "gone" or row.where else ""
    code = f" `{row.code}`" if row.code and place else ""
    last = "last seen " if row.kind in ("gone", "silent", "stopped") and place else ""
    words = [f"rank {row.rank} [host {row.host}] is {last}{place}{code}".rstrip()]
    if row.kind == "gone" and not place:
        words = [f"rank {row.rank} [host {row.host}]"]
    words.append(row.doing)
    words.append(f"for {row.seconds:.0f} s")
    return ", ".join(words)


def _gpu_hint(rows: Sequence[RankRow]) -> list[str]:
    seen = [row for row in rows if row.busy >= 0]
    if not seen:
        return []
    return ["GPUs busy: " + ", ".join(f"rank {row.rank} {row.busy} %" for row in seen[:8])]


def describe_memory(rows: Sequence[RankRow]) -> str:
    """What the GPUs have left; ZeRO-2 with full memory is known to hang."""
    known = [(row.rank, *row.memory) for row in rows if row.memory]
    if not known:
        return ""
    least = min(known, key=lambda item: item[2] - item[1])
    text = (
        f"GPU memory left: {_gib(least[2] - least[1])} GiB of {_gib(least[2])} on rank {least[0]}"
    )
    if len(known) > 1:
        text += f" (the least), up to {_gib(max(total - used for _, used, total in known))} GiB"
    if any(used > NEARLY_FULL * total for _, used, total in known):
        text += "; memory is nearly full, where ZeRO-2 is known to hang: try ZeRO-3"
    return text


def _gib(mib: int) -> str:
    return f"{mib / 1024:.1f}"


@dataclass(frozen=True)
class RankPace:
    """Some windows of the straggler watch for one rank.

    `samples` are all samples, `waits` the lengths of its waits: samples in a row in which it was
    seen waiting for others. A wait that goes on counts when it has ended.
    """

    rank: int
    host: str
    samples: int
    waits: tuple[int, ...]
    work: str
    starved: bool

    def is_pause(self, wait: int) -> bool:
        """Whether a wait is out of the usual: another rank evaluates, or writes a checkpoint."""
        usual = sorted(self.waits)[len(self.waits) // 2] if self.waits else 0
        return wait >= max(PAUSE_SAMPLES, PAUSE * usual)

    def joined(self, later: RankPace) -> RankPace:
        """This and what has been seen of the rank since."""
        waits = (*self.waits, *later.waits)
        return replace(later, samples=self.samples + later.samples, waits=waits)


#: A rank that is a fifth slower than the others keeps them waiting for a sixth of the time.
SLOWER_SHARE = 0.2 / 1.2
#: What chance may hide of that.
SLACK_SHARE = 0.03
#: A difference counts when chance alone makes one as large less than once in a million times.
SURE = 5.0
MIN_SAMPLES, MIN_WAITS = 120, 10
#: A wait of so many samples, and so many times the usual length, is a pause.
PAUSE_SAMPLES, PAUSE = 15, 6
#: Waits that are seen in several samples each say less than as many samples taken apart.
SAMPLES_A_WAIT = 6


@dataclass(frozen=True)
class LostShare:
    """Of the time, the share for which others wait for a rank; `sure` if that is not by chance."""

    pace: RankPace
    share: float
    sure: bool


def find_lost_shares(paces: Sequence[RankPace]) -> list[LostShare]:
    """For each rank, how much less it waits than the median of the others; [] for too few samples.

    Nothing is sure where fewer than MIN_WAITS waits of the median rank have been seen.
    """
    lengths = [pace.samples for pace in paces]
    if len(paces) < 2 or min(lengths) < MIN_SAMPLES:
        return []
    shares = [min(1.0, sum(pace.waits) / pace.samples) for pace in paces]
    found = []
    for number, (pace, own) in enumerate(zip(paces, shares)):
        others = sorted(
            (share, len(paces[other].waits))
            for other, share in enumerate(shares)
            if other != number
        )
        median, waits = others[len(others) // 2]
        lost = median - own
        weight = min(lengths[number], SAMPLES_A_WAIT * max(waits, 1))
        chance = math.sqrt((median * (1 - median) + own * (1 - own)) / weight)
        sure = waits >= MIN_WAITS and lost >= max(SLOWER_SHARE - SLACK_SHARE, SURE * chance)
        found.append(LostShare(pace, lost, sure))
    return found


def describe_straggler(lost: LostShare) -> str:
    """``rank 3 [host b] is slower: others wait for it 23 % of the time``."""
    pace = lost.pace
    text = (
        f"rank {pace.rank} [host {pace.host}] is slower than the others, which wait for it "
        f"{lost.share:.0%} of the time"
    )
    if pace.work:
        text += f"; it is mostly at {pace.work}"
    if pace.starved:
        text += "; it is starved of CPU (ready to run, but without a core)"
    return text
