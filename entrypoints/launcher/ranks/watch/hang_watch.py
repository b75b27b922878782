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
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from launcher import events
from launcher.causes import HANG, RANK_ENDED, Cause
from launcher.peers import Peers
from launcher.ranks import rank_processes
from launcher.ranks.rank_commands import RankLayout
from launcher.ranks.watch.collectives import parse_answer
from launcher.ranks.watch.rank_judges import RoundJudge, WatchOptions, report_from_wire
from launcher.ranks.watch.rank_resources import query_gpus, silent_connections
from launcher.ranks.watch.rank_sample import RankTracker, rank_number
from launcher.ranks.watch.stack_files import (
    GROUPS,
    SIGNAL_SECONDS,
    THREADS,
    StackFile,
    answering_process,
    gather,
)
from launcher.ranks.watch.stall import StallReport

#: Between looks for ranks that are not there yet, and for new ones where all are.
FIND_SECONDS, FIND_AGAIN_SECONDS = 1.0, 10.0
CHILD_SECONDS = 2.0
#: Of a rank's workers, how many are asked for their stacks, and how long each has.
MOST_WORKERS = 8
WORKER_SECONDS = 0.3
#: Of the straggler watch: samples a window.
WINDOW_SAMPLES = 60
TOPICS = (
    "stall-seen", "stall-over", "stall-ask", "stall-rows", "stall-report", "pace", "stragglers",
)  # fmt: skip


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


def cause_of_hang(report: StallReport) -> Cause:
    """What the failure says of a hang."""
    rank = report.ranks[0] if len(report.ranks) == 1 else -1
    return Cause("Hang", report.text, HANG, host=report.host, rank=rank)
