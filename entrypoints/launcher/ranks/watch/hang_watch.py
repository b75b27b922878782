"""Watching the ranks of a job: who waits for whom, who hangs, who is slow.

Each node samples its own ranks a few times a second. Nothing is sent while they move, but one
message a window for the straggler watch. A node that sees one of its ranks wait for too long tells
node 0, which asks all nodes for one row a rank, judges them together (stall.py) and tells all what
it found: four small messages a node and round, and rounds grow rarer while nothing changes.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import events
from launcher.causes import HANG, RANK_ENDED, Cause
from launcher.peers import Peers
from launcher.ranks import rank_processes
from launcher.ranks.rank_commands import RankLayout
from launcher.ranks.watch import stall
from launcher.ranks.watch.collectives import parse_answer
from launcher.ranks.watch.rank_resources import query_gpus, silent_connections
from launcher.ranks.watch.rank_sample import (
    GROUPS,
    SIGNAL_SECONDS,
    THREADS,
    RankTracker,
    StackFile,
    answering_process,
    gather,
    rank_number,
)
from launcher.ranks.watch.stall import HANG_KIND, RankPace, RankRow, StallReport

#: How long node 0 waits for the rows of nodes that do not answer.
ANSWER_SECONDS = 3.0
#: Between looks for ranks that are not there yet, and for new ones where all are.
FIND_SECONDS, FIND_AGAIN_SECONDS = 1.0, 10.0
CHILD_SECONDS = 2.0
#: Of a rank's workers, how many are asked for their stacks, and how long each has.
MOST_WORKERS = 8
WORKER_SECONDS = 0.3
#: Of the straggler watch: samples a window, and over how many windows it looks.
WINDOW_SAMPLES, WINDOW_WAITS = 60, 600
LOOKS = (2, 4, 8, 16, 32)
#: Who has been named is named again when others wait for it this much more or less of the time.
CHANGED_SHARE = 0.2
#: A rank is as fast as the others again when they wait for it less than this.
AGAIN_SHARE = stall.SLOWER_SHARE / 2
TOPICS = (
    "stall-seen", "stall-over", "stall-ask", "stall-rows", "stall-report", "pace", "stragglers",
)  # fmt: skip
#: Rounds grow rarer up to this.
REST_SECONDS = 600.0


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


class HangWatch:
    """One node's thread. `report` is called with each report, `over` when ranks move again."""

    def __init__(
        self,
        options: WatchOptions,
        layout: RankLayout,
        peers: Peers,
        pids: Callable[[], Sequence[int]],
        *,
        report: Callable[[StallReport], None],
        over: Callable[[], None],
    ) -> None:
        self._options = options
        self._layout = layout
        self._peers = peers
        self._pids = pids
        self._report = report
        self._over = over
        self._host = layout.hosts[layout.node_rank]
        self._trackers: dict[int, RankTracker] = {}
        self._inbox: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
        self._find_at = self._child_at = 0.0
        self._tell_at = 0.0
        self._stalled = False
        self._cut_at: float | None = None
        self._reports = 0
        self._untold = False
        self._judge = RoundJudge(layout, peers, options) if layout.node_rank == 0 else None
        for topic in TOPICS:
            peers.topics[topic] = self._receiver(topic)
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def early_ends(self, failed: Collection[int]) -> list[Cause]:
        """Ranks here that ended before those who failed, or before all were stopped.

        Their own exit code says that all is well, but the others' collectives broke off, or waited.
        As echoes they are secondary: another rank's own error comes first.
        """
        now = time.monotonic()
        ends = {rank: t.since for rank, t in self._trackers.items() if t.gone}
        until = min((ends[rank] for rank in failed if rank in ends), default=self._cut_at or now)
        return [
            Cause(
                RANK_ENDED,
                "ended with exit code 0 while other ranks were still in collectives; last seen at "
                f"{self._trackers[rank].place.where or 'an unknown line'}",
                rank=rank,
                age=now - end,
                secondary=True,
            )
            for rank, end in sorted(ends.items())
            if rank not in failed and end < until
        ]

    def mark_cut(self) -> None:
        """From now on ranks end because they are stopped."""
        self._cut_at = self._cut_at or time.monotonic()

    def _receiver(self, topic: str) -> Callable[[Any], None]:
        """Messages come in the gate's thread; they are handled in ours."""
        return lambda data: self._inbox.put((topic, data))

    def start(self) -> None:
        """Begin to watch."""
        self._options.stack_dir.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._inbox.put(None)
        self._thread.join()

    def _watch(self) -> None:
        """A defect of the watch must not be silent, nor must it harm the job."""
        try:
            self._run()
        except Exception as error:
            events.emit("warning", text=f"ranks are not watched any more: {error!r}")
            raise

    def _run(self) -> None:
        interval = self._options.interval(self._layout.nproc)
        due = time.monotonic()
        while True:
            try:
                item = self._inbox.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                now = time.monotonic()
                self._sample(now)
                self._look_for_stall(now)
                if self._judge is not None:
                    self._judge.tick(now)
                # Never in step with the ranks: whose steps take as long would always be seen at
                # the same point of them.
                due = time.monotonic() + interval * random.uniform(0.5, 1.5)  # noqa: S311
                continue
            if item is None:
                return
            self._handle(*item)

    def _handle(self, topic: str, data: Any) -> None:
        try:
            self._act(topic, data)
        except (KeyError, TypeError, ValueError) as error:
            events.emit("warning", text=f"a message {topic!r} of another node is odd: {error!r}")

    def _act(self, topic: str, data: Any) -> None:
        now = time.monotonic()
        if topic == "stall-ask":
            answer = {"round": data["round"], "node": self._layout.node_rank}
            rows = self._rows(now)
            self._peers.announce("stall-rows", {**answer, "rows": rows}, node=0)
        elif topic == "stall-report":
            self._said(report_from_wire(data))
        elif topic == "stall-over" and self._layout.node_rank != 0:
            self._over()
        elif topic == "stragglers":
            for text in data["texts"]:
                events.emit("straggler", text=str(text))
        elif self._judge is not None and self._judge.receive(topic, data, now):
            self._over()

    def _sample(self, now: float) -> None:
        """Read the stacks that were asked for at the last tick, then ask anew."""
        self._find(now)
        for tracker in self._trackers.values():
            if not tracker.gone:
                tracker.take(now, tracker.file.main_stack())
                tracker.file.ask()
        if now >= self._child_at:
            self._child_at = now + CHILD_SECONDS
            idle = [
                tracker
                for tracker in self._trackers.values()
                if not tracker.gone and now - tracker.idle_since > self._options.after / 2
            ]
            table = rank_processes.process_table() if idle else {}
            for tracker in idle:
                tracker.look_at_children(now, CHILD_SECONDS, table)
        self._pace()

    def _find(self, now: float) -> None:
        """Ranks that are new, or that have begun anew under another number."""
        if now < self._find_at:
            return
        known = {tracker.pid for tracker in self._trackers.values()}
        for pid in self._pids():
            pid = answering_process(pid, self._options.stack_dir)
            rank = rank_number(pid)
            if pid in known or rank < 0:
                continue
            patience = min(SIGNAL_SECONDS, self._options.after / 4)
            file = StackFile(self._options.stack_dir, pid, patience=patience)
            tracker = RankTracker(rank, pid, file)
            tracker.begin(now)
            self._trackers[rank] = tracker
        alive = sum(not tracker.gone for tracker in self._trackers.values())
        complete = alive >= self._layout.nproc
        self._find_at = now + (FIND_AGAIN_SECONDS if complete else FIND_SECONDS)

    def _look_for_stall(self, now: float) -> None:
        """Tell node 0 when a rank here waits too long, and when none does any more."""
        after = self._options.after
        alive = [tracker for tracker in self._trackers.values() if not tracker.gone]
        if not alive:
            return
        stalled = any(t.place.waits and now - t.since >= after for t in alive) or (
            all(now - t.idle_since >= after for t in alive)
        )
        if stalled and now >= self._tell_at:
            self._tell_at = now + after / 2
            self._peers.announce("stall-seen", {"node": self._layout.node_rank}, node=0)
        elif self._stalled and not stalled:
            self._tell_at = 0.0
            self._peers.announce("stall-over", {"node": self._layout.node_rank}, node=0)
        self._stalled = stalled

    def _rows(self, now: float) -> list[dict[str, object]]:
        """One row for each rank of this node."""
        gpus = query_gpus() if self._options.gpus else []
        files = {str(rank): t.file for rank, t in self._trackers.items() if not t.gone}
        answers = gather(files, GROUPS)
        rows = []
        for rank, tracker in sorted(self._trackers.items()):
            groups, trouble = parse_answer(answers.get(str(rank), ""))
            row = {**tracker.row(now), "host": self._host, "groups": groups}
            if trouble and not self._untold:
                self._untold = True
                events.emit("warning", text=f"rank {rank} can not list its collectives: {trouble}")
            if not tracker.gone and tracker.place.waits:
                silent = silent_connections(tracker.pid)
                if silent:
                    row["network"] = f"no answer from {', '.join(silent[:3])}"
            gpu = self._gpu_number(rank)
            if gpu is not None and gpu < len(gpus):
                busy, used, total = gpus[gpu]
                row.update(memory=(used, total), busy=busy)
            rows.append(row)
        return rows

    def _gpu_number(self, rank: int) -> int | None:
        """nvidia-smi's number of a rank's GPU."""
        local = rank - self._layout.first_rank
        visible = self._layout.visible
        if not visible:
            return local
        if local >= len(visible) or not visible[local].isdecimal():
            return None
        return int(visible[local])

    def _said(self, report: StallReport) -> None:
        """Keep all ranks' stacks as files, and hand the report on."""
        self._reports += 1
        directory = self.write_stacks(report)
        mine = [rank for rank in report.ranks if rank in self._trackers]
        events.emit(
            report.kind,
            text=report.text,
            ranks=list(report.ranks[:64]),
            stacks=str(directory),
            here=bool(mine),
        )
        self._report(report)

    def write_stacks(self, report: StallReport) -> Path:
        """One file for each process, those of the odd ranks first by name."""
        directory = self._options.report_dir / f"{self._reports:03}-{report.kind}"
        directory.mkdir(parents=True, exist_ok=True)
        files = {}
        last: dict[str, RankTracker] = {}
        for rank, tracker in sorted(self._trackers.items()):
            name = f"{'0-odd-' if rank in report.ranks else ''}rank{rank}"
            last[name] = tracker
            if not tracker.gone:
                files[name] = tracker.file
        texts = gather(files, THREADS)
        for rank in report.ranks:
            if rank in self._trackers and not self._trackers[rank].gone:
                texts.update(self._worker_stacks(rank))
        now = time.monotonic()
        for name in sorted({*last, *texts}):
            lines = [f"{report.text}\n"]
            if name in last:
                lines.append(_tracker_text(last[name], now, has_stack=bool(texts.get(name))))
            text = "\n".join([*lines, texts.get(name, "")])
            (directory / f"{name}.txt").write_text(text, encoding="utf-8")
        return directory

    def _worker_stacks(self, rank: int) -> dict[str, str]:
        """The stacks of an odd rank's data loader workers: forked, they write to its own file."""
        pid = self._trackers[rank].pid
        texts: dict[str, str] = {}
        family = rank_processes.descendants(pid, rank_processes.process_table())
        for process in family[:MOST_WORKERS]:
            name = f"0-odd-rank{rank}-worker{process.pid}"
            file = StackFile(self._options.stack_dir, process.pid, pid)
            file.signal()
            deadline = time.monotonic() + WORKER_SECONDS
            while time.monotonic() < deadline and not texts.get(name):
                time.sleep(0.05)
                texts[name] = file.read(THREADS)
        return texts

    def _pace(self) -> None:
        """After each window, how long each rank has waited in it."""
        alive = [tracker for tracker in self._trackers.values() if not tracker.gone]
        if self._layout.world < 2 or not alive:
            return
        if min(tracker.samples for tracker in alive) < WINDOW_SAMPLES:
            return
        paces = [
            {
                "rank": tracker.rank,
                "samples": tracker.samples,
                "waits": tracker.waits,
                "wait": tracker.wait,
                "work": next((where for where, _ in tracker.work.most_common(1)), "")[:160],
                "starved": tracker.starved > tracker.samples / 2,
            }
            for tracker in alive
        ]
        for tracker in alive:
            tracker.new_window()
        self._peers.announce("pace", {"host": self._host, "paces": paces}, node=0)


def _tracker_text(tracker: RankTracker, now: float, *, has_stack: bool) -> str:
    """The head of a rank's file, with its last known stack where it gives none now."""
    head = f"rank {tracker.rank}, pid {tracker.pid}: {tracker.doing(now)}\n"
    if has_stack:
        return head
    frames = [f"  {frame.text()} ({frame.file})" for frame in tracker.stack]
    return "\n".join([head, "it does not show its stack now; the last one seen:", *frames, ""])


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


def cause_of_hang(report: StallReport) -> Cause:
    """What the failure says of a hang."""
    rank = report.ranks[0] if len(report.ranks) == 1 else -1
    return Cause("Hang", report.text, HANG, host=report.host, rank=rank)
