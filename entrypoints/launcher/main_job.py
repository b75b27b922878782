"""One launch on one node: signals in the main thread, the job's life in another."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace

from launcher import events
from launcher import events as failure
from launcher.causes import HANG, OK, PEER, STOPPED, Cause, LaunchError
from launcher.node_job import NodeJob
from launcher.peers import COLLECTING, Gate, GatePlace, LonePeers, Peers, derive_part_key
from launcher.plan import Plan
from launcher.ranks import catches_signal, kill_tree, let_end, let_go_on, send_signal
from launcher.stop_request import SignalInbox, StopRequest

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
PASSED_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)

#: After the ranks' grace: to upload and verify what they saved. SageMaker kills after 120 s.
UPLOAD_SECONDS = 15
#: How often the process above is looked at: a rank may have stopped it (SIGSTOP).
LOOK_SECONDS = 2.0


class LauncherProcess:
    """The launcher's main thread: signals, and what its other threads hand over, in order."""

    def __init__(self) -> None:
        self._above = os.getppid()
        self._inbox: SignalInbox[Callable[[], int | None]] = SignalInbox(
            (*STOP_SIGNALS, *PASSED_SIGNALS)
        )
        threading.excepthook = _report_dead_thread

    def put(self, item: Callable[[], int | None]) -> None:
        """From any thread: call this in the main thread; a number that it gives ends `serve`."""
        self._inbox.put(item)

    def serve(self, signalled: Callable[[int], None]) -> int:
        """Until an item gives the exit code."""
        while True:
            items = self._inbox.get(LOOK_SECONDS)
            if not items:
                let_go_on(self._above)
            for item in items:
                if isinstance(item, int):
                    if os.getppid() != self._above:
                        # Both processes above were killed, which left this signal.
                        kill_tree(os.getpid())
                        return 128 + signal.SIGKILL
                    signalled(item)
                    continue
                code = item()
                if code is not None:
                    let_end(self._above)  # it has a code to pass on
                    return code


class MainJob:
    """`run` is called in the launcher process, below init."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._process = LauncherProcess()
        self._halt = StopRequest()
        self._topology = plan.context.topology
        self._gate: Peers = self._choose_peers()
        self._life = NodeJob(plan, self._halt, self._gate)
        self._deadline: threading.Timer | None = None
        self._verdict: Cause | None = None

    def _choose_peers(self) -> Peers:
        topology = self._topology
        if topology.nodes == 1:
            return LonePeers()
        place = GatePlace(
            hosts=topology.hosts,
            node=topology.node_rank,
            job=topology.job,
            port=self._plan.context.settings.number("gate-port"),
            key=self._gate_key(),
        )
        return Gate(place, self._halt)

    def _gate_key(self) -> bytes:
        place = self._plan.context.place
        if place is None:
            return self._plan.job_key.key
        return derive_part_key(self._plan.job_key, f"restart {place.restart}")

    def run(self) -> int:
        """Do everything; the exit code."""
        events.set_node(self._topology.host, self._topology.node_rank)
        threading.Thread(target=self._work, name="job", daemon=True).start()
        with self._halt.telling(lambda: self._process.put(self._stop_requested)):
            code = self._process.serve(self._signalled)
        if self._deadline is not None:
            self._deadline.cancel()
        return code

    def _signalled(self, number: int) -> None:
        name = signal.Signals(number).name
        events.emit("signal", signal=name)
        if number in STOP_SIGNALS:
            cause = Cause("Stopped", f"stopped by {name}", STOPPED)
            if self._halt.request(cause, hard=False):
                self._gate.stop(cause)
        else:
            # Passed on where there is a handler: without one it would kill the rank.
            wanted = [pid for pid in self._life.rank_pids() if catches_signal(pid, number)]
            send_signal(wanted, number)

    def _stop_requested(self) -> None:
        """The platform's patience began with the signal: whatever happens, end within it."""
        if self._halt.hard or self._deadline is not None:
            return
        seconds = self._plan.context.settings.number("grace") + UPLOAD_SECONDS
        late = Cause("Stopped", f"not everything was saved within {seconds} s", STOPPED)
        self._deadline = threading.Timer(seconds, lambda: self._halt.request(late, hard=True))
        self._deadline.daemon = True
        self._deadline.start()

    def _work(self) -> None:
        try:
            code = self._life.run()
            if code == OK:
                self._write_success()
        except LaunchError as error:
            code = self._failed(error.cause)
        except Exception as error:
            code = self._failed(Cause("LauncherError", f"{type(error).__name__}: {error}"))
            self._process.put(lambda: code)
            raise
        self._gate.leave()
        self._tell_above(code)
        self._process.put(lambda: code)

    def _tell_above(self, code: int) -> None:
        """The launcher above, of a node with spares, learns what this beginning failed of."""
        place = self._plan.context.place
        if place is not None:
            wired = replace(self._verdict, detail="").to_wire() if self._verdict else None
            os.write(place.verdict_file, json.dumps({"code": code, "cause": wired}).encode())

    def _write_success(self) -> None:
        """An empty file beside where the failure would be, as sagemaker-training leaves it."""
        failure_file = self._plan.context.failure_file
        if failure_file is not None:
            failure_file.parent.mkdir(parents=True, exist_ok=True)
            failure_file.with_name("success").touch()

    def _failed(self, cause: Cause) -> int:
        """Tell the others, learn what the whole job failed of, and write that down."""
        host = self._topology.host
        halted = self._halt.cause
        if cause.code == STOPPED:
            verdict, code = cause.at(host), STOPPED
        elif halted is not None and halted.code == STOPPED and cause.secondary:
            # The others were stopped, too, and some were quicker.
            verdict, code = halted.at(host), STOPPED
        else:
            agreed = self._gate.fail(None if cause is COLLECTING else cause.at(host))
            verdict = (agreed or cause).at(host)
            # A hang is the whole job's, on whichever node the odd rank is.
            code = verdict.code if verdict.host == host or verdict.code == HANG else PEER
        # Of a hang, as it was found: where no node is to blame, it names none.
        self._verdict = cause if verdict.code == cause.code == HANG else verdict
        events.emit("failed", code=code, cause=verdict.headline(), detail=verdict.detail)
        if self._plan.context.failure_file is not None:
            self._plan.context.failure_file.with_name("success").unlink(missing_ok=True)
            failure.write_failure(self._plan.context.failure_file, verdict)
        return code


def _report_dead_thread(died: threading.ExceptHookArgs) -> None:
    """No thread ends in silence: what it did is not done any more, and somebody has to know."""
    name = died.thread.name if died.thread is not None else "?"
    events.emit("thread-died", thread=name, error=f"{died.exc_type.__name__}: {died.exc_value}")
    threading.__excepthook__(died)
