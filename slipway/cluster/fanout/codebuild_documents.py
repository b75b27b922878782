"""What CodeBuild needs for a fan-out: the project, the batches' buildspecs, the role. Pure.

A batch's build list has one build an image; each differs by the variable IMAGE alone
(docs.aws.amazon.com/codebuild/latest/userguide, "Batch build buildspec reference").
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from slipway.cluster.fanout.fanout_plan import FanoutPlan, PlannedImage
from slipway.core import UsageError
from slipway.matrix import Image

PROJECT = "slipway-fanout"
MOST_BUILDS = 100
"""Of one batch (CodeBuild user guide, "Quotas")."""

#: The Ubuntu image that AWS curates: where an engine is used, `ship` installs what it lacks.
BUILD_IMAGE = "aws/codebuild/standard:7.0"
PYTHON = "3.12"
TIMEOUT_MINUTES = 180

_ROLE = re.compile(r"arn:(?P<partition>aws[a-z-]*):iam::(?P<account>\d{12}):role/[\w+=,.@/-]+")
_BUCKET = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>[\w./-]*))?")
_COMPUTE = re.compile(r"BUILD_GENERAL1_(SMALL|MEDIUM|LARGE|XLARGE|2XLARGE)")


@dataclass(frozen=True)
class CodeBuildOptions:
    """What a person chooses. `role`: of the builds, and of the batch that starts them.

    `source`: s3://BUCKET/PREFIX for the checkout and for what builds share.
    """

    role: str = ""
    source: str = ""
    compute: str = "BUILD_GENERAL1_MEDIUM"
    detach: bool = False
    plan: bool = False


@dataclass(frozen=True)
class CodeBuildPlace:
    """The options, checked. `prefix` ends with a slash or is empty."""

    region: str
    partition: str
    account: str
    role: str
    bucket: str
    prefix: str
    compute: str

    def archive_key(self, digest: str) -> str:
        """Where the checkout of a digest is."""
        return f"{self.prefix}checkout-{digest[:12]}.zip"

    @property
    def project_arn(self) -> str:
        """The project."""
        return f"arn:{self.partition}:codebuild:{self.region}:{self.account}:project/{PROJECT}"


def check_options(plan: FanoutPlan, options: CodeBuildOptions) -> CodeBuildPlace:
    """Raises UsageError for what CodeBuild would refuse."""
    role = _ROLE.fullmatch(options.role)
    if role is None:
        raise UsageError(
            f"--role {options.role!r}: expected the ARN of an IAM role",
            cure="--plan prints the documents that it needs, for any --role of that form.",
        )
    source = _BUCKET.fullmatch(options.source)
    if source is None:
        raise UsageError(f"--source {options.source!r}: expected s3://BUCKET or s3://BUCKET/PREFIX")
    if not _COMPUTE.fullmatch(options.compute):
        raise UsageError(
            f"--compute {options.compute!r}: BUILD_GENERAL1_SMALL, _MEDIUM, _LARGE, _XLARGE or "
            "_2XLARGE"
        )
    prefix = (source["prefix"] or "").strip("/")
    region = plan.ship[plan.ship.index("--region") + 1]
    return CodeBuildPlace(
        region,
        role["partition"],
        role["account"],
        options.role,
        source["bucket"],
        f"{prefix}/" if prefix else "",
        options.compute,
    )


def project_request(place: CodeBuildPlace, key: str, *, engine: bool) -> dict[str, Any]:
    """CreateProject, and UpdateProject. Docker needs privileges; without an engine none are had."""
    return {
        "name": PROJECT,
        "description": "One inv ship an image (./inv fanout --engine codebuild)",
        "source": {
            "type": "S3",
            "location": f"{place.bucket}/{key}",
            "buildspec": build_commands(()),
        },
        "artifacts": {"type": "NO_ARTIFACTS"},
        "cache": {"type": "S3", "location": f"{place.bucket}/{place.prefix}cache"},
        "environment": {
            "type": "LINUX_CONTAINER",
            "image": BUILD_IMAGE,
            "computeType": place.compute,
            "privilegedMode": engine,
        },
        "serviceRole": place.role,
        "timeoutInMinutes": TIMEOUT_MINUTES,
        "buildBatchConfig": {
            "serviceRole": place.role,
            "combineArtifacts": False,
            "restrictions": {"maximumBuildsAllowed": MOST_BUILDS},
            "timeoutInMins": 2 * TIMEOUT_MINUTES,
        },
    }


def build_commands(ship: Sequence[str]) -> str:
    """The buildspec of each build. JSON, which is YAML."""
    return json.dumps(_buildspec(ship), indent=1)


def batch_buildspec(images: Sequence[PlannedImage], ship: Sequence[str]) -> str:
    """The same with a build an image."""
    builds = [
        {"identifier": identifier, "env": {"variables": {"IMAGE": image.name}}}
        for identifier, image in identified(images)
    ]
    batch = {"fast-fail": False, "build-list": builds}
    return json.dumps({**_buildspec(ship), "batch": batch}, indent=1)


def _buildspec(ship: Sequence[str]) -> dict[str, Any]:
    return {
        "version": 0.2,
        "env": {"shell": "bash", "variables": {"SLIPWAY_SHARED": ".slipway/shared"}},
        "phases": {
            "install": {"runtime-versions": {"python": PYTHON}},
            "build": {"commands": [f'./inv ship "$IMAGE" {shlex.join(ship)}'.rstrip()]},
        },
        # Wheels, layers and notes of bases by their digests: an old cache is never wrong.
        "cache": {"paths": [".slipway/shared/**/*"]},
    }


def identified(images: Sequence[PlannedImage]) -> Iterator[tuple[str, PlannedImage]]:
    """Each image with its build's identifier: letters, digits and underscores, no two the same."""
    for number, image in enumerate(images):
        yield f"i{number}_" + re.sub(r"\W|[^\x00-\x7f]", "_", image.name)[:100], image


def batches_of(plan: FanoutPlan) -> list[tuple[PlannedImage, ...]]:
    """The images in as many batches as their number asks for."""
    return [
        plan.images[start : start + MOST_BUILDS]
        for start in range(0, len(plan.images), MOST_BUILDS)
    ]


def base_repositories(images: Sequence[Image], place: CodeBuildPlace) -> tuple[str, ...]:
    """The ARNs of the repositories in AWS that the bases of images are pulled from."""
    found = set()
    for image in images:
        registry = image.base.registry
        account = registry.accounts.get(place.region) if registry else None
        if account:
            found.add(
                f"arn:{place.partition}:ecr:{place.region}:{account}:repository/"
                f"{image.base.repository}"
            )
    return tuple(sorted(found))


def role_documents(
    place: CodeBuildPlace, bases: Sequence[str], prefix: str
) -> dict[str, dict[str, Any]]:
    """Trust and permissions of the role. `bases`: repositories' ARNs; `prefix`: of our own."""
    return {
        "trust": {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "codebuild.amazonaws.com"},
                    "Action": "sts:AssumeRole",
                    # No other account's project may have CodeBuild take this role.
                    "Condition": {"StringEquals": {"aws:SourceAccount": place.account}},
                }
            ],
        },
        "permissions": {"Version": "2012-10-17", "Statement": _statements(place, bases, prefix)},
    }


def _statements(place: CodeBuildPlace, bases: Sequence[str], prefix: str) -> list[dict[str, Any]]:
    where = f"{place.region}:{place.account}"
    logs = f"arn:{place.partition}:logs:{where}:log-group:/aws/codebuild/{PROJECT}"
    bucket = f"arn:{place.partition}:s3:::{place.bucket}"
    own = f"arn:{place.partition}:ecr:{where}:repository/{prefix}/*"
    rows: list[tuple[str, Sequence[str], Sequence[str]]] = [
        (
            "Logs",
            ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"),
            (logs, f"{logs}:*"),
        ),
        (
            "Source",
            ("s3:GetObject", "s3:GetObjectVersion"),
            (f"{bucket}/{place.prefix}checkout-*",),
        ),
        ("Cache", ("s3:GetObject", "s3:PutObject"), (f"{bucket}/{place.prefix}cache*",)),
        (
            "Batch",
            ("codebuild:StartBuild", "codebuild:StopBuild", "codebuild:RetryBuild"),
            (place.project_arn,),
        ),
        ("Login", ("ecr:GetAuthorizationToken",), ("*",)),
        (
            "Bases",
            ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"),
            bases,
        ),
        (
            "Push",
            (
                "ecr:BatchCheckLayerAvailability",
                "ecr:BatchGetImage",
                "ecr:CompleteLayerUpload",
                "ecr:CreateRepository",
                "ecr:DescribeImages",
                "ecr:DescribeRepositories",
                "ecr:GetDownloadUrlForLayer",
                "ecr:GetRepositoryPolicy",
                "ecr:InitiateLayerUpload",
                "ecr:PutImage",
                "ecr:PutLifecyclePolicy",
                "ecr:SetRepositoryPolicy",
                "ecr:UploadLayerPart",
            ),
            (own,),
        ),
    ]
    return [
        {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
        for sid, actions, resources in rows
        if resources
    ]
