"""Nodes that wait: which they are, what is refused, and at which ports all meet."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher import context, plan
from launcher.causes import LaunchUsageError
from launcher.platforms import (
    PLACE_VARIABLE,
    AttemptPlace,
    local_topology,
    make_pool,
    muster_port,
    read_place,
    rendezvous_port,
    slurm_topology,
)

STEP = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NODELIST": "n[1-3]",
    "SLURM_STEP_NODELIST": "n3",
    "SLURM_NODEID": "0",
    "SLURMD_NODENAME": "n3",
}


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "train.py").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def gathered(spares: str, env: dict[str, str]) -> context.Context:
    return context.gather_context("slurm", {"spares": spares}, ["train.py"], env)


def test_with_a_step_for_each_node_the_nodes_are_the_jobs(script: Path) -> None:
    del script
    found = gathered("1", STEP)
    assert found.pool is not None
    assert (found.pool.hosts, found.pool.host, found.pool.waits) == (("n1", "n2", "n3"), "n3", True)
    assert found.topology.hosts == ("n1", "n2")
    text = plan.plan_text(plan.plan_launch(found))
    assert "spares     1: n3; one takes the place of a node that is lost or hangs" in text
    assert "port 29498 of n1" in text
    assert "n3 waits" in text


@pytest.mark.parametrize(
    ("spares", "nodes", "told"),
    [
        ("3", "n[1-3]", "--spares 3: of 3 nodes none would be left to train"),
        ("9", "n[1-3]", "--spares 9: of 3 nodes none would be left to train"),
        ("1", "n3", "--spares 1: this job has one node, which has to train"),
        ("-1", "n[1-3]", "--spares='-1' is not a whole number"),
        ("x", "n[1-3]", "--spares='x' is not a whole number"),
    ],
)
def test_a_wrong_number_of_spares_is_refused_in_a_line(
    script: Path, spares: str, nodes: str, told: str
) -> None:
    del script
    with pytest.raises(LaunchUsageError) as refused:
        gathered(spares, {**STEP, "SLURM_JOB_NODELIST": nodes})
    assert str(refused.value) == told


def test_a_node_that_slurm_does_not_name_is_refused() -> None:
    with pytest.raises(LaunchUsageError, match="SLURMD_NODENAME='x' is not among the job's nodes"):
        slurm_topology({**STEP, "SLURMD_NODENAME": "x"}, own_steps=True)


def test_below_a_launcher_with_spares_its_place_counts_and_it_restarts_nothing_itself(
    script: Path,
) -> None:
    del script
    place = AttemptPlace(("n3", "n2"), 0, restart=2, verdict_file=9)
    found = gathered("1", {**STEP, PLACE_VARIABLE: place.to_variable(), "LAUNCH_MAX_RESTARTS": "5"})
    assert (found.pool, found.place) == (None, place)
    assert (found.topology.hosts, found.topology.host) == (("n3", "n2"), "n3")
    assert found.settings.number("max-restarts") == 0
    assert found.settings.text("on-hang") == "stop"
    made = plan.plan_launch(found)
    assert plan.assumed_layout(made).port == 29502
    assert made.log_dir.parent.name == "7-0.2"
    assert {change.name: change.value for change in made.changes}[PLACE_VARIABLE] is None


def test_what_the_user_says_of_hangs_stands(script: Path) -> None:
    del script
    place = AttemptPlace(("n3", "n2"), 0, restart=0)
    env = {**STEP, PLACE_VARIABLE: place.to_variable(), "LAUNCH_ON_HANG": "report"}
    assert gathered("1", env).settings.text("on-hang") == "report"


@pytest.mark.parametrize("text", ["", "{}", "[1]", json.dumps({"hosts": ["a"], "more": 1}), "x"])
def test_a_place_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(LaunchUsageError, match="is not for a job to set"):
        read_place({PLACE_VARIABLE: text})


@given(st.integers(1, 8), st.integers(0, 9))
def test_a_pool_leaves_somebody_to_train(nodes: int, spares: int) -> None:
    topology = local_topology(hosts=[f"h{n}" for n in range(nodes)], node_rank=0, job="j")
    try:
        pool = make_pool(replace(topology), spares, "--spares")
    except LaunchUsageError:
        assert spares >= nodes
        return
    assert (pool is None) == (spares == 0)
    assert pool is None or pool.training == nodes - spares > 0


@given(st.integers(2000, 60000), st.integers(2000, 60000), st.integers(0, 30))
def test_no_beginning_meets_at_a_port_of_the_launchers(port: int, gate: int, restart: int) -> None:
    if port == gate:
        return
    muster, meeting = muster_port(port, gate), rendezvous_port(port, gate, restart)
    assert len({muster, gate, meeting}) == 3
