"""Which nodes take part, in which order, and which one this is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.causes import LaunchUsageError
from launcher.platforms import Topology, local_topology, sagemaker_topology, slurm_topology

TWELVE = [f"algo-{n}" for n in range(1, 13)]


def sagemaker(current: str, hosts: list[str], **more: Any) -> Topology:
    config = {"current_host": current, "hosts": hosts, **more}
    return sagemaker_topology(config, job="job")


def test_node_ranks_follow_the_numbers_in_sagemakers_host_names() -> None:
    lexicographic = sorted(TWELVE)
    assert lexicographic[1] == "algo-10"
    found = sagemaker("algo-10", lexicographic)
    assert found.hosts == tuple(TWELVE)
    assert (found.node_rank, found.master) == (9, "algo-1")


@given(st.permutations(TWELVE), st.sampled_from(TWELVE))
def test_every_node_sees_the_same_order_whatever_its_file_says(hosts: list[str], me: str) -> None:
    found = sagemaker(me, hosts)
    assert found.hosts == tuple(TWELVE)
    assert found.host == me


def test_local_modes_short_resource_config_is_enough() -> None:
    found = sagemaker("algo-1-x", ["algo-1-x"], current_instance_type="local")
    assert (found.nodes, found.interface, found.instance_type) == (1, "", "local")


def test_the_interface_and_type_come_from_the_resource_config() -> None:
    found = sagemaker(
        "a", ["a"], network_interface_name="eth1", current_instance_type="ml.p5.48xlarge"
    )
    assert (found.interface, found.instance_type) == ("eth1", "ml.p5.48xlarge")


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"current_host": "a"},
        {"current_host": "a", "hosts": []},
        {"current_host": "a", "hosts": ["b"]},
        {"current_host": "a", "hosts": ["a", "a"]},
        {"current_host": "a", "hosts": "a"},
    ],
)
def test_a_resource_config_that_can_not_be_true_is_a_usage_error(config: dict[str, Any]) -> None:
    with pytest.raises(LaunchUsageError):
        sagemaker_topology(config, job="job")


GROUPS = [
    {"instance_group_name": "train", "hosts": ["algo-2", "algo-3"]},
    {"instance_group_name": "data", "hosts": ["algo-1"]},
]


@pytest.mark.parametrize(
    ("me", "hosts", "rank", "alone"),
    [
        ("algo-3", ("algo-2", "algo-3"), 1, False),
        ("algo-1", ("algo-1",), 0, True),
    ],
)
def test_only_the_distributions_instance_groups_train_together(
    me: str, hosts: tuple[str, ...], rank: int, alone: bool
) -> None:
    config = {"current_host": me, "hosts": TWELVE[:3], "instance_groups": GROUPS}
    found = sagemaker_topology(config, job="job", groups=["train"])
    assert (found.hosts, found.node_rank, found.alone) == (hosts, rank, alone)


def test_an_unknown_instance_group_is_a_usage_error_that_lists_the_known() -> None:
    config = {"current_host": "algo-1", "hosts": TWELVE[:3], "instance_groups": GROUPS}
    with pytest.raises(LaunchUsageError, match=r"\['gpu'\].*\['data', 'train'\]"):
        sagemaker_topology(config, job="job", groups=["gpu"])


STEP = {
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NODELIST": "q[1-4]",
    "SLURM_STEP_NODELIST": "q[3-4]",
    "SLURM_NODEID": "1",
    "SLURMD_NODENAME": "q4",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
}


def test_a_slurm_steps_own_nodes_win_over_the_jobs() -> None:
    found = slurm_topology(STEP)
    assert (found.hosts, found.node_rank, found.job) == (("q3", "q4"), 1, "77")


def test_a_requeued_slurm_job_is_another_attempt() -> None:
    assert slurm_topology(STEP).attempt == 0
    assert slurm_topology({**STEP, "SLURM_RESTART_COUNT": "2"}).attempt == 2


def test_the_node_id_is_used_where_slurm_gives_no_name() -> None:
    env = {name: value for name, value in STEP.items() if name != "SLURMD_NODENAME"}
    assert slurm_topology({**env, "SLURM_NODEID": "0"}).host == "q3"


@pytest.mark.parametrize(
    "change",
    [
        {"SLURM_LOCALID": "1"},
        {"SLURM_STEP_TASKS_PER_NODE": "8(x2)"},
        {"SLURM_STEP_TASKS_PER_NODE": "1,2"},
        {"SLURM_NODEID": "x", "SLURMD_NODENAME": ""},
        {"SLURM_NODEID": "5", "SLURMD_NODENAME": ""},
        {"SLURM_STEP_NODELIST": "", "SLURM_JOB_NODELIST": ""},
    ],
)
def test_a_slurm_step_that_does_not_fit_is_a_usage_error(change: dict[str, str]) -> None:
    with pytest.raises(LaunchUsageError):
        slurm_topology({**STEP, **change})


def test_without_hosts_this_machine_is_the_cluster() -> None:
    found = local_topology(hosts=[], node_rank=0, job="x")
    assert (found.nodes, found.master) == (1, "localhost")


def test_a_node_rank_outside_the_hosts_is_a_usage_error() -> None:
    with pytest.raises(LaunchUsageError, match="2 hosts"):
        local_topology(hosts=["a", "b"], node_rank=2, job="x")
