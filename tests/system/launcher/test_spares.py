"""A job with a node that waits (--spares): real launchers, nodes that are cut off at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.causes import PEER
from tests.support.launcher.cluster import Cluster, Launch, cluster

#: Ends by itself where the file `go` is there.
WAITS = """
import os, signal, sys, time
names = ("RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR")
print("up", *(os.environ[name] for name in names), flush=True)
def save(number, frame):
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
"""


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path, 3) as made:
        made.script(WAITS)
        yield made


def begun(three: Cluster) -> list[Launch]:
    launches = three.train("--spares", "1", args=[str(three.root / "go")])
    for launch in launches[:2]:
        launch.wait_for_line("] up")
    launches[2].wait_for_event("begin")
    return launches


@pytest.mark.parametrize("lost", [0, 1])
def test_a_spare_takes_the_rank_of_a_lost_node_and_the_job_ends_well(
    three: Cluster, lost: int
) -> None:
    launches = begun(three)
    launches[lost].power_off()
    other = 1 - lost
    master = "127.0.0.3" if lost == 0 else "127.0.0.1"
    launches[2].wait_for_line(f"[r{lost}] up {lost} 2 {lost} {master}")
    launches[other].wait_for_line(f"[r{other}] up {other} 2 {other} {master}")
    (three.root / "go").touch()
    assert [launches[node].end() for node in (other, 2)] == [0, 0]
    for node in (other, 2):
        (told,) = launches[node].events("begin-again")
        assert told["text"].startswith(
            f"127.0.0.{lost + 1}: the connection to its launcher was lost; 127.0.0.3 takes its "
            "place; "
        )


def test_a_lost_spare_disturbs_nobody_and_with_the_next_loss_the_job_ends(three: Cluster) -> None:
    launches = begun(three)
    launches[2].power_off()
    for launch in launches[:2]:
        launch.wait_for_event("spares")
        assert sum("] up" in line for line in launch.lines) == 1
    launches[1].power_off()
    assert launches[0].end() == PEER
    assert "no spare is left" in launches[0].events("over")[0]["text"]
    assert "NodeLost" in three.nodes[0].failure


def test_a_stop_lets_ranks_save_and_ends_the_spare_too(three: Cluster) -> None:
    launches = begun(three)
    for launch in launches:
        launch.signal(signal.SIGTERM)
    assert [launch.end() for launch in launches[:2]] == [0, 0]
    launches[2].end()
    for rank in (0, 1):
        assert f"[r{rank}] saved" in launches[rank].lines
    assert not launches[2].events("begin-again")
