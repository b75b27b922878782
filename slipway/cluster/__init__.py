"""Jobs of an image, the clusters that they run on (Slurm, SageMaker, HyperPod), and fan-outs.

A request becomes checked values, and these a script or a document. Clusters and AWS are asked only
by what says so: jobs that are submitted, looked at or stopped, clusters that are made, endpoints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.cluster.check import check_cluster
    from slipway.cluster.documents import write_cluster_documents
    from slipway.cluster.fanout import (
        ArrayOptions,
        CodeBuildOptions,
        ImageResult,
        PlannedImage,
        ShipFlags,
        WorkflowOptions,
        group_images,
        plan_fanout,
        read_fanout_run,
        run_codebuild_fanout,
        run_github_fanout,
        run_slurm_fanout,
        show_collected_results,
        show_fanout_run,
        stop_batch,
        work_on_run,
    )
    from slipway.cluster.hyperpod import (
        bring_up_cluster,
        delete_cluster,
        open_shell,
        show_cluster,
        show_nodes,
    )
    from slipway.cluster.job_reading import JobNotBegunError, JobReading
    from slipway.cluster.launcher_events import (
        EVENT_MARK,
        LauncherEvent,
        parse_arrival,
        parse_event,
    )
    from slipway.cluster.sagemaker import (
        JobChoice,
        TrainingOptions,
        follow_logs,
        read_log_streams,
        read_training_job,
        show_training_job,
        stop_training_job,
        write_training_job,
    )
    from slipway.cluster.script import write_script
    from slipway.cluster.send import SendOptions, send_sqsh
    from slipway.cluster.serving import (
        EndpointOptions,
        delete_endpoint,
        deploy_model,
        invoke_once,
        show_endpoint,
    )
    from slipway.cluster.slurm import (
        HeadNode,
        SubmitPlace,
        follow_job,
        read_slurm_job,
        show_job,
        show_queue,
        stop_job,
        submit_job,
    )
    from slipway.cluster.slurm_job import ScriptRequest
    from slipway.cluster.sqsh_file import newest_sqsh

__all__ = [
    "EVENT_MARK",
    "ArrayOptions",
    "CodeBuildOptions",
    "EndpointOptions",
    "HeadNode",
    "ImageResult",
    "JobChoice",
    "JobNotBegunError",
    "JobReading",
    "LauncherEvent",
    "PlannedImage",
    "ScriptRequest",
    "SendOptions",
    "ShipFlags",
    "SubmitPlace",
    "TrainingOptions",
    "WorkflowOptions",
    "bring_up_cluster",
    "check_cluster",
    "delete_cluster",
    "delete_endpoint",
    "deploy_model",
    "follow_job",
    "follow_logs",
    "group_images",
    "invoke_once",
    "newest_sqsh",
    "open_shell",
    "parse_arrival",
    "parse_event",
    "plan_fanout",
    "read_fanout_run",
    "read_log_streams",
    "read_slurm_job",
    "read_training_job",
    "run_codebuild_fanout",
    "run_github_fanout",
    "run_slurm_fanout",
    "send_sqsh",
    "show_cluster",
    "show_collected_results",
    "show_endpoint",
    "show_fanout_run",
    "show_job",
    "show_nodes",
    "show_queue",
    "show_training_job",
    "stop_batch",
    "stop_job",
    "stop_training_job",
    "submit_job",
    "work_on_run",
    "write_cluster_documents",
    "write_script",
    "write_training_job",
]

__getattr__ = lazy_face(
    __name__,
    {
        "documents": "write_cluster_documents",
        "job_reading": "JobNotBegunError JobReading",
        "launcher_events": "EVENT_MARK LauncherEvent parse_arrival parse_event",
        "fanout": (
            "ArrayOptions CodeBuildOptions ImageResult PlannedImage ShipFlags WorkflowOptions "
            "plan_fanout group_images read_fanout_run run_codebuild_fanout run_github_fanout "
            "run_slurm_fanout show_collected_results show_fanout_run stop_batch work_on_run"
        ),
        "hyperpod": "bring_up_cluster delete_cluster open_shell show_cluster show_nodes",
        "sagemaker": (
            "JobChoice TrainingOptions follow_logs read_log_streams read_training_job "
            "show_training_job stop_training_job write_training_job"
        ),
        "script": "write_script",
        "send": "SendOptions send_sqsh",
        "serving": "EndpointOptions delete_endpoint deploy_model invoke_once show_endpoint",
        "check": "check_cluster",
        "slurm": (
            "HeadNode SubmitPlace follow_job read_slurm_job show_job show_queue stop_job submit_job"
        ),
        "slurm_job": "ScriptRequest",
        "sqsh_file": "newest_sqsh",
    },
)
