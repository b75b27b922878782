"""Node 0's part of the watch: asks all nodes for their rows, judges them together, tells all."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.peers import Peers
from launcher.ranks.rank_commands import RankLayout
from launcher.ranks.watch import stall
from launcher.ranks.watch.stall import HANG_KIND, RankPace, RankRow, StallReport

#: How long node 0 waits for the rows of nodes that do not answer.
ANSWER_SECONDS = 3.0
#: Rounds grow rarer up to this.
REST_SECONDS = 600.0
#: Of the straggler watch: how much of a window is looked at, and over how many windows.
WINDOW_WAITS = 600
LOOKS = (2, 4, 8, 16, 32)
#: Who has been named is named again when others wait for it this much more or less of the time.
CHANGED_SHARE = 0.2
#: A rank is as fast as the others again when they wait for it less than this.
AGAIN_SHARE = stall.SLOWER_SHARE / 2


@dataclass(frozen=True)
class WatchOptions:
    """What the user has set, and where this node's files are.

    `after` seconds of waiting are reported; `hang` seconds without progress of the one that is
    waited for are a hang, which ends the job where `stop` is set.
    """

    after: float
    hang: float
    stop: bool
    stack_dir: Path
    report_dir: Path
    gpus: bool = False

    def interval(self, ranks: int) -> float:
        """Between two samples: rarer the more ranks there are, often enough for `after`."""
        return max(0.05, min(0.1 + 0.05 * ranks, 0.5, self.after / 20))


class RoundJudge:
    """Node 0's part: asks all nodes, judges, tells all."""

    def __init__(self, layout: RankLayout, peers: Peers, options: WatchOptions) -> None:
        self._layout = layout
        self._peers = peers
        self._options = options
        self._stalled: set[int] = set()
        self._round = 0
        self._open = False
        self._until = 0.0
        self._rows: dict[int, list[RankRow]] = {}
        self._next = 0.0
        self._rest = options.after
        self._last: StallReport | None = None
        self._pace = PaceJudge(layout, peers)

    def receive(self, topic: str, data: Any, now: float) -> bool:
        """One message; True when the job moves again after a report."""
        if topic == "stall-seen":
            self._stalled.add(int(data["node"]))
            if not self._open and now >= self._next:
                self._ask(now)
        elif topic == "stall-over":
            return self._moved(int(data["node"]))
        elif topic == "stall-rows" and self._open and data["round"] == self._round:
            self._rows[int(data["node"])] = [stall.row_from_wire(row) for row in data["rows"]]
            if len(self._rows) == self._layout.nodes:
                self._decide(now)
        elif topic == "pace":
            self._pace.receive(data)
        return False

    def tick(self, now: float) -> None:
        """Go on without the nodes that have not answered."""
        if self._open and now >= self._until:
            self._decide(now)

    def _ask(self, now: float) -> None:
        self._round += 1
        self._open = True
        self._until = now + ANSWER_SECONDS
        self._rows = {}
        self._peers.announce("stall-ask", {"round": self._round})

    def _decide(self, now: float) -> None:
        self._open = False
        rows = [row for node in sorted(self._rows) for row in self._rows[node]]
        report = stall.judge_stall(rows, after=self._options.after, hang=self._options.hang)
        if report is None:
            self._next = now + self._options.after / 4
            return
        changed = self._last is None or report.identity != self._last.identity
        self._rest = self._options.after if changed else min(2 * self._rest, REST_SECONDS)
        # The moment at which waiting may become a hang is not slept over.
        wait = self._rest if not report.left else min(self._rest, report.left + 0.1)
        self._next = now + wait
        self._last = report
        self._peers.announce("stall-report", report_to_wire(report))

    def _moved(self, node: int) -> bool:
        self._stalled.discard(node)
        if self._stalled or self._last is None:
            return False
        self._last = None
        self._next = 0.0
        self._rest = self._options.after
        if self._layout.nodes > 1:
            self._peers.announce("stall-over", {"node": -1})
        return True


class PaceJudge:
    """Node 0's straggler watch, over the last windows of each rank."""

    def __init__(self, layout: RankLayout, peers: Peers) -> None:
        self._layout = layout
        self._peers = peers
        self._paces: dict[int, deque[RankPace]] = {}
        self._windows = 0
        self._until = 0
        #: Of those who have been named: the share of time that others have waited for each.
        self._named: dict[int, float] = {}

    def receive(self, data: Mapping[str, Any]) -> None:
        """One node's window."""
        paused = False
        for row in data["paces"]:
            pace = RankPace(
                rank=int(row["rank"]),
                host=str(data["host"])[:255],
                samples=int(row["samples"]),
                waits=tuple(max(0, int(wait)) for wait in row["waits"][:WINDOW_WAITS]),
                work=str(row["work"])[:160],
                starved=bool(row["starved"]),
            )
            self._paces.setdefault(pace.rank, deque(maxlen=LOOKS[-1])).append(pace)
            longest = max(int(row["wait"]), *pace.waits, 0)
            paused = paused or self._joined(pace.rank, LOOKS[-1]).is_pause(longest)
        if paused:
            # Nodes' windows end at unlike times: some that are yet to come hold a part of it.
            self._until = self._windows + 2 * self._layout.nodes
        if self._windows < self._until:
            self._paces.clear()
        self._windows += 1
        # Every node sends one message a window: as many as there are nodes make a whole one.
        if self._windows % self._layout.nodes == 0 and len(self._paces) == self._layout.world:
            self._judge()

    def _judge(self) -> None:
        """The newest windows first: what they do not tell for sure, more of them may.

        Older windows are forgotten once the newest say that a named rank is slow no more.
        """
        newest = {lost.pace.rank: lost for lost in self._look(LOOKS[0])}
        slow = {rank: lost for rank, lost in newest.items() if lost.sure}
        for windows in LOOKS[1:]:
            for lost in self._look(windows):
                rank = lost.pace.rank
                if lost.sure and rank in newest and newest[rank].share >= AGAIN_SHARE:
                    slow.setdefault(rank, lost)
        texts = []
        for rank, lost in slow.items():
            told = self._named.get(rank)
            if told is None or abs(lost.share - told) >= CHANGED_SHARE:
                self._named[rank] = lost.share
                texts.append(stall.describe_straggler(lost))
        for rank, lost in newest.items():
            if rank in self._named and lost.share < AGAIN_SHARE:
                del self._named[rank]
                texts.append(f"rank {rank} [host {lost.pace.host}] is as fast as the others again")
                for old in self._paces.values():
                    while len(old) > LOOKS[0]:
                        old.popleft()
        if texts:
            self._peers.announce("stragglers", {"texts": texts[:8]})

    def _look(self, windows: int) -> list[stall.LostShare]:
        return stall.find_lost_shares([self._joined(rank, windows) for rank in sorted(self._paces)])

    def _joined(self, rank: int, windows: int) -> RankPace:
        first, *rest = list(self._paces[rank])[-windows:]
        for pace in rest:
            first = first.joined(pace)
        return first


def report_to_wire(report: StallReport) -> dict[str, Any]:
    """A JSON object for the other nodes."""
    ranks = list(report.ranks[:1024])
    return {"kind": report.kind, "ranks": ranks, "host": report.host, "text": report.text}


def report_from_wire(data: Mapping[str, Any]) -> StallReport:
    """The other end."""
    kind = HANG_KIND if data["kind"] == HANG_KIND else stall.WAITING
    ranks = tuple(int(rank) for rank in data["ranks"])
    return StallReport(kind, ranks, str(data["host"]), str(data["text"])[: stall.TEXT_CHARS])
