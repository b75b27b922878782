"""Checks of what Slurm says: its controller, its nodes, its configuration, its plugins. Pure."""

from __future__ import annotations

import re

from slipway.cluster.check.cluster_facts import ClusterFacts, SlurmNode
from slipway.cluster.check.fault import ClusterCheck, ClusterFault, Faults, group_nodes

#: Words of a reason for draining -> what to do before the node is taken back.
_REASONS = (
    ("low realmemory", "RealMemory in slurm.conf is more than the node has: `slurmd -C` there."),
    ("gres/gpu", "A GPU is lost: `nvidia-smi` there; on HyperPod replace the node."),
    ("kill task failed", "A process did not end (often on storage that hangs): reboot the node."),
    ("prolog", "The prolog failed: slurmd's log there says why."),
    ("epilog", "The epilog failed: slurmd's log there says why."),
    ("enroot", "Mend the rights of enroot's folders: the finding `enroot-rights` names them."),
    ("not responding", "`systemctl status slurmd` there, and the network between."),
    ("unexpectedly rebooted", "It rebooted by itself: its journal says why."),
    ("duplicate", "Two machines call themselves by this name."),
)
_RESUME = "`scontrol update NodeName={} State=RESUME` takes it back."


def _controller(facts: ClusterFacts) -> Faults:
    for line in facts.head.ping.splitlines():
        match = re.match(r"Slurmctld\((\w+)\) at (\S+) is (\w+)", line)
        if match and match[3] != "UP":
            yield ClusterFault(
                "wrong" if match[1] == "primary" else "note",
                "controller",
                (),
                f"the {match[1]} controller at {match[2]} is {match[3]}",
                f"`systemctl status slurmctld` on {match[2]}.",
            )
    if not facts.head.config and "DOWN" not in facts.head.ping:
        yield ClusterFault(
            "wrong",
            "controller",
            (),
            f"the controller does not answer: {facts.head.ping or 'nothing within 6 s'}",
            "`scontrol ping`, then `systemctl status slurmctld` where it runs.",
        )


def _by_reason(nodes: list[SlurmNode]) -> dict[str, tuple[str, ...]]:
    groups: dict[str, list[str]] = {}
    for node in nodes:
        groups.setdefault(node.reason or "Slurm gives no reason", []).append(node.name)
    return {reason: tuple(names) for reason, names in groups.items()}


def _cure_of(reason: str, names: tuple[str, ...]) -> str:
    known = next((cure for word, cure in _REASONS if word in reason.lower()), "")
    return f"{known} {_RESUME.format(','.join(names))}".strip()


def _drained(facts: ClusterFacts) -> Faults:
    drained = [n for n in facts.head.nodes if {"DRAIN", "DRAINED", "DRAINING"} & {*n.states}]
    for reason, names in _by_reason(drained).items():
        yield ClusterFault("wrong", "drained", names, f"drained: {reason}", _cure_of(reason, names))


def _down(facts: ClusterFacts) -> Faults:
    down = [
        node
        for node in facts.head.nodes
        if {"DOWN", "FAIL", "NOT_RESPONDING", "UNKNOWN"} & {*node.states}
        and not {"DRAIN", "POWERED_DOWN", "POWERING_DOWN"} & {*node.states}
    ]
    for reason, names in _by_reason(down).items():
        yield ClusterFault(
            "wrong",
            "down",
            names,
            f"down: {reason}",
            _cure_of(reason if "reason" not in reason else "not responding", names),
        )


def _registration(facts: ClusterFacts) -> Faults:
    invalid = [node for node in facts.head.nodes if "INVALID_REG" in node.states]
    for reason, names in _by_reason(invalid).items():
        yield ClusterFault(
            "wrong",
            "registration",
            names,
            f"what the node has is not what slurm.conf says: {reason}",
            "`slurmd -C` there prints the line that it should have.",
        )


def _silent(facts: ClusterFacts) -> Faults:
    groups: dict[str, list[str]] = {}
    outside = _outside_topology(facts)
    for name, why in facts.answers.silent.items():
        if not (name in outside and "topology" in why):  # Slurm 24.11; 22.05 starts things there
            groups.setdefault(why, []).append(name)
    for why, names in groups.items():
        yield ClusterFault(
            "wrong",
            "silent",
            tuple(names),
            f"idle, and nothing can be run there: {why}",
            f"`srun --nodelist={names[0]} python3 --version` has to work.",
        )


def _busy(facts: ClusterFacts) -> Faults:
    if facts.answers.busy:
        yield ClusterFault(
            "note",
            "busy",
            facts.answers.busy,
            "in use, and not looked at",
            "Run the check again when they are free.",
        )


def _versions(facts: ClusterFacts) -> Faults:
    ours = facts.head.config.get("SLURM_VERSION", "")
    odd: dict[str, list[str]] = {}
    for node in facts.head.nodes:
        if ours and node.version and node.version != ours:
            odd.setdefault(node.version, []).append(node.name)
    for version, names in odd.items():
        yield ClusterFault(
            "wrong",
            "slurm-version",
            tuple(names),
            f"slurmd is {version}, and the head node's Slurm {ours}",
            "Install the same version on all: a newer slurmd can not talk to an older controller.",
        )


def _partitions(facts: ClusterFacts) -> Faults:
    for partition in facts.head.partitions:
        if partition.state != "UP":
            yield ClusterFault(
                "wrong",
                "partition",
                (),
                f"partition {partition.name} is {partition.state}: its jobs wait",
                f"`scontrol update PartitionName={partition.name} State=UP`.",
            )


def _auto_resume(facts: ClusterFacts) -> Faults:
    """HyperPod's --auto-resume refuses both (awslabs/awsome-distributed-ai#584)."""
    machines = (facts.head.machine, *facts.machines.values())
    if not any(machine.hyperpod for machine in machines):
        return
    if "task/cgroup" in facts.head.config.get("TaskPlugin", ""):
        yield ClusterFault(
            "wrong",
            "auto-resume",
            (),
            "TaskPlugin has task/cgroup: steps with --auto-resume=1 do not start",
            "TaskPlugin=task/affinity in slurm.conf, or jobs without --auto-resume.",
        )
    flags = facts.head.config.get("PrologFlags", "").replace("(null)", "")
    if {"Alloc", "Contain"} & {*flags.split(",")}:  # Contain brings Alloc with it
        yield ClusterFault(
            "wrong",
            "auto-resume",
            (),
            f"PrologFlags={flags}: steps with --auto-resume=1 do not start",
            "Take Alloc and Contain out of PrologFlags, or run jobs without --auto-resume.",
        )


def _outside_topology(facts: ClusterFacts) -> tuple[str, ...]:
    there = facts.head.topology
    if there is None or not there.names_all:
        return ()
    return tuple(node.name for node in facts.head.nodes if node.name not in there.nodes)


def _topology(facts: ClusterFacts) -> Faults:
    plugin = facts.head.config.get("TopologyPlugin", "")
    is_wanted = "tree" in plugin or "block" in plugin
    there = facts.head.topology
    if there is None:
        if is_wanted:
            yield ClusterFault(
                "wrong",
                "topology",
                (),
                f"TopologyPlugin={plugin}, and there is no topology.conf beside slurm.conf",
                "Write one (a SwitchName with Nodes= for all), or take the plugin out of "
                "slurm.conf.",
            )
        return
    if there.file == "topology.conf" and not is_wanted:
        return  # nothing reads it
    if there.names_all and not there.nodes:
        # Of HyperPod's own agent (aws-samples/sample-physical-ai-scaffolding-kit#14, #23).
        yield ClusterFault(
            "wrong",
            "topology",
            (),
            f'{there.file} names no nodes: jobs are refused ("Requested topology configuration is '
            'not available"), or slurmctld ends again and again',
            "Name all nodes in it; or remove it, TopologyPlugin and the Topology= of partitions "
            "from slurm.conf; then `systemctl restart slurmctld`.",
        )
        return
    if missing := _outside_topology(facts):
        yield ClusterFault(
            "wrong",
            "topology",
            missing,
            f"not in {there.file}: no job gets them with others (with Slurm 24, none at all)",
            "Add them to the nodes of a switch there, then `scontrol reconfigure`.",
        )
    known = {node.name for node in facts.head.nodes}
    unknown = tuple(name for name in there.nodes if name not in known)
    if unknown:
        yield ClusterFault(
            "note",
            "topology",
            unknown,
            f"in {there.file}, and no nodes of the cluster",
            f"Take them out of {there.file}, then `scontrol reconfigure`.",
        )


def _pyxis_loaded(facts: ClusterFacts) -> Faults:
    if not facts.head.container_option:
        lines = facts.head.machine.pyxis_lines
        yield ClusterFault(
            "wrong",
            "pyxis",
            (),
            "srun has no --container-image: pyxis is not loaded here"
            + (f", although {lines[0]}" if lines else ""),
            "`required /usr/local/lib/slurm/spank_pyxis.so` in plugstack.conf of every machine "
            "(the path as it was installed); without pyxis write jobs with --runtime enroot.",
        )


def _pyxis_twice(facts: ClusterFacts) -> Faults:
    machines = {"the head node": facts.head.machine, **facts.machines}
    for text, names in group_nodes(
        machines,
        lambda machine: "; ".join(machine.pyxis_lines) if len(machine.pyxis_lines) > 1 else None,
    ).items():
        yield ClusterFault(
            "wrong",
            "pyxis-twice",
            names,
            f"pyxis is loaded twice: {text}",
            "Keep one of the lines: each srun warns, and options are registered twice.",
        )


def _pyxis_ignored(facts: ClusterFacts) -> Faults:
    """slurmd without the plugin drops its options (sample-physical-ai-scaffolding-kit#5)."""
    if not facts.head.container_option:
        return
    without = tuple(name for name, machine in facts.machines.items() if not machine.pyxis_lines)
    if without:
        yield ClusterFault(
            "wrong",
            "pyxis-ignored",
            without,
            "pyxis is not in plugstack.conf: --container-image is ignored without a word, and the "
            "job runs on the host",
            "Give them the head node's plugstack.conf, then `systemctl restart slurmd`.",
        )


SLURM_CHECKS = (
    ClusterCheck("controller", "does Slurm's controller answer", _controller),
    ClusterCheck("drained", "is a node drained, and why", _drained),
    ClusterCheck("down", "is a node down", _down),
    ClusterCheck("registration", "has a node what slurm.conf says of it", _registration),
    ClusterCheck("silent", "does an idle node run what it is given", _silent),
    ClusterCheck("busy", "which nodes were in use and could not be looked at", _busy),
    ClusterCheck("slurm-version", "do slurmd and controller have one version", _versions),
    ClusterCheck("partition", "are partitions up", _partitions),
    ClusterCheck("auto-resume", "TaskPlugin and PrologFlags on HyperPod", _auto_resume),
    ClusterCheck("topology", "does the topology name all nodes and no others", _topology),
    ClusterCheck("pyxis", "is pyxis loaded", _pyxis_loaded),
    ClusterCheck("pyxis-twice", "is pyxis loaded once", _pyxis_twice),
    ClusterCheck("pyxis-ignored", "have all nodes pyxis, too", _pyxis_ignored),
)
