"""Jobs on a Slurm cluster: submitted, looked at, read along, stopped.

In come a script of `slipway.cluster.script` or the number of a job; out come commands of Slurm's
own on a head node, which is this machine or one that ssh reaches with the user's configuration.
What Slurm and the launcher say is read by pure functions; only `head_node` starts anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.cluster.slurm.head_node import CONNECT_S, SLURM_FOLDERS, Answer, HeadNode
    from slipway.cluster.slurm.job_output import read_slurm_job
    from slipway.cluster.slurm.jobs import find_job, follow_job, show_job, show_queue, stop_job
    from slipway.cluster.slurm.submit import SubmitPlace, submit_job

__all__ = [
    "CONNECT_S",
    "SLURM_FOLDERS",
    "Answer",
    "HeadNode",
    "SubmitPlace",
    "find_job",
    "follow_job",
    "read_slurm_job",
    "show_job",
    "show_queue",
    "stop_job",
    "submit_job",
]

__getattr__ = lazy_face(
    __name__,
    {
        "head_node": "CONNECT_S SLURM_FOLDERS Answer HeadNode",
        "job_output": "read_slurm_job",
        "jobs": "find_job follow_job show_job show_queue stop_job",
        "submit": "SubmitPlace submit_job",
    },
)
