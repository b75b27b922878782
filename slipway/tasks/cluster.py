"""`inv cluster`: HyperPod clusters with Slurm, from one file each."""

from __future__ import annotations

from invoke.collection import Collection
from invoke.context import Context

from slipway import cluster
from slipway.core import Project
from slipway.tasks.commands import JSON, ROOT, task_command

FILE = {"file": "the cluster's YAML file (docs/cluster.md)"}


@task_command(
    help={
        **FILE,
        "output": "folder to write them into (default: all as one JSON on stdout)",
        "explain": "why each permission is there, and who says so",
    }
)
def cluster_documents(c: Context, file: str, output: str = "", explain: bool = False) -> None:
    """Everything that a cluster is made of: requests, policies, scripts. Asks AWS nothing."""
    cluster.write_cluster_documents(ROOT, file, output, explain=explain)


@task_command(
    repeatable=("sqsh",),
    help={
        "ssh": "the head node, for ssh with your own configuration (default: this machine)",
        "sqsh": "path of a .sqsh that all nodes should have alike; repeatable",
        **JSON,
    },
)
def cluster_check(
    c: Context,
    ssh: str = "",
    sqsh: list[str] = [],  # noqa: B006 - invoke's own empty list
    json: bool = False,
) -> None:
    """What is wrong with a Slurm cluster, with the cure; run on its head node, or by ssh."""
    cluster.check_cluster(cluster.HeadNode(ssh), Project.at(ROOT), files=sqsh, as_json=json)


ns = Collection("cluster", documents=cluster_documents, check=cluster_check)
