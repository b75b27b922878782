"""AWS's control plane on loopback: moto, and before it the calls that moto lacks.

Each call that passes is checked against botocore's model of it first, so that a request which AWS
would refuse is refused here. The states of a training job are those that AWS documents
(docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler
from typing import Any
from unittest.mock import patch

import boto3
from botocore.loaders import create_loader
from moto import mock_aws
from moto.core.models import botocore_stubber
from moto.moto_api._internal.models import moto_api_backend
from moto.sagemaker.models import FakeTrainingJob, sagemaker_backends
from moto.server import ThreadedMotoServer

from slipway.cluster.aws_model import request_faults
from tests.support.aws_clusters import Answer, ClusterService, refusal
from tests.support.aws_door import aws_door
from tests.support.loopback_files import serve_requests

ACCOUNT = "123456789012"  # moto's own
REGION = "us-east-1"


def check_request(service: str, name: str, parameters: Mapping[str, Any]) -> list[str]:
    """All that AWS would refuse of a request, as far as botocore's model knows."""
    return [f"{fault.field} {fault.what}" for fault in request_faults(service, name, parameters)]


class ControlPlane:
    """One AWS. `calls` are the SageMaker calls that came, by name; `refusals` has what a call is
    answered with before it is played: code and message, the first one first."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.url = ""
        self.hyperpod = ClusterService()
        self.refusals: dict[str, list[tuple[str, str]]] = {}

    def answer(self, service: str, call: str, body: dict[str, Any]) -> Answer | None:
        """What is answered in moto's place, None for what moto answers."""
        wrong = check_request(service, call, body)
        if wrong:
            return refusal("ValidationException", "; ".join(wrong))
        if self.refusals.get(call):
            return refusal(*self.refusals[call].pop(0))
        if call == "StopTrainingJob":
            return self.stop_training_job(body["TrainingJobName"])
        return self.hyperpod.answer(call, body)

    def job(self, name: str) -> FakeTrainingJob:
        """moto's record of a training job."""
        made: FakeTrainingJob = sagemaker_backends[ACCOUNT][REGION].training_jobs[name]
        return made

    def play(self, name: str, status: str, step: str, **facts: Any) -> None:
        """Put a job into a state."""
        made = self.job(name)
        made.training_job_status, made.secondary_status = status, step
        for fact, value in facts.items():
            setattr(made, fact, value)

    def stop_training_job(self, name: str) -> tuple[int, dict[str, Any]]:
        """StopTrainingJob: the state is Stopping; what has ended is refused."""
        if self.job(name).training_job_status != "InProgress":
            text = "The request was rejected because the training job is in status Completed"
            return 400, {"__type": "ValidationException", "message": text}
        self.play(name, "Stopping", "Stopping")
        return 200, {}


@contextmanager
def control_plane() -> Iterator[ControlPlane]:
    """Serve one until the end of the block."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    moto_api_backend.reset()  # what it knows outlives its servers
    plane = ControlPlane()
    upstream = "{}:{}".format(*moto.get_host_and_port())
    try:
        with serve_requests(_handler(plane, upstream)) as host:
            plane.url = f"http://{host}"
            yield plane
    finally:
        moto.stop()


#: AWS's models are megabytes of JSON; a new session would read them again.
_loader = cache(create_loader)


@contextmanager
def control_plane_in_process() -> Iterator[ControlPlane]:
    """The same without a server: for one process that asks much."""
    plane = ControlPlane()
    moto_answer = botocore_stubber.process_request

    def process_request(request: Any) -> Any:
        target = request.headers.get("X-Amz-Target", "")
        prefix, _, call = (target.decode() if isinstance(target, bytes) else target).partition(".")
        if prefix in _SERVICES:
            answer = plane.answer(_SERVICES[prefix], call, json.loads(request.body))
            if answer is not None:
                return answer[0], {}, json.dumps(answer[1]).encode()
        return moto_answer(request)

    with mock_aws(), patch("botocore.session.create_loader", _loader):
        botocore_stubber.process_request = process_request  # type: ignore[method-assign]
        try:
            yield plane
        finally:
            del botocore_stubber.process_request  # the method of its class again


def free_addresses() -> None:
    """As AWS does where a NAT gateway has ended; moto leaves its address with it."""
    ec2 = boto3.client("ec2", region_name=REGION)
    for address in ec2.describe_addresses()["Addresses"]:
        ec2.disassociate_address(AssociationId=address["AssociationId"])


#: X-Amz-Target -> botocore's name, of services whose requests are checked by their model.
_SERVICES = {
    "SageMaker": "sagemaker",
    "AWSSimbaAPIService_v20180301": "fsx",
    "ServiceQuotasV20190624": "service-quotas",
    "AmazonSSM": "ssm",
    "CodeBuild_20161006": "codebuild",
}


def _handler(plane: ControlPlane, upstream: str) -> type[BaseHTTPRequestHandler]:
    def answer(prefix: str, call: str, body: bytes) -> tuple[int, Any] | None:
        if prefix == "SageMaker":
            plane.calls.append(call)
        if prefix not in _SERVICES:
            return None
        return plane.answer(_SERVICES[prefix], call, json.loads(body))

    return aws_door(answer, upstream)
