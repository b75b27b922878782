"""What ECR is told about a repository: who may pull, and what expires. Documents only, no calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

STAGING = "slipway-staging-"
"""Prefix of tags that a push uses on its way to the real one; they expire by themselves."""

UNTAGGED_DAYS = 14
_PULL = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
_SIDS = ("SlipwayConsumersPull", "SlipwaySageMakerPull")


def lifecycle_policy() -> dict[str, Any]:
    """What expires, as ECR's lifecycle policy: nothing that a build or an alias is found by."""
    staged = {"tagStatus": "tagged", "tagPatternList": [f"{STAGING}*"]}
    loose = {"tagStatus": "untagged"}
    rules = [
        ("what a push staged", {**staged, **_older_than(1)}),
        ("what no tag names", {**loose, **_older_than(UNTAGGED_DAYS)}),
    ]
    return {
        "rules": [
            {
                "rulePriority": number,
                "description": f"expire {description}",
                "selection": selection,
                "action": {"type": "expire"},
            }
            for number, (description, selection) in enumerate(rules, start=1)
        ]
    }


def pull_statements(
    partition: str, consumers: Sequence[str], sagemaker: bool
) -> list[dict[str, Any]]:
    """Policy statements that let accounts, and the SageMaker service, pull.

    The three actions of a pull; the token's action cannot stand in a repository policy (ECR user
    guide, "Private repository policies").
    """
    principals: list[tuple[str, dict[str, Any]]] = []
    if consumers:
        roots = [f"arn:{partition}:iam::{account}:root" for account in sorted(set(consumers))]
        principals.append((_SIDS[0], {"AWS": roots}))
    if sagemaker:
        principals.append((_SIDS[1], {"Service": "sagemaker.amazonaws.com"}))
    return [
        {"Sid": sid, "Effect": "Allow", "Principal": principal, "Action": _PULL}
        for sid, principal in principals
    ]


def merged_policy(old: Mapping[str, Any] | None, ours: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A policy with our statements in place of our earlier ones, all others as they were."""
    sids = {statement["Sid"] for statement in ours}
    before = (old or {}).get("Statement", [])
    if isinstance(before, dict):  # a single statement may stand without its list
        before = [before]
    others = [statement for statement in before if statement.get("Sid") not in sids]
    return {"Version": "2012-10-17", **(old or {}), "Statement": [*others, *ours]}


def _older_than(days: int) -> dict[str, Any]:
    return {"countType": "sinceImagePushed", "countUnit": "days", "countNumber": days}
