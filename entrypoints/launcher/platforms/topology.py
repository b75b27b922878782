"""Which nodes take part, and which one is this: from SageMaker, Slurm, or the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.causes import LaunchUsageError
from launcher.platforms.hostlist import expand_hostlist, natural_key


@dataclass(frozen=True)
class Topology:
    """The nodes of one job, in rank order; the same value on every node but for `node_rank`.

    `attempt` counts restarts of the same job (Slurm requeue); None where the platform does not
    say. `alone` is set on a node outside the distribution's instance groups, which trains alone.
    `restart` counts how often the job has begun again with other nodes (--spares).
    """

    platform: str
    hosts: tuple[str, ...]
    node_rank: int
    job: str
    attempt: int | None = None
    instance_type: str = ""
    interface: str = ""
    alone: bool = False
    restart: int = 0

    @property
    def host(self) -> str:
        """This node's name."""
        return self.hosts[self.node_rank]

    @property
    def master(self) -> str:
        """The name of node 0, where rank 0 runs."""
        return self.hosts[0]

    @property
    def nodes(self) -> int:
        """How many nodes take part."""
        return len(self.hosts)


def sagemaker_topology(
    config: Mapping[str, Any], *, job: str, groups: Sequence[str] = ()
) -> Topology:
    """Read SageMaker's resourceconfig.json, local mode's short form included.

    `groups` are the instance groups that take part in distributed training (the hyperparameter
    sagemaker_distribution_instance_groups); empty means all. A host outside them trains alone,
    as under sagemaker-training.
    """
    current = config.get("current_host")
    hosts = config.get("hosts")
    if not isinstance(current, str) or not isinstance(hosts, list) or not hosts:
        raise LaunchUsageError(
            "resourceconfig.json names no hosts: it needs current_host and a list hosts. "
            "Outside SageMaker use `launch local`."
        )
    names = sorted({str(host) for host in hosts}, key=natural_key)
    if len(names) != len(hosts):
        raise LaunchUsageError(f"resourceconfig.json names a host twice: {hosts}")
    if current not in names:
        raise LaunchUsageError(
            f"resourceconfig.json: current_host {current!r} is not among {names}"
        )
    alone = False
    if groups:
        members = _group_hosts(config, groups)
        alone = current not in members
        names = [current] if alone else [name for name in names if name in members]
    return Topology(
        platform="sagemaker",
        hosts=tuple(names),
        node_rank=names.index(current),
        job=job,
        instance_type=str(config.get("current_instance_type") or ""),
        interface=str(config.get("network_interface_name") or ""),
        alone=alone,
    )


def _group_hosts(config: Mapping[str, Any], groups: Sequence[str]) -> set[str]:
    known = {
        str(group.get("instance_group_name")): [str(host) for host in group.get("hosts", ())]
        for group in config.get("instance_groups", ())
    }
    missing = [name for name in groups if name not in known]
    if missing:
        raise LaunchUsageError(
            f"sagemaker_distribution_instance_groups names {missing}, "
            f"but resourceconfig.json has {sorted(known)}"
        )
    return {host for name in groups for host in known[name]}


def slurm_topology(env: Mapping[str, str], *, own_steps: bool = False) -> Topology:
    """Read the variables of a Slurm step with one task per node.

    The order is Slurm's, so that node 0 is the first node of the allocation, where the batch
    script ran. A step's own list wins over the job's; not with `own_steps`, where each node of the
    job has a step of its own, so that the loss of one ends no other's.
    """
    step = "" if own_steps else env.get("SLURM_STEP_NODELIST")
    listed = step or env.get("SLURM_JOB_NODELIST")
    if not listed or "SLURM_NODEID" not in env:
        raise LaunchUsageError(
            "this is not a Slurm step: SLURM_JOB_NODELIST and SLURM_NODEID are not both set. "
            "Start the launcher with srun, one task per node."
        )
    if _number(env, "SLURM_LOCALID", 0) > 0 or _tasks_per_node(env) > 1:
        raise LaunchUsageError(
            "more than one Slurm task runs on this node; the launcher starts the ranks itself: "
            "use srun --ntasks-per-node=1"
        )
    hosts = expand_hostlist(listed)
    rank = _number(env, "SLURM_NODEID", 0)
    name = env.get("SLURMD_NODENAME", "")
    if name in hosts:
        rank = hosts.index(name)
    elif own_steps and len(hosts) > 1:
        raise LaunchUsageError(f"SLURMD_NODENAME={name!r} is not among the job's nodes {listed}")
    elif not 0 <= rank < len(hosts):
        raise LaunchUsageError(
            f"SLURM_NODEID={rank} does not fit the {len(hosts)} nodes of {listed}"
        )
    return Topology(
        platform="slurm",
        hosts=tuple(hosts),
        node_rank=rank,
        job=env.get("SLURM_JOB_ID", "slurm"),
        attempt=_number(env, "SLURM_RESTART_COUNT", 0),
    )


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, "") or str(default)
    if not re.fullmatch(r"\d+", text):
        raise LaunchUsageError(f"{name}={text!r} is not a number")
    return int(text)


def _tasks_per_node(env: Mapping[str, str]) -> int:
    """The largest count in Slurm's ``2(x3),1``; 1 when the step does not say."""
    text = env.get("SLURM_STEP_TASKS_PER_NODE", "1")
    return max((int(n) for n in re.findall(r"(?:^|,)(\d+)", text)), default=1)


def local_topology(*, hosts: Sequence[str], node_rank: int, job: str) -> Topology:
    """Nodes given by hand; none means this machine alone."""
    names = tuple(hosts) or ("localhost",)
    if len(set(names)) != len(names):
        raise LaunchUsageError(f"--hosts names a host twice: {','.join(names)}")
    if not 0 <= node_rank < len(names):
        raise LaunchUsageError(f"--node-rank {node_rank} does not fit {len(names)} hosts")
    return Topology(platform="local", hosts=names, node_rank=node_rank, job=job)
