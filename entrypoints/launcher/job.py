"""The life of a training job on one node, from the plan to the exit code."""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

from launcher import diagnose, events, failure, processes, rankenv, runners
from launcher import plan as plans
from launcher.causes import OK, PEER, STOPPED, UNRESOLVED, Cause, LaunchError
from launcher.context import SAGEMAKER, Context
from launcher.halt import Halt
from launcher.plan import Plan
from launcher.supervise import Outcome, Ranks

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
PASSED_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


class Job:
    """One launch on this node. `run` is called in the launcher process, below init."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.context: Context = plan.context
        self.halt = Halt()
        self.ranks: Ranks | None = None
        self._inbox: queue.SimpleQueue[Callable[[], int | None]] = queue.SimpleQueue()

    def run(self) -> int:
        """Do everything; the exit code. Signals are handled in this, the main thread."""
        topology = self.context.topology
        events.at(topology.host, topology.node_rank)
        for number in (*STOP_SIGNALS, *PASSED_SIGNALS):
            signal.signal(number, self._on_signal)
        worker = threading.Thread(target=self._work, name="job", daemon=True)
        worker.start()
        while True:
            code = self._inbox.get()()
            if code is not None:
                return code

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._inbox.put(lambda: self._signalled(number))

    def _signalled(self, number: int) -> None:
        name = signal.Signals(number).name
        events.emit("signal", signal=name)
        if number in STOP_SIGNALS:
            self.halt.request(Cause("Stopped", f"stopped by {name}", STOPPED), hard=False)
        elif self.ranks is not None:
            # Passed on where there is a handler: without one it would kill the rank.
            wanted = [pid for pid in self.ranks.pids() if processes.catches(pid, number)]
            processes.send(wanted, number)

    def _work(self) -> None:
        try:
            code = self._steps()
        except LaunchError as error:
            code = self._fail(error.cause)
        except BaseException as error:
            code = self._fail(Cause("LauncherError", f"{type(error).__name__}: {error}"))
            self._inbox.put(lambda: code)
            raise
        self._inbox.put(lambda: code)

    def _steps(self) -> int:
        context = self.context
        self._resolve_peers()
        ranks = plans.assumed_layout(self.plan)
        if ranks.nodes == 1:
            ranks = runners.layout(
                context.topology,
                [self.plan.nproc],
                port=plans.free_port(),
                attempt=context.topology.attempt or 0,
            )
        outcome = self._train(ranks)
        return self._finish(outcome)

    def _resolve_peers(self) -> None:
        """Wait until every node's name resolves, saying which ones do not."""
        topology = self.context.topology
        missing = [host for host in topology.hosts if topology.nodes > 1]
        deadline = time.monotonic() + self.context.settings.number("dns-wait")
        said = 0.0
        while True:
            missing = [host for host in missing if not _resolves(host)]
            if not missing:
                return
            if time.monotonic() > deadline:
                names = ", ".join(missing)
                raise LaunchError(f"no address for {names}", code=UNRESOLVED, kind="PeerUnresolved")
            if time.monotonic() - said > 30:
                said = time.monotonic()
                events.emit("waiting", missing=missing)
            self.halt.sleep(1.0)

    def _train(self, ranks: runners.Layout) -> Outcome:
        context, plan = self.context, self.plan
        commands = plans.commands(plan, ranks)
        changes = [
            *plan.changes,
            rankenv.Change("LAUNCH_ATTEMPT", ranks.run_id.rpartition("-")[2], "told to the script"),
        ]
        plans.fresh_log_dir(plan.log_dir)
        if plan.runner == runners.DEEPSPEED:
            (plan.log_dir / "hostfile").write_text(runners.hostfile_text(ranks), encoding="utf-8")
        self.halt.check()
        self.ranks = Ranks(
            commands,
            env=rankenv.apply(context.env, changes),
            cwd=context.cwd,
            log_dir=plan.log_dir,
            first_rank=ranks.first_rank,
            tree=os.getppid(),
        )
        events.emit("ranks", first=ranks.first_rank, here=ranks.nproc, world=ranks.world)
        self.ranks.start()
        return self.ranks.wait(self.halt, context.settings.number("grace"))

    def _finish(self, outcome: Outcome) -> int:
        cause = self.halt.cause
        if cause is not None and cause.code == STOPPED:
            return self._stopped(outcome)
        if outcome.code == 0 and cause is None:
            events.emit("done", code=OK)
            return OK
        root = cause or diagnose.first(outcome.causes)
        assert root is not None, "a non-zero outcome has a cause"
        return self._fail(root)

    def _stopped(self, outcome: Outcome) -> int:
        if outcome.killed:
            grace = self.context.settings.number("grace")
            return self._fail(Cause("Stopped", f"ranks were killed after {grace} s", STOPPED))
        if outcome.code != 0:
            return self._fail(Cause("Stopped", "the script does not handle SIGTERM", STOPPED))
        code = OK if self.context.platform == SAGEMAKER else STOPPED
        events.emit("stopped", code=code)
        return code

    def _fail(self, cause: Cause) -> int:
        placed = cause.at(self.context.topology.host)
        code = placed.code if placed.host == self.context.topology.host else PEER
        events.emit("failed", code=code, cause=placed.headline(), detail=placed.detail)
        if self.context.failure_file is not None:
            failure.write(self.context.failure_file, placed)
        return code


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True
