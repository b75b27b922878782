"""`inv cluster.check`: facts gathered once, by two commands on the head node; then pure checks."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from slipway.cluster import launcher_tables
from slipway.cluster.check.cluster_facts import (
    ClusterFacts,
    HeadFacts,
    InstanceNeeds,
    MachineFacts,
    NodeAnswers,
    SlurmNode,
    parse_head,
    parse_machine,
)
from slipway.cluster.check.fault import ClusterFault, some_nodes
from slipway.cluster.check.node_checks import NODE_CHECKS
from slipway.cluster.check.slurm_checks import SLURM_CHECKS
from slipway.cluster.option_values import absolute_path
from slipway.cluster.slurm import Answer, HeadNode
from slipway.core import Project, SlipwayError, UsageError, print_json, print_table, printable, say

CHECKS = (*SLURM_CHECKS, *NODE_CHECKS)

_PROBE = Path(__file__).with_name("node_probe.py")
#: All in all under 30 s, also where a node hangs.
HEAD_S = 20
NODES_S = 9
_CLOCK = re.compile(r"\d+\.\d+")
#: Of srun's refusals (slurm/slurm_errno.h); others are of what is wrong with the node.
_IN_USE = re.compile(r"nodes are busy|mmediate execution impossible|temporarily unavailable")
_PART = re.compile(r"(\S+) (\d+) (\d+) (.*)")
_ASKED_AT_ONCE = 16
_MOST_NAMES = 64

# The probe is on stdin of every task. A node that hangs must not take the others' answers along.
_ASK = f"""
mark=$1 words=$2
shift 2
date +%s.%N
timeout --kill-after=2 {NODES_S} srun --job-name=slipway-check --time=1 --immediate=6 --quiet \\
    --ntasks-per-node=1 --cpus-per-task=1 --kill-on-bad-exit=0 --mpi=none "$@" \\
    python3 - node "$words"
code=$?
date +%s.%N
exit $code
"""
_REMOVE = 'rm -f -- "$HOME/$1"'


def gather_facts(head: HeadNode, project: Project, files: Sequence[str] = ()) -> ClusterFacts:
    """Ask the head node, then all nodes that are free, for what the checks go by.

    Raises SlipwayError where the head node can not be reached, or has no Slurm.
    """
    mark = f".slipway-check-{secrets.token_hex(8)}"
    source = _PROBE.read_bytes()
    try:
        answer = head.run_script(
            'command -v scontrol >/dev/null || { echo "scontrol: not found" >&2; exit 127; }\n'
            'exec python3 - head "$1"',
            mark,
            data=source,
            timeout=HEAD_S,
        )
        try:
            told = parse_head(json.loads(answer.out))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SlipwayError(
                f"{head.name} can not be asked: {answer.complaint}",
                cure="Its python3 has to be 3.7 or newer, with all of its standard library.",
            ) from error
        answers = _ask_nodes(head, told, mark, files, source)
    finally:
        head.run_script(_REMOVE, mark)
    machines = (told.machine, *answers.machines.values())
    return ClusterFacts(told, answers, _instances(project.launcher, machines))


def _instances(launcher: Path, machines: Sequence[MachineFacts]) -> dict[str, InstanceNeeds]:
    needs = {}
    for product in {machine.product for machine in machines} - {""}:
        try:
            _, row = launcher_tables.find_instance_row(launcher, product)
        except UsageError:
            continue  # no type of the table: nothing is known of it
        needs[product] = InstanceNeeds(row.gpus, row.efa)
    return needs


def _ask_nodes(
    head: HeadNode, told: HeadFacts, mark: str, files: Sequence[str], source: bytes
) -> NodeAnswers:
    """One srun for all idle nodes of a partition, one for each node that has some room left."""
    usable = [node for node in told.nodes if not node.is_unusable]
    mixed = {node.name for node in usable if "MIXED" in node.states}
    names = [node.name for node in told.nodes][:_MOST_NAMES]
    request = json.dumps(
        {
            "mark": mark,
            "names": names,
            "files": list(files),
            "plugstack": told.config.get("PlugStackConfig", ""),
        }
    )

    def ask(group: tuple[str, tuple[str, ...]]) -> tuple[tuple[str, ...], Answer]:
        partition, nodes = group
        size = len(nodes)
        options = [f"--partition={partition}", f"--nodelist={','.join(nodes)}"]
        options += [f"--nodes={size}", f"--ntasks={size}"]
        if mixed.issuperset(nodes):
            options.append("--mem=64M")  # by default it would be all that a node has
        return nodes, head.run_script(
            _ASK, mark, request, *options, data=source, timeout=NODES_S + 10
        )

    together = _groups(told, usable)
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        asked = list(pool.map(ask, together))
        # Where nothing can be started on one node, srun starts or ends it on none.
        parts = [
            (partition, part)
            for (partition, nodes), (_, answer) in zip(together, asked, strict=True)
            if len(nodes) > 1
            for part in _cut([n for n in nodes if n not in parse_answers(answer)[1]])
        ]
        asked += pool.map(ask, parts)
    busy = [n.name for n in usable if not {"IDLE", "MIXED"} & {*n.states}]
    return _sum_up(asked, busy)


def _cut(nodes: Sequence[str]) -> list[tuple[str, ...]]:
    """As many parts as are asked at once, so that one node spoils the answers of few others."""
    size = -(-len(nodes) // _ASKED_AT_ONCE)
    return [tuple(nodes[at : at + size]) for at in range(0, len(nodes), size or 1)]


def _timed_out(answer: Answer) -> bool:
    return answer.code in (124, 137)


def _sum_up(asked: Sequence[tuple[tuple[str, ...], Answer]], busy: list[str]) -> NodeAnswers:
    """All answers as one; of a node that was asked twice the second counts."""
    machines: dict[str, MachineFacts] = {}
    silent: dict[str, str] = {}
    times: list[float] = []
    for nodes, answer in asked:
        clock, answers, unread = parse_answers(answer)
        times += clock
        machines.update(answers)
        for name in nodes:
            if name not in answers:
                why = f"no answer within {NODES_S} s" if _timed_out(answer) else answer.complaint
                silent[name] = unread.get(name, why)
    silent = {name: why for name, why in silent.items() if name not in machines}
    taken = [name for name, why in silent.items() if _IN_USE.search(why)]
    return NodeAnswers(
        dict(sorted(machines.items())),
        {name: why for name, why in silent.items() if name not in taken},
        tuple(sorted({*busy, *taken})),
        min(times, default=0.0),
        max(times, default=0.0),
    )


def _groups(told: HeadFacts, usable: Sequence[SlurmNode]) -> list[tuple[str, tuple[str, ...]]]:
    """(partition, nodes) for each srun: idle nodes together, each other one alone."""
    open_partitions = [p for p in told.partitions if p.state == "UP"]
    order = sorted(open_partitions, key=lambda p: (-len(p.nodes), not p.is_default))
    groups: list[tuple[str, tuple[str, ...]]] = []
    left = {node.name: node for node in usable}
    for partition in order:
        mine = [left.pop(name) for name in partition.nodes if name in left]
        idle = tuple(node.name for node in mine if "IDLE" in node.states)
        if idle:
            groups.append((partition.name, idle))
        groups += [(partition.name, (node.name,)) for node in mine if "MIXED" in node.states]
    return groups


def parse_answers(
    answer: Answer,
) -> tuple[tuple[float, ...], dict[str, MachineFacts], dict[str, str]]:
    """The clock before and after a run of _ASK, what nodes told, and why others are not read."""
    parts: dict[str, dict[int, str]] = {}
    counts: dict[str, int] = {}
    times = []
    for line in answer.out.splitlines():
        if match := _CLOCK.fullmatch(line):
            times.append(float(match[0]))
        elif match := _PART.fullmatch(line):
            parts.setdefault(match[1], {})[int(match[2])] = match[4]
            counts[match[1]] = int(match[3])
    machines: dict[str, MachineFacts] = {}
    unread: dict[str, str] = {}
    for name, texts in sorted(parts.items()):
        if len(texts) != counts[name]:
            unread[name] = "its answer is cut"
            continue
        try:
            machines[name] = parse_machine(json.loads("".join(texts[at] for at in sorted(texts))))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            unread[name] = f"its answer can not be read: {error!r}"
    return tuple(times), machines, unread


def find_faults(facts: ClusterFacts) -> tuple[ClusterFault, ...]:
    """What all checks find, what is wrong first. Pure."""
    faults = [fault for check in CHECKS for fault in check.find(facts)]
    return tuple(sorted(faults, key=lambda fault: fault.state != "wrong"))


def check_cluster(
    head: HeadNode, project: Project, *, files: Sequence[str] = (), as_json: bool = False
) -> None:
    """Print what is wrong with the cluster, and the cure.

    Raises SlipwayError where something is wrong, after it was printed.
    """
    for path in files:
        absolute_path(path, "--sqsh")
    facts = gather_facts(head, project, files)
    faults = find_faults(facts)
    machines = facts.machines
    if as_json:
        print_json(
            {
                "faults": [fault.as_json() for fault in faults],
                "looked_at": sorted(machines),
                "checks": [check.kind for check in CHECKS],
            }
        )
    elif faults:
        rows = [
            (
                "WRONG" if fault.state == "wrong" else "note",
                fault.kind,
                fault.place,
                f"{printable(fault.text)}\n-> {fault.cure}",
            )
            for fault in faults
        ]
        print_table(("", "what", "where", ""), rows)
    say(
        f"{len(CHECKS)} checks of {len(machines)} of {len(facts.head.nodes)} nodes"
        + (f": {some_nodes(machines)}" if machines else "")
    )
    wrong = sorted({fault.kind for fault in faults if fault.state == "wrong"})
    if wrong:
        raise SlipwayError(f"not right: {', '.join(wrong)}")
