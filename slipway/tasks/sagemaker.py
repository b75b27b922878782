"""`inv sagemaker`: training jobs on SageMaker."""

from __future__ import annotations

import sys

from invoke.collection import Collection
from invoke.context import Context

from slipway import cluster, pipeline
from slipway.tasks.commands import ROOT, after_dashes, task_command

JOB_REGION = {"region": "AWS region of the job (default: slipway.region, else where it was pushed)"}


@task_command(
    images="name",
    repeatable=("input", "env", "launch", "subnet", "security_group"),
    help={
        "name": "the image",
        **JOB_REGION,
        "instance": "their type, e.g. ml.p5.48xlarge",
        "nodes": "how many instances",
        "role": "ARN of the IAM role that the job has",
        "output-uri": "S3 URI below which the job's code and output lie",
        "source": "folder of the script (default: this one)",
        "job-name": "default: NAME and the time",
        "time": "time limit: hours as 4:00:00, days as 2-12:00:00",
        "input": "channel: NAME=s3://..., NAME=fsx:fs-ID:/MOUNT/PATH or NAME=efs:fs-ID:/PATH; "
        "repeatable",
        "input-mode": "of S3 channels: File, FastFile or Pipe",
        "checkpoints": "S3 URI that the launcher uploads checkpoints to and resumes from",
        "env": "NAME=VALUE for the containers; repeatable",
        "launch": "option of the launcher, e.g. resume=auto; repeatable",
        "volume-gb": "disk of each instance that has none of its own",
        "keep-alive": "minutes that the instances wait for the next job (a warm pool)",
        "retries": "how often SageMaker tries again after an error of its own",
        "spot": "spot instances: cheaper, and interrupted",
        "subnet": "of the job's network; repeatable",
        "security-group": "of the job's network; repeatable",
        "image-uri": "ECR reference of the image (default: what was pushed last)",
        "as_": "json (CreateTrainingJob), sdk2 or sdk3 (Python for AWS's SDK)",
        "output": "file to write (default: stdout)",
        "submit": "upload the code and start the job",
    },
)
def sagemaker_job(
    c: Context,
    name: str,
    region: str = "",
    instance: str = "",
    nodes: str = "1",
    role: str = "",
    output_uri: str = "",
    source: str = ".",
    job_name: str = "",
    time: str = "1-00:00:00",
    input: list[str] = [],  # noqa: B006 - the flag's name; invoke's own empty list
    input_mode: str = "File",
    checkpoints: str = "",
    env: list[str] = [],  # noqa: B006
    launch: list[str] = [],  # noqa: B006
    volume_gb: str = "100",
    keep_alive: str = "",
    retries: str = "",
    spot: bool = False,
    subnet: list[str] = [],  # noqa: B006
    security_group: list[str] = [],  # noqa: B006
    image_uri: str = "",
    as_: str = "json",
    output: str = "",
    submit: bool = False,
) -> None:
    """Write or start a training job: inv sagemaker.job NAME --instance TYPE -- SCRIPT ARGS..."""
    options = cluster.TrainingOptions(
        instance=instance,
        nodes=nodes,
        words=tuple(after_dashes(sys.argv)),
        role=role,
        output=output_uri,
        source=source,
        job_name=job_name,
        time=time,
        inputs=tuple(input),
        input_mode=input_mode,
        checkpoints=checkpoints,
        env=tuple(env),
        launch=tuple(launch),
        volume=volume_gb,
        keep_alive=keep_alive,
        retries=retries,
        spot=spot,
        subnets=tuple(subnet),
        security_groups=tuple(security_group),
    )
    settings = pipeline.Settings.of(c.config, region=region)
    cluster.write_training_job(
        ROOT,
        name,
        options,
        cluster.JobChoice(settings.region, image_uri, as_, submit, output),
        current_build_id=pipeline.Checkout.at(ROOT).build_id_of,
    )


@task_command(
    help={
        "job": "its name",
        **JOB_REGION,
        "json": "machine-readable on stdout; text for people goes to stderr",
    }
)
def sagemaker_status(c: Context, job: str, region: str = "", json: bool = False) -> None:
    """How a training job stands: why it failed, AWS's steps, what the launcher told last."""
    where = pipeline.Settings.of(c.config, region=region).required_region
    cluster.show_training_job(job, where, as_json=json)


@task_command(help={"job": "its name", **JOB_REGION, "follow": "go on until the job ends"})
def sagemaker_logs(c: Context, job: str, region: str = "", follow: bool = False) -> None:
    """What all hosts of a training job have printed."""
    where = pipeline.Settings.of(c.config, region=region).required_region
    cluster.follow_logs(job, where, follow=follow)


@task_command(help={"job": "its name", **JOB_REGION})
def sagemaker_stop(c: Context, job: str, region: str = "") -> None:
    """Have a training job save and stop."""
    where = pipeline.Settings.of(c.config, region=region).required_region
    cluster.stop_training_job(job, where)


ns = Collection(
    "sagemaker",
    job=sagemaker_job,
    status=sagemaker_status,
    logs=sagemaker_logs,
    stop=sagemaker_stop,
)
