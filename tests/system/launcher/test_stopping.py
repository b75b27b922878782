"""What is left when launchers are killed, and what stopped processes (SIGSTOP) hold up: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.causes import STOPPED
from launcher.ranks import rank_processes
from tests.support.launcher.cluster import PATIENCE, Cluster, Launch, cluster

#: Ignores SIGTERM, as a rank in a collective does, and has a worker.
STUBBORN = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
worker = subprocess.Popen(["sleep", "infinity"], env={}, start_new_session=True)
print("up", os.getpid(), worker.pid, flush=True)
while True: signal.pause()
"""

SAVES = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(0)))
print("up", os.getpid(), flush=True)
while True: signal.pause()
"""

#: Stops processes above it, and ends.
STOPS_ITS_LAUNCHER = """
import os, signal, sys
above, pid = [], os.getppid()
while len(above) < 3:
    above.append(pid)
    pid = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
for number in map(int, sys.argv[1].split(",")):
    os.kill(above[number], signal.SIGSTOP)
print("stopped", flush=True)
"""

#: Stops the topmost of the launcher's processes while that has no core to run on.
STOPS_A_STARVED_LAUNCHER = """
import os, signal, sys
top = pid = os.getppid()
for _ in range(2):
    pid, top = top, int(open(f"/proc/{top}/stat").read().rpartition(")")[2].split()[1])
for one in (os.getppid(), pid):
    os.sched_setaffinity(one, os.sched_getaffinity(0) - {int(sys.argv[1])})
os.sched_setaffinity(top, {int(sys.argv[1])})
os.kill(top, signal.SIGSTOP)
print("stopped", flush=True)
"""

SPINS = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
while True: pass
"""


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path, 1) as made:
        yield made


def started(one: Cluster, *options: str) -> tuple[Launch, list[int]]:
    """A launch whose rank is up: the launcher's processes from the top, and the rank's."""
    (launch,) = one.train(*options)
    launch.wait_for_line("] up")
    table = rank_processes.process_table()
    chain = [launch.process.pid]
    while len(chain) < 3:
        chain += [process.pid for process in table.values() if process.parent == chain[-1]][:1]
    return launch, chain


@pytest.mark.parametrize("killed", [[0], [1], [2], [0, 2], [0, 1], [1, 2]])
def test_whichever_of_its_processes_is_killed_no_rank_is_left(
    one: Cluster, killed: list[int]
) -> None:
    one.script(STUBBORN)
    launch, chain = started(one, "--grace", "2")
    line = next(line for line in launch.lines if "] up" in line)
    below = [int(word) for word in line.split()[-2:]]
    for number in killed:
        os.kill(chain[number], signal.SIGKILL)
    launch.end()
    until = time.monotonic() + PATIENCE
    while left := [pid for pid in [*chain, *below] if pid in rank_processes.process_table()]:
        assert time.monotonic() < until, f"{left} are left"
        time.sleep(0.05)


def test_a_stopped_rank_hears_a_stop_and_saves(one: Cluster) -> None:
    one.script(SAVES)
    launch, _ = started(one, "--grace", "600")
    line = next(line for line in launch.lines if "] up" in line)
    os.kill(int(line.split()[-1]), signal.SIGSTOP)
    launch.signal(signal.SIGTERM)
    assert launch.end() == 0
    assert "[r0] saved" in launch.lines
    assert launch.events("woken")


@pytest.mark.parametrize("stopped", ["0", "1", "2", "0,1", "0,2", "1,2"])
def test_a_rank_that_stops_its_launcher_does_not_hold_up_the_job(
    one: Cluster, stopped: str
) -> None:
    one.script(STOPS_ITS_LAUNCHER)
    (launch,) = one.train(args=[stopped])
    assert launch.end() == 0
    assert "[r0] stopped" in launch.lines


def test_a_stop_of_the_launcher_that_takes_effect_late_does_not_hold_up_the_job(
    one: Cluster,
) -> None:
    one.script(STOPS_A_STARVED_LAUNCHER)
    core = max(os.sched_getaffinity(0))
    # Whatever else is on that core has a twentieth of it, in one stretch a second (sched(7)).
    with subprocess.Popen([sys.executable, "-c", SPINS, str(core)]) as neighbour:
        try:
            (launch,) = one.train(args=[str(core)])
            assert launch.end() == 0
        finally:
            neighbour.kill()
    assert "[r0] stopped" in launch.lines


def test_a_stop_that_comes_while_the_launcher_is_stopped_is_heard(one: Cluster) -> None:
    one.script(SAVES)
    launch, chain = started(one)
    for pid in chain[:2]:
        os.kill(pid, signal.SIGSTOP)
    launch.signal(signal.SIGTERM)
    assert launch.end() in (0, STOPPED)
    assert "[r0] saved" in launch.lines
