"""`inv cluster`: HyperPod clusters with Slurm, from one file each."""

from __future__ import annotations

from invoke.collection import Collection
from invoke.context import Context

from slipway import cluster
from slipway.tasks.commands import ROOT, task_command

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


ns = Collection("cluster", documents=cluster_documents)
