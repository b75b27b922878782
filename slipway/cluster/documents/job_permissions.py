"""What the operator is allowed beside the cluster: jobs and endpoints of SageMaker, and builds."""

from __future__ import annotations

from slipway.cluster.documents.cluster_file import ClusterFile
from slipway.cluster.documents.permissions import Permission

_REFERENCE = "docs.aws.amazon.com/service-authorization/latest/reference"


def job_permissions(cluster: ClusterFile) -> list[Permission]:
    """For all that `sagemaker.*`, `deploy.*` and `fanout.*` call."""
    return [
        *_jobs(cluster),
        *_serving(cluster),
        *_buckets(cluster),
        *_builds(cluster),
        *_given_roles(cluster),
    ]


def _jobs(cluster: ClusterFile) -> list[Permission]:
    return [
        Permission(
            "WorkOnTrainingJobs",
            (
                "sagemaker:CreateTrainingJob",
                "sagemaker:DescribeTrainingJob",
                "sagemaker:StopTrainingJob",
            ),
            (cluster.arn("sagemaker", "training-job/*"),),
            "`./inv sagemaker.job` and its siblings",
            "the calls in slipway/cluster/sagemaker",
        ),
        Permission(
            "TagTrainingJobs",
            ("sagemaker:AddTags",),
            (cluster.arn("sagemaker", "training-job/*"),),
            "a job is tagged with its image in the same call",
            f"{_REFERENCE}/list_amazonsagemaker.html",
        ),
        Permission(
            "ReadJobLogs",
            ("logs:FilterLogEvents",),
            (cluster.arn("logs", "log-group:/aws/sagemaker/TrainingJobs:*"),),
            "`./inv sagemaker.logs` and what `sagemaker.status` has of the launcher",
            "the calls in slipway/cluster/sagemaker/training_jobs.py",
        ),
    ]


def _builds(cluster: ClusterFile) -> list[Permission]:
    return [
        Permission(
            "WorkOnBuilds",
            (
                "codebuild:BatchGetProjects",
                "codebuild:CreateProject",
                "codebuild:UpdateProject",
                "codebuild:StartBuildBatch",
                "codebuild:StopBuildBatch",
                "codebuild:BatchGetBuildBatches",
            ),
            (cluster.arn("codebuild", "project/slipway*"),),
            "`./inv fanout.start` with --engine codebuild, and its siblings",
            "the calls in slipway/cluster/fanout/codebuild_batches.py",
        )
    ]


def _given_roles(cluster: ClusterFile) -> list[Permission]:
    """Of `--role`: those that the file names, else all whose names begin with slipway-."""
    entry = cluster.entry.roles
    any_of_ours = f"arn:{cluster.partition}:iam::{cluster.entry.account}:role/slipway-*"
    rows = (
        ("GiveJobRole", entry.jobs, "sagemaker", "CreateTrainingJob gives it to the job"),
        ("GiveEndpointRole", entry.endpoints, "sagemaker", "CreateModel gives it to the endpoint"),
        ("GiveBuildRole", entry.builds, "codebuild", "a project gives it to builds and batches"),
    )
    return [
        Permission(
            sid,
            ("iam:PassRole",),
            (role or any_of_ours,),
            f"{why}; to that service only",
            f"{_REFERENCE}/list_{'amazonsagemaker' if service == 'sagemaker' else 'awscodebuild'}"
            ".html",
            {"StringEquals": {"iam:PassedToService": f"{service}.amazonaws.com"}},
        )
        for sid, role, service, why in rows
    ]


def _serving(cluster: ClusterFile) -> list[Permission]:
    names = ("model/*", "endpoint/*", "endpoint-config/*")
    return [
        Permission(
            "WorkOnEndpoints",
            (
                "sagemaker:CreateModel",
                "sagemaker:DescribeModel",
                "sagemaker:DeleteModel",
                "sagemaker:CreateEndpointConfig",
                "sagemaker:DescribeEndpointConfig",
                "sagemaker:DeleteEndpointConfig",
                "sagemaker:CreateEndpoint",
                "sagemaker:DescribeEndpoint",
                "sagemaker:DeleteEndpoint",
                "sagemaker:InvokeEndpoint",
            ),
            tuple(cluster.arn("sagemaker", name) for name in names),
            "`./inv deploy.lmi` and its siblings",
            "the calls in slipway/cluster/serving",
        ),
        Permission(
            "TagEndpoints",
            ("sagemaker:AddTags",),
            tuple(cluster.arn("sagemaker", name) for name in names),
            "they are tagged in the same calls",
            f"{_REFERENCE}/list_amazonsagemaker.html",
        ),
    ]


def _buckets(cluster: ClusterFile) -> list[Permission]:
    """Of the file's buckets: nothing where it names none."""
    objects = tuple(f"arn:{cluster.partition}:s3:::{name}/*" for name in cluster.entry.buckets)
    if not objects:
        return []
    return [
        Permission(
            "ReadModels",
            ("s3:GetObject",),
            objects,
            "a model's config.json says how it is to be served",
            "the calls in slipway/cluster/serving",
        ),
        Permission(
            "PutCode",
            ("s3:PutObject",),
            objects,
            "`./inv sagemaker.job` puts the job's code under --output-uri, and `./inv fanout` with "
            "--engine codebuild the checkout under --source",
            "the calls in slipway/cluster/sagemaker and slipway/cluster/fanout",
        ),
    ]
