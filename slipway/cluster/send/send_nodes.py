"""To which nodes: by their names, over ssh, or those of a job, by srun."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

from slipway.cluster.send.node_channel import NodeChannel, srun_command, ssh_command
from slipway.cluster.slurm import CONNECT_S, SLURM_FOLDERS, HeadNode, find_job
from slipway.core import Project, SlipwayError, UsageError

MOST_NODES = 4096
_HOST = re.compile(r"[A-Za-z0-9_][\w.@:%+-]*", re.ASCII)
_PATTERN = re.compile(r"((?:[^,\[\]]|\[[^\[\]]*\])+)(?:,|$)")
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)
_HOSTS = 'exec scontrol show hostnames "$1"'

#: Node -> what starts the channel to it.
Targets = dict[str, Callable[[], NodeChannel]]


def named_nodes(words: Sequence[str]) -> Targets:
    """By ssh. Raises UsageError for what names none."""

    def target(host: str) -> Callable[[], NodeChannel]:
        cure = f"`ssh {host} true` has to work first, without a password: host, user and key are"
        cure += " those of your own ssh configuration."
        command = ssh_command(host, CONNECT_S)
        return lambda: NodeChannel(host, command, os.environ, cure)

    hosts = [host for word in words for host in expand_nodes(word)]
    if not hosts:
        raise UsageError(
            "no node is named", cure="`./inv sqsh.send NAME n1 n2`, n[1-4], or --job JOBID."
        )
    return {host: target(host) for host in hosts}


def expand_nodes(text: str) -> list[str]:
    """Names of hosts, by commas and in Slurm's short form: `n[1-3,07],user@head`.

    As `scontrol show hostnames`, and as the launcher reads node lists (a test holds the two
    together). Raises UsageError.
    """
    wrong = UsageError(f"{text[:80]!r} names no nodes", cure="n1,n2 or n[1-4], as Slurm prints it.")
    hosts: list[str] = []
    position = 0
    while position < len(text):
        match = _PATTERN.match(text, position)
        if match is None:
            raise wrong
        hosts += _expand_one(match[1], wrong)
        position = match.end()
    if text.endswith(",") or len(hosts) > MOST_NODES:
        raise wrong
    if any(not _HOST.fullmatch(host) for host in hosts):
        raise wrong
    return hosts


def _expand_one(pattern: str, wrong: UsageError) -> list[str]:
    names = [""]
    for number, part in enumerate(re.split(r"[\[\]]", pattern)):
        choices = [part]
        if number % 2:
            choices = []
            for item in part.split(","):
                match = _RANGE.fullmatch(item)
                if match is None:
                    raise wrong
                low, high = match[1], match[2] or match[1]
                if not 0 <= int(high) - int(low) < MOST_NODES:
                    raise wrong
                choices += [str(n).zfill(len(low)) for n in range(int(low), int(high) + 1)]
        if len(names) * len(choices) > MOST_NODES:
            raise wrong
        names = [name + choice for name in names for choice in choices]
    return names


def job_nodes(project: Project, number: str) -> Targets:
    """By steps of the job. Raises SlipwayError where there is no Slurm, or it does not run."""
    head = HeadNode()
    job = find_job(head, number, project)
    if job.state != "RUNNING":
        raise SlipwayError(
            f"job {job.id} does not run: it is {job.state}",
            cure="Name the nodes, or have the job fetch it when it begins: slurm.script's --fetch.",
        )
    nodes = head.run_script(_HOSTS, job.nodes).out.split()
    # Of a shell inside of another allocation: srun would take its own options from it.
    env = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    if "SLURM_CONF" in os.environ:
        env["SLURM_CONF"] = os.environ["SLURM_CONF"]
    env["PATH"] = ":".join([env.get("PATH", os.defpath), *SLURM_FOLDERS])
    cure = f"`./inv slurm.status {job.id}` says how the job stands, `sinfo` how its nodes do."

    def target(node: str) -> Callable[[], NodeChannel]:
        return lambda: NodeChannel(node, srun_command(job.id, node), env, cure)

    return {node: target(node) for node in nodes}
