"""Start the ranks of this node, pass signals to them, and see every one of them end."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher import events
from launcher.causes import FAILED, Cause
from launcher.peers import Peers
from launcher.ranks import diagnosis, rank_processes
from launcher.ranks.outcome import RanksEnd
from launcher.ranks.output import Follower, rank_logs
from launcher.ranks.rank_commands import RankCommand
from launcher.stop_request import StopRequest

#: Between SIGTERM and SIGKILL once a rank or a peer has failed: time for an atexit hook, not for a
#: collective that can no longer succeed.
FAILURE_SECONDS = 1.0
#: How often the ranks below torchrun or deepspeed are looked at.
LOOK_SECONDS = 2.0
#: Until one is seen.
FIRST_LOOK_SECONDS = 0.2
#: In a stop: how often, and for how long torchrun may go on alone once its ranks have ended. It
#: waits for the other nodes' torchruns then (300 s), which the same stop may have ended.
STOP_LOOK_SECONDS, ALONE_SECONDS = 1.0, 5.0
ALONE = "its ranks have ended; it waits for those of other nodes, which have ended, too"

ENDED_TOPIC = "ranks-ended"


class EndedNodes:
    """Which nodes' ranks have all ended, as one node knows; node 0 alone hears of the others.

    Node 0's torchrun serves the other nodes' rendezvous: a stop may end it before its time only
    when nobody is left who needs it.
    """

    def __init__(self, peers: Peers, node_rank: int, nodes: int) -> None:
        self._peers = peers
        self._node_rank = node_rank
        self._nodes = nodes
        self._ended: set[int] = set()
        self._lock = threading.Lock()
        self._told = False
        peers.topics[ENDED_TOPIC] = self._hear

    def _hear(self, node: Any) -> None:
        """Called in the gate's thread; what another node says is a number of a node, or nothing."""
        if isinstance(node, int) and 0 <= node < self._nodes:
            with self._lock:
                self._ended.add(node)

    def tell(self) -> None:
        """The ranks of this node have ended."""
        if not self._told:
            self._told = True
            self._peers.announce(ENDED_TOPIC, self._node_rank, node=0)

    def others_ended(self) -> bool:
        """Tell it, and whether no other node needs this one's runner any more."""
        self.tell()
        with self._lock:
            others = self._ended - {self._node_rank}
        return self._node_rank != 0 or len(others) == self._nodes - 1


class RankSupervisor:
    """The processes of one attempt on this node."""

    def __init__(
        self,
        commands: Sequence[RankCommand],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log_dir: Path,
        first_rank: int,
        restarts: bool = False,
    ) -> None:
        self._commands = commands
        self._has_runner = any(command.rank < 0 for command in commands)
        self._restarts = restarts
        self._known: set[int] = set()
        self._alone_since: float | None = None
        self._dismissed: set[int] = set()
        self._crashed = False
        self._env = env
        self._cwd = cwd
        self._log_dir = log_dir
        self._first_rank = first_rank
        # Everything below init (init.py), orphans included.
        self._tree = os.getppid()
        self._ended: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
        self._codes: dict[int, int] = {}
        self._spawned: list[subprocess.Popen[bytes]] = []
        self._oom_before = diagnosis.count_oom_kills()
        self._runner_log = log_dir / "runner.log"
        self.follower = Follower(self._all_logs, _to_stdout)

    def logs(self) -> dict[Path, int]:
        """The ranks' log files."""
        return rank_logs(self._log_dir, self._first_rank)

    def _all_logs(self) -> dict[Path, int]:
        return {**({self._runner_log: -1} if self._has_runner else {}), **self.logs()}

    def pids(self) -> list[int]:
        """The ranks that are alive."""
        return rank_processes.find_ranks(self._tree)

    def start(self) -> None:
        """Start every command; output goes to files that the follower prints."""
        self._log_dir.mkdir(parents=True, exist_ok=True)
        for index, command in enumerate(self._commands):
            name = f"rank{command.rank}.log" if command.rank >= 0 else self._runner_log.name
            with (self._log_dir / name).open("wb") as sink:
                process = subprocess.Popen(
                    command.argv,
                    env={**self._env, **command.env},
                    cwd=self._cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._spawned.append(process)
            threading.Thread(target=self._wait_for, args=(index, process), daemon=True).start()
        self.follower.start()

    def _wait_for(self, index: int, process: subprocess.Popen[bytes]) -> None:
        self._ended.put((index, process.wait()))

    def wait(
        self, halt: StopRequest, grace: float, others_ended: Callable[[], bool] = lambda: True
    ) -> RanksEnd:
        """Until every process has ended. A stop request is passed to the ranks themselves.

        `others_ended` is asked in a stop once the ranks here have ended: whether those of all nodes
        that still need this one's runner have, too.
        """
        killed = False
        deadline: float | None = None
        with halt.telling(lambda: self._ended.put(None)):
            while len(self._codes) < len(self._commands):
                item = self._next(deadline)
                if item is not None:
                    self._codes[item[0]] = 0 if item[0] in self._dismissed else item[1]
                    if self._codes[item[0]] != 0 and deadline is None:
                        deadline = time.monotonic() + FAILURE_SECONDS
                        self.signal(signal.SIGTERM)
                elif deadline is not None and time.monotonic() >= deadline:
                    killed = True
                    self.kill()
                    deadline = time.monotonic() + 60
                elif halt.cause is not None:
                    deadline = self._stop(halt, deadline, grace)
                    self._dismiss_lone_runner(others_ended)
        return self._outcome(halt, killed)

    def _next(self, deadline: float | None) -> tuple[int, int] | None:
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        if deadline is not None and self._has_runner:
            timeout = min(timeout or 0.0, STOP_LOOK_SECONDS)
        elif self._has_runner:
            timeout = LOOK_SECONDS if self._known else FIRST_LOOK_SECONDS
        try:
            return self._ended.get(timeout=timeout)
        except queue.Empty:
            if deadline is None:
                self._end_survivors()
            return None

    def _end_survivors(self) -> None:
        """A rank has crashed below its runner: do not give the others half a minute.

        torchrun and deepspeed send them SIGTERM and wait for 30 s; one that saves a checkpoint on
        SIGTERM sits in a collective that its dead peer will never join.
        """
        alive = set(self.pids())
        if self._known - alive and alive and not self._restarts:
            if self._crashed:
                rank_processes.send_signal(alive, signal.SIGKILL)
            self._crashed = diagnosis.is_ending_ranks(self._runner_log) or bool(
                diagnosis.causes_of_exits([], self.logs(), harvest=True)
            )
        self._known |= alive

    def _stop(self, halt: StopRequest, deadline: float | None, grace: float) -> float:
        """Signal the ranks; when they have to be gone."""
        until = time.monotonic() + (FAILURE_SECONDS if halt.hard else grace)
        if deadline is None:
            told = self.signal(signal.SIGTERM)
            woken = rank_processes.wake_stopped(self._tree)
            if woken:
                events.emit("woken", pids=woken, why="stopped processes hear no SIGTERM")
            events.emit("stopping", ranks=len(told), seconds=round(until - time.monotonic()))
        return until if deadline is None else min(until, deadline)

    def _dismiss_lone_runner(self, others_ended: Callable[[], bool]) -> None:
        """End a runner whose ranks have ended well, as a failed one's would have ended it, too."""
        if not (self._has_runner and self._known) or self.pids():
            self._alone_since = None
            return
        now = time.monotonic()
        self._alone_since = since = self._alone_since or now
        if not others_ended() or now - since < ALONE_SECONDS:
            return
        alive = {i: p.pid for i, p in enumerate(self._spawned) if i not in self._codes}
        first = alive.keys() - self._dismissed
        if first:
            events.emit("dismissed", pids=sorted(alive[i] for i in first), why=ALONE)
            self._dismissed |= first
            rank_processes.send_signal([alive[i] for i in first], signal.SIGTERM)
        elif now - since >= 2 * ALONE_SECONDS:
            rank_processes.send_signal(alive.values(), signal.SIGKILL)

    def signal(self, number: int) -> list[int]:
        """Send a signal to the ranks; where there are none, to what does the work."""
        told = rank_processes.send_signal(self.pids(), number)
        if told:
            return told
        alive = [p.pid for i, p in enumerate(self._spawned) if i not in self._codes]
        workers = [worker for pid in alive for worker in rank_processes.find_workers(pid)]
        return rank_processes.send_signal(workers or alive, number)

    def kill(self) -> None:
        """End the ranks and all that they started, but not the launcher or its transfers."""
        mark = ("LAUNCH_SCRATCH", self._env["LAUNCH_SCRATCH"])
        spawned = {process.pid for process in self._spawned}
        rank_processes.kill_tree(
            self._tree,
            lambda p: (
                p.pid in spawned or rank_processes.read_environment(p.pid).get(mark[0]) == mark[1]
            ),
        )

    def _outcome(self, halt: StopRequest, killed: bool) -> RanksEnd:
        left = self.pids()
        # A rank's own helpers carry its variables, too; they are no ranks, and just ended. Where a
        # runner ended before any rank was seen, what is left are ranks: none is so short-lived.
        seen = self._known or set(left if self._has_runner else ())
        orphaned = seen.intersection(left)
        code = next((c for _, c in sorted(self._codes.items()) if c != 0), 0)
        if left:
            self.kill()
        self.follower.finish()
        oom = diagnosis.count_oom_kills() - self._oom_before
        exits = self._exits()
        lost = code == 0 and any(item.code != 0 for item in exits)
        if lost:
            code = FAILED
            events.emit("warning", text="the script ended with 0 although its torchrun failed")
        found = diagnosis.causes_of_exits(
            exits, self.logs(), oom_kills=oom, harvest=code != 0 or halt.hard
        )
        if orphaned and code == 0:
            # The deepspeed command returns 0 when its launch process was killed.
            code = FAILED
            message = f"the runner ended with 0 but left {len(orphaned)} ranks running"
            found.append(Cause("RunnerError", message, FAILED))
        if code != 0 and not found:
            found.append(_unexplained(code, diagnosis.read_crash(self._runner_log)))
        return RanksEnd(code, tuple(found), killed)

    def _exits(self) -> list[diagnosis.Exit]:
        exits = [
            diagnosis.Exit(command.rank, self._codes[index])
            for index, command in enumerate(self._commands)
            if command.rank >= 0
        ]
        for report in sorted(self._log_dir.glob("elastic*.json")):
            _, *starter = report.name[: -len(".json")].split(".")
            for row in json.loads(report.read_text(encoding="utf-8")):
                # Counted as the log files are: the c10d rendezvous numbers nodes by its own lights.
                # A torchrun that a rank has started is that rank's failure.
                rank = int(starter[0]) if starter else self._first_rank + int(row["local_rank"])
                exits.append(diagnosis.Exit(rank, int(row["exitcode"])))
        return exits


def _to_stdout(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _unexplained(code: int, crash: diagnosis.Crash | None) -> Cause:
    """A runner that failed without a word from any rank."""
    if crash is not None:
        # torchrun's word for our own SIGTERM: its ranks had ended, it waited for other nodes.
        ended = "SignalException" in crash.message
        return Cause("RunnerError", crash.message, FAILED, detail=crash.frames, secondary=ended)
    if 192 <= code < 256:
        # deepspeed passes a signal on as a negative exit code, of which a byte is left.
        name = diagnosis.signal_name(256 - code)
        return Cause("RankKilled", f"the runner says that a rank was killed by {name}", FAILED)
    return Cause("RunnerError", f"the runner ended with code {code}", abs(code))
