"""`inv cluster`: HyperPod clusters with Slurm, from one file each."""

from __future__ import annotations

from invoke.collection import Collection
from invoke.context import Context

from slipway import cluster
from slipway.core import Project
from slipway.tasks.commands import JSON, ROOT, task_command

FILE = {"file": "the cluster's YAML file (docs/cluster.md)"}
YES = {"yes": "agree in advance"}


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


@task_command(help={**FILE, **YES, "dry_run": "print the plan, change nothing"})
def cluster_up(c: Context, file: str, yes: bool = False, dry_run: bool = False) -> None:
    """Make a cluster, or what is missing of it: plan, question, then part after part."""
    cluster.bring_up_cluster(ROOT, file, yes=yes, dry_run=dry_run)


@task_command(help={**FILE, **JSON})
def cluster_status(c: Context, file: str, json: bool = False) -> None:
    """How a cluster is: why it failed, its groups, what happened last."""
    cluster.show_cluster(file, as_json=json)


@task_command(help={**FILE, **JSON})
def cluster_nodes(c: Context, file: str, json: bool = False) -> None:
    """The nodes of a cluster, with AWS's words about each."""
    cluster.show_nodes(file, as_json=json)


@task_command(
    help={
        **FILE,
        "node": "an instance's id, or a group, of which the first node is meant",
        "ssh_config": "print an entry for ~/.ssh/config instead",
    }
)
def cluster_shell(
    c: Context, file: str, node: str = "controller", ssh_config: bool = False
) -> None:
    """A shell on a node, through Systems Manager."""
    cluster.open_shell(file, node, ssh_config=ssh_config)


@task_command(
    help={**FILE, **YES, "keep_storage": "leave the file system, and the network that it is in"}
)
def cluster_delete(c: Context, file: str, yes: bool = False, keep_storage: bool = False) -> None:
    """Remove a cluster and all that was made for it, after listing it; then look again."""
    cluster.delete_cluster(ROOT, file, yes=yes, keep_storage=keep_storage)


ns = Collection(
    "cluster",
    documents=cluster_documents,
    up=cluster_up,
    status=cluster_status,
    nodes=cluster_nodes,
    shell=cluster_shell,
    delete=cluster_delete,
    check=cluster_check,
)
