"""Checks of a cluster are functions of facts: each fault is named, a healthy cluster has none."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.cluster.check import cluster_check, cluster_facts, node_probe
from slipway.cluster.check.cluster_facts import (
    ClusterFacts,
    HeadFacts,
    InstanceNeeds,
    MachineFacts,
    NodeAnswers,
    PlaceFacts,
    SlurmNode,
    SlurmPartition,
    SlurmTopology,
)
from slipway.cluster.slurm import Answer

ROOT = Path(__file__).parents[3]
GB = 1_000_000_000
P5 = "p5.48xlarge"


def place(path: str, mount: str = "/", kind: str = "ext4", total: int = 500) -> PlaceFacts:
    return PlaceFacts(path, path, True, mount, kind, total * GB, total * GB // 2, 1000, 900)


NVME = place("/opt/dlami/nvme", "/opt/dlami/nvme", "xfs", 7000)
MACHINE = MachineFacts(
    time=100.5,
    user="ann",
    uid=1000,
    kernel="6.8.0",
    os="ubuntu 22.04",
    hyperpod=True,
    product=P5,
    tools=("enroot", "squashfuse"),
    places={
        "root": place("/"),
        "tmp": place("/tmp"),
        "home": place("/fsx/home/ann", "/fsx", "lustre"),
        "ENROOT_DATA_PATH": replace(NVME, path="/opt/dlami/nvme/enroot/data"),
        "docker": replace(NVME, path="/opt/dlami/nvme/docker"),
    },
    disks=(NVME,),
    fuse=True,
    user_namespaces=(100000, 1, 0),
    memlock=-1,
    nofile=1048576,
    interfaces={"ens32": 9001},
    efa=32,
    verbs=32,
    gpus=8,
    driver="580.1",
    plugstack=("/etc/slurm/plugstack.conf: required spank_pyxis.so",),
    files={"/fsx/x.sqsh": 7},
)
NAMES = ("n1", "n2", "n3")
HEALTHY = ClusterFacts(
    HeadFacts(
        machine=replace(MACHINE, product="", gpus=0, efa=0, verbs=0, driver=""),
        config={"TaskPlugin": "task/affinity", "SLURM_VERSION": "24.05.4", "PrologFlags": "(null)"},
        nodes=tuple(SlurmNode(name, ("IDLE",), "", "24.05.4", 8, ("all",)) for name in NAMES),
        partitions=(SlurmPartition("all", "UP", NAMES, True),),
        ping="Slurmctld(primary) at c0 is UP",
        container_option=True,
        topology=None,
        marked=True,
    ),
    NodeAnswers(dict.fromkeys(NAMES, MACHINE), began=100.0, ended=101.0),
    {P5: InstanceNeeds(8, 32)},
)

EMPTY = SlurmTopology("topology.yaml", (), True)
#: As topology.yaml(5) has it.
TREE_YAML = """\
---
- topology: topo1
  cluster_default: true
  tree:
    switches:
      - switch: s_root
        children: s[1-2]
      - switch: s1
        nodes: n[1,3]
      - switch: s2
        nodes: n2
"""

Change = Callable[[ClusterFacts], ClusterFacts]


def node(name: str = "n2", **fields: object) -> Change:
    """One node's own answer is other."""

    def change(facts: ClusterFacts) -> ClusterFacts:
        machines = dict(facts.machines)
        machines[name] = replace(machines[name], **fields)  # type: ignore[arg-type]
        return replace(facts, answers=replace(facts.answers, machines=machines))

    return change


def disk(name: str, **fields: object) -> Change:
    """n2 has a place with other properties."""
    places = {**MACHINE.places, name: replace(MACHINE.places[name], **fields)}  # type: ignore[arg-type]
    return node(places=places)


def head(**fields: object) -> Change:
    return lambda facts: replace(facts, head=replace(facts.head, **fields))  # type: ignore[arg-type]


def config(**values: str) -> Change:
    return head(config={**HEALTHY.head.config, **values})


def slurm_node(**fields: object) -> Change:
    """Slurm says something else of n2."""
    first, second, third = HEALTHY.head.nodes
    return head(nodes=(first, replace(second, **fields), third))  # type: ignore[arg-type]


def answers(**fields: object) -> Change:
    return lambda facts: replace(facts, answers=replace(facts.answers, **fields))  # type: ignore[arg-type]


TWO_LINES = ("a: required spank_pyxis.so", "b: required spank_pyxis.so")
ON_ROOT = {"mount": "/", "total": 500 * GB, "free": 400 * GB}

#: kind, nodes, what is changed, part of the text or of the cure
FAULTS: tuple[tuple[str, str, Change, str], ...] = (
    ("controller", "", head(ping="Slurmctld(primary) at c0 is DOWN"), "primary controller at c0"),
    ("controller", "", head(ping="", config={}), "does not answer"),
    ("drained", "n2", slurm_node(states=("IDLE", "DRAIN"), reason="Low RealMemory"), "slurmd -C"),
    ("drained", "n2", slurm_node(states=("MIXED", "DRAIN"), reason="odd"), "drained: odd"),
    ("down", "n2", slurm_node(states=("DOWN",), reason="Not responding"), "systemctl"),
    ("down", "n2", slurm_node(states=("IDLE", "NOT_RESPONDING")), "no reason"),
    ("registration", "n2", slurm_node(states=("IDLE", "INVALID_REG")), "slurmd -C"),
    ("silent", "n2", answers(silent={"n2": "python3: not found"}), "python3: not found"),
    ("busy", "n2", answers(busy=("n2",)), "in use"),
    ("slurm-version", "n2", slurm_node(version="23.02.1"), "slurmd is 23.02.1"),
    ("partition", "", head(partitions=(SlurmPartition("p", "DRAIN", NAMES, False),)), "p is DRAIN"),
    ("auto-resume", "", config(TaskPlugin="task/affinity,task/cgroup"), "task/cgroup"),
    ("auto-resume", "", config(PrologFlags="Contain,X11"), "PrologFlags=Contain,X11"),
    ("topology", "", config(TopologyPlugin="topology/tree"), "no topology.conf"),
    ("topology", "", config(TopologyPlugin="topology/block"), "no topology.conf"),
    ("topology", "", head(topology=EMPTY), "topology.yaml names no nodes"),
    ("topology", "n3", head(topology=replace(EMPTY, nodes=("n1", "n2"))), "not in topology.yaml"),
    ("topology", "n9", head(topology=replace(EMPTY, nodes=(*NAMES, "n9"))), "no nodes of the"),
    ("pyxis", "", head(container_option=False), "--container-image"),
    ("pyxis-twice", "n2", node(plugstack=TWO_LINES), "a: required spank_pyxis.so; b:"),
    ("pyxis-ignored", "n2", node(plugstack=()), "runs on the host"),
    ("pyxis-ignored", "n2", node(plugstack=None), "runs on the host"),
    ("enroot", "n2", node(tools=("squashfuse",)), "not installed"),
    ("enroot-rights", "n2", disk("ENROOT_DATA_PATH", writable=False), "data /opt/dlami/nvme/enr"),
    ("enroot-disk", "n2", disk("ENROOT_DATA_PATH", **ON_ROOT), "/opt/dlami/nvme has 3.5 TB"),
    ("enroot-disk", "n2", disk("ENROOT_DATA_PATH", type="lustre"), "on lustre"),
    ("enroot-disk", "n2", disk("ENROOT_DATA_PATH", type="tmpfs"), "is memory"),
    ("docker-disk", "n2", disk("docker", **ON_ROOT), "Docker's data"),
    ("tmp", "n2", disk("tmp", total=GB, mount="/tmp", type="tmpfs"), "/tmp has 1 GB"),
    ("space", "n2", disk("root", free=GB), "/ has 1 GB left"),
    ("space", "n2", disk("home", free_inodes=3), "3 inodes left"),
    ("home", "n2", node(home_shared=False), "not the head node's"),
    ("home", "", head(marked=False), "may not write its home directory"),
    ("user", "n2", node(user=""), "user 1000 is unknown there"),
    ("clock", "n2", node(time=90.0), "10 s behind"),
    ("clock", "n2", node(time=401.0), "300 s ahead"),
    ("mtu", "n2", node(interfaces={"ens32": 1500}), "n2: MTU 1500"),
    ("efa", "n2", node(efa=31), "31 EFA interfaces, and p5.48xlarge has 32"),
    ("efa", "n2", node(verbs=0), "and 0 in /dev/infiniband"),
    ("gpus", "n2", node(gpus=7), "7 GPUs, and p5.48xlarge has 8"),
    ("gpus", "n2", node(product="", gpus=7), "7 GPUs, and Slurm gives out 8"),
    ("driver", "n2", node(driver="570.9"), "n2: driver 570.9"),
    ("driver", "n2", node(driver=""), "no driver loaded"),
    ("system", "n2", node(kernel="5.15"), "kernel 5.15"),
    ("limits", "n2", node(memlock=65536), "memlock is 65.5 kB"),
    ("limits", "n2", node(nofile=1024), "at most 1024 open files"),
    ("fuse", "n2", node(fuse=False), "/dev/fuse"),
    ("fuse", "n2", node(tools=("enroot",)), "squashfuse"),
    ("user-namespaces", "n2", node(user_namespaces=(0, None, None)), "max_user_namespaces"),
    ("user-namespaces", "n2", node(user_namespaces=(9, None, 1)), "apparmor_restrict"),
    ("names", "n2", node(unresolved=("n1", "n3")), "no address of n1, n3"),
    ("sqsh", "n2", node(files={"/fsx/x.sqsh": 8}), "n2: 8 bytes"),
    ("sqsh", "n2", node(files={"/fsx/x.sqsh": -1}), "is not there"),
)


@pytest.mark.parametrize(("kind", "nodes", "change", "told"), FAULTS)
def test_each_fault_is_the_only_one_that_is_named(
    kind: str, nodes: str, change: Change, told: str
) -> None:
    (fault,) = cluster_check.find_faults(change(HEALTHY))
    assert (fault.kind, ",".join(fault.nodes)) == (kind, nodes)
    assert told in f"{fault.text} {fault.cure}"


def test_a_healthy_cluster_has_no_fault() -> None:
    assert cluster_check.find_faults(HEALTHY) == ()


def test_every_check_is_tried_and_documented_and_finds_what_it_is_called() -> None:
    kinds = [check.kind for check in cluster_check.CHECKS]
    assert len(kinds) == len(set(kinds))
    assert {kind for kind, *_ in FAULTS} == set(kinds)
    page = (ROOT / "docs" / "cluster.md").read_text()
    for check in cluster_check.CHECKS:
        assert f"| `{check.kind}` | {check.question}" in page


def test_any_faults_together_are_all_named() -> None:
    """Of one node each; those that change the same fact are not together."""
    chance = random.Random(7)
    alone = [
        ("home", node("n1", home_shared=False)),
        ("clock", node("n1", time=0.0)),
        ("names", node("n3", unresolved=("n2",))),
        ("mtu", node("n2", interfaces={"ens32": 1500})),
        ("driver", node("n3", driver="1")),
        ("limits", node("n1", nofile=10)),
        ("user", node("n2", uid=7)),
        ("system", node("n1", os="al2023")),
        ("pyxis-ignored", node("n3", plugstack=())),
        ("pyxis", head(container_option=False)),
        ("drained", slurm_node(states=("DRAIN",))),
    ]
    for _ in range(50):
        chosen = chance.sample(alone, chance.randrange(2, len(alone)))
        names = {name for name, _ in chosen}
        if "pyxis" in names:
            names.discard("pyxis-ignored")  # without pyxis nothing is ignored
        if {"pyxis", "drained"} <= names:
            continue  # both replace the head's answer
        facts = HEALTHY
        for _, change in chosen:
            facts = change(facts)
        assert {fault.kind for fault in cluster_check.find_faults(facts)} == names


def test_the_same_fault_of_many_nodes_is_one_line() -> None:
    names = [f"n{number}" for number in range(100)]
    machines = dict.fromkeys(names, replace(MACHINE, fuse=False))
    (fault,) = cluster_check.find_faults(replace(HEALTHY, answers=NodeAnswers(machines, ended=200)))
    assert fault.place == "n0, n1, n2, n3, n4, n5 and 94 more"


def test_auto_resume_is_of_hyperpod_only() -> None:
    facts = config(TaskPlugin="task/cgroup", PrologFlags="Alloc,Contain")(HEALTHY)
    other = replace(MACHINE, hyperpod=False)
    facts = replace(facts, answers=NodeAnswers(dict.fromkeys(NAMES, other), ended=200))
    facts = replace(facts, head=replace(facts.head, machine=replace(other, product="")))
    assert cluster_check.find_faults(facts) == ()


#: Recorded of Slurm 22.05, but for the Gres of n2.
NODES = """\
NodeName=n1 Arch=x86_64 CoresPerSocket=1  CPUAlloc=0 CPUEfctv=2 CPUTot=2 CPULoad=3.83 \
AvailableFeatures=(null) ActiveFeatures=(null) Gres=(null) NodeAddr=10.77.0.4 NodeHostName=n1 \
Port=7003 Version=22.05.8 OS=Linux 6.18 #1 SMP PREEMPT_DYNAMIC @0  RealMemory=1000 AllocMem=0 \
FreeMem=5852 Sockets=2 Boards=1 State=IDLE+DRAIN ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A \
MCS_label=N/A Partitions=three  BootTime=1 SlurmdStartTime=1 LastBusyTime=1 CfgTRES=cpu=2 \
AllocTRES= CapWatts=n/a ExtSensorsTemp=n/s Reason=enroot: rights of State=DOWN [root@1795865112]
NodeName=n2 Arch=x86_64 Gres=gpu:h100:8(S:0-1),gdr:1 Version=22.05.8 State=IDLE* Partitions=a,b
"""


def test_what_slurm_says_of_nodes_is_read() -> None:
    facts = {
        **json_of(MACHINE),
        "config": {},
        "nodes": NODES,
        "partitions": "PartitionName=all Default=YES Nodes=n[1-2] State=UP TotalNodes=2\n",
        "lists": {"n[1-2]": ["n1", "n2"]},
        "ping": "",
        "container_option": False,
        "topology": {"file": "topology.conf", "nodes": ["n[1-2]", "n9"], "names_all": True},
        "marked": True,
    }
    told = cluster_facts.parse_head(facts)
    assert told.nodes == (
        SlurmNode(
            "n1", ("IDLE", "DRAIN"), "enroot: rights of State=DOWN", "22.05.8", 0, ("three",)
        ),
        SlurmNode("n2", ("IDLE",), "", "22.05.8", 8, ("a", "b")),
    )
    assert told.partitions == (SlurmPartition("all", "UP", ("n1", "n2"), True),)
    assert told.topology == SlurmTopology("topology.conf", ("n1", "n2", "n9"), True)
    assert told.machine == replace(MACHINE, home_shared=True)


@pytest.mark.parametrize(
    ("files", "nodes", "names_all"),
    [
        ({"topology.conf": "SwitchName=s1 Nodes=n[1-2]\nswitchname=top Switches=s1\n"},
         ["n[1-2]"], True),
        ({"topology.conf": "# none yet\n"}, [], True),
        ({"topology.conf": "BlockName=b1 Nodes=n1,n2\nBlockSizes=2\n"}, ["n1,n2"], False),
        ({"topology.yaml": "[]\n", "topology.conf": "SwitchName=s1 Nodes=n1\n"}, [], True),
        ({"topology.yaml": TREE_YAML}, ["n[1,3]", "n2"], True),
        ({"topology.yaml": TREE_YAML + "- topology: rest\n  flat: true\n"},
         ["n[1,3]", "n2"], False),
        ({"topology.yaml": '- {topology: b, block: {blocks: [{block: b1, nodes: "n[1-2]"}]}}\n'},
         ["n[1-2]"], False),
    ],
)  # fmt: skip
def test_topologies_are_read_in_both_forms(
    tmp_path: Path, files: dict[str, str], nodes: list[str], names_all: bool
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    wanted = {"file": sorted(files)[-1], "nodes": nodes, "names_all": names_all}
    assert node_probe.topology_facts(tmp_path) == wanted


def test_nodes_outside_the_topology_that_slurm_24_starts_nothing_on_are_told_once() -> None:
    refused = "Unable to allocate resources: Requested topology configuration is not available"
    outside = head(topology=replace(EMPTY, nodes=("n1",)))(HEALTHY)
    machines = {"n1": MACHINE}
    facts = answers(machines=machines, silent={"n2": refused, "n3": refused})(outside)
    assert {(f.kind, f.nodes) for f in cluster_check.find_faults(facts)} == {
        ("topology", ("n2", "n3"))
    }
    facts = answers(machines=machines, silent={"n2": refused, "n3": "it hangs"})(outside)
    assert ("silent", ("n3",)) in {(f.kind, f.nodes) for f in cluster_check.find_faults(facts)}


@pytest.mark.parametrize(
    ("words", "is_busy"),
    [
        ("Requested nodes are busy", True),
        ("Immediate execution impossible, insufficient priority", True),
        ("Requested topology configuration is not available", False),  # recorded of Slurm 24.11
        ("Requested node configuration is not available", False),
        ("Invalid account or account/partition combination specified", False),
    ],
)
def test_a_node_that_srun_refuses_is_in_use_only_where_srun_says_so(
    words: str, is_busy: bool
) -> None:
    answer = Answer(1, "", f"srun: error: Unable to allocate resources: {words}\n")
    summed = cluster_check._sum_up([(("n1",), answer)], [])
    assert summed.busy == (("n1",) if is_busy else ())
    assert ("n1" in summed.silent) != is_busy


def test_a_cluster_without_a_topology_or_with_a_whole_one_is_well(tmp_path: Path) -> None:
    assert node_probe.topology_facts(tmp_path) is None
    for there in (
        SlurmTopology("topology.yaml", NAMES, True),
        SlurmTopology("topology.yaml", ("n1",), False),  # the others are of a flat one
        SlurmTopology("topology.yaml", (), False),
        SlurmTopology("topology.conf", (), True),  # which no plugin reads
    ):
        assert cluster_check.find_faults(head(topology=there)(HEALTHY)) == ()


def json_of(machine: MachineFacts) -> dict[str, object]:
    """As the probe prints it."""
    text = json.dumps(machine.__dict__, default=lambda part: part.__dict__)
    parsed: dict[str, object] = json.loads(text)
    return parsed


def test_answers_that_are_mixed_cut_or_odd_are_told_apart() -> None:
    """srun mixes lines of nodes; a node's profile may print anything."""
    text = json.dumps(json_of(MACHINE))
    parts = [text[at : at + 400] for at in range(0, len(text), 400)]
    lines = [f"{n} {at} {len(parts)} {part}" for n in ("n1", "n2") for at, part in enumerate(parts)]
    lines.remove(f"n2 1 {len(parts)} {parts[1]}")
    lines += ["Welcome to n3!", "n4 0 1 {}", "100.25", "101.5"]
    random.Random(3).shuffle(lines)
    clock, machines, unread = cluster_check.parse_answers(Answer(0, "\n".join(lines), ""))
    assert sorted(clock) == [100.25, 101.5]
    assert machines == {"n1": MACHINE}
    assert unread == {
        "n2": "its answer is cut",
        "n4": "its answer can not be read: KeyError('plugstack')",
    }


def test_the_probe_says_of_this_machine_what_can_be_read(tmp_path: Path) -> None:
    """It runs as on a node: from stdin, with nothing of Slipway."""
    request = {
        "mark": ".mark",
        "names": ["localhost", "no-such-name.invalid"],
        "files": [__file__, "/none"],
        "plugstack": str(tmp_path / "plugstack.conf"),
    }
    (tmp_path / "more").mkdir()
    (tmp_path / "plugstack.conf").write_text(
        "# required x.so\ninclude more/*.conf\nrequired a.so\n"
    )
    (tmp_path / "more" / "b.conf").write_text("optional spank_pyxis.so x=1\n")
    (tmp_path / ".mark").touch()
    probe = Path(cluster_check.__file__).with_name("node_probe.py").read_bytes()
    ended = subprocess.run(
        [sys.executable, "-I", "-", "node", json.dumps(request)],
        input=probe,
        env={"HOME": str(tmp_path), "SLURMD_NODENAME": "n7", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=True,
    )
    assert max(map(len, ended.stdout.splitlines())) < 500
    _, machines, unread = cluster_check.parse_answers(Answer(0, ended.stdout.decode(), ""))
    assert unread == {}
    machine = machines["n7"]
    assert machine.home_shared
    assert machine.unresolved == ("no-such-name.invalid",)
    assert machine.files == {__file__: Path(__file__).stat().st_size, "/none": -1}
    assert machine.pyxis_lines == (f"{tmp_path}/more/b.conf: optional spank_pyxis.so x=1",)
    assert machine.plugstack == (
        *machine.pyxis_lines,
        f"{tmp_path}/plugstack.conf: required a.so",
    )
    assert machine.places["home"].path == str(tmp_path)
