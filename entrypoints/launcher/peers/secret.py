"""The key by which launchers of one job know each other.

It is made from LAUNCH_SECRET, or from what the platform gives to this job alone. Where there is
neither, it is made from the job's name: that still keeps other jobs and wandering connections out,
but not somebody who wants in and knows the name; the plan says so.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SECRET_VARIABLE = "LAUNCH_SECRET"  # noqa: S105 - the variable's name
#: Below this a secret can be found by trying.
SHORT_SECRET = 16


@dataclass(frozen=True)
class JobKey:
    """The key and, for people, where it is from. `private`: whether others cannot make it."""

    key: bytes
    source: str
    private: bool


def derive_job_key(
    env: Mapping[str, str],
    platform: str,
    job: str,
    attempt: int | None,
    hyperparameters: Mapping[str, Any],
) -> JobKey:
    """The same on all nodes of one attempt of a job: the gate of the one before is a stranger.

    SageMaker: the job's ARN with its hyperparameters, which every node gets alike and nobody
    outside the account sees.
    """
    again = str(attempt)
    secret = env.get(SECRET_VARIABLE, "")
    if secret:
        return JobKey(_key("secret", secret, again), SECRET_VARIABLE, private=True)
    arn = env.get("TRAINING_JOB_ARN", "")
    if platform == "sagemaker" and arn:
        text = json.dumps(hyperparameters, sort_keys=True, default=str)
        source = "the job's ARN and hyperparameters"
        return JobKey(_key("sagemaker", arn, text, again), source, private=True)
    return JobKey(_key("name", platform, job, again), "the job's name", private=False)


def secret_warnings(key: JobKey, env: Mapping[str, str], port: int) -> list[str]:
    """What a person should know about the key of a job on several nodes."""
    if not key.private:
        return [
            f"nothing secret is known to the nodes of this job alone: whoever reaches port {port} "
            f"of node 0 and knows the job's name can pose as a node. Set {SECRET_VARIABLE} to the "
            "same random text on all nodes (openssl rand -hex 32)"
        ]
    if 0 < len(env.get(SECRET_VARIABLE, "")) < SHORT_SECRET:
        return [
            f"{SECRET_VARIABLE} is shorter than {SHORT_SECRET} characters and could be guessed "
            "(openssl rand -hex 32 makes a good one)"
        ]
    return []


def derive_part_key(key: JobKey, part: str) -> bytes:
    """A key for one of several meetings of the same job: those of another one are strangers."""
    return hmac.new(key.key, part.encode(), hashlib.sha256).digest()


def _key(*parts: str) -> bytes:
    data = json.dumps(parts).encode("utf-8", "surrogatepass")
    return hmac.new(b"slipway launcher gate", data, hashlib.sha256).digest()
