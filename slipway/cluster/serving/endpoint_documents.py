"""What is asked for -> the requests of a model, an endpoint's configuration and the endpoint. Pure.

Names and bounds are those of botocore's models of CreateModel, CreateEndpointConfig and
CreateEndpoint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slipway.cluster import option_values
from slipway.cluster.aws_model import request_faults
from slipway.cluster.sagemaker import role_arn, s3_uri
from slipway.cluster.serving.model_kind import ModelKind, server_environment, serving_properties
from slipway.core import BadInputError, UsageError

SERVERS = ("lmi", "vllm")
VARIANT = "all"
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_CUDA = re.compile(r"-cu(\d{2})\d")
#: The longest that AWS allows: large models take that long to be fetched and loaded.
_START_S = 3600


@dataclass(frozen=True)
class EndpointOptions:
    """What was asked for, as text. `options` are the server's own, as NAME=VALUE; `config` is a
    config.json here, which saves reading the model's from S3."""

    model: str
    role: str
    instance: str
    count: str = "1"
    name: str = ""
    server: str = "lmi"
    options: tuple[str, ...] = ()
    config: str = ""


@dataclass(frozen=True)
class EndpointDocuments:
    """The three requests, and LMI's own file with the same settings."""

    model: dict[str, Any]
    config: dict[str, Any]
    endpoint: dict[str, Any]
    properties: str

    @property
    def name(self) -> str:
        """The endpoint's; model and configuration have the same."""
        return str(self.endpoint["EndpointName"])

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        documents: dict[str, Any] = {
            "create-model": self.model,
            "create-endpoint-config": self.config,
            "create-endpoint": self.endpoint,
        }
        if self.properties:
            documents["serving.properties"] = self.properties
        return documents


def make_endpoint_documents(
    options: EndpointOptions, kind: ModelKind, image: str, instance: str, gpus: int
) -> EndpointDocuments:
    """Check what was asked and complete it. Raises UsageError for what could not work."""
    name = endpoint_name(options)
    environment = server_environment(options.server, kind, gpus, _given_options(options.options))
    tags = [{"Key": "slipway:endpoint", "Value": name}]
    model = {
        "ModelName": name,
        "PrimaryContainer": {
            "Image": image,
            "ModelDataSource": {"S3DataSource": _data_source(options.model)},
            "Environment": environment,
        },
        "ExecutionRoleArn": role_arn(options.role),
        "Tags": tags,
    }
    variant: dict[str, Any] = {
        "VariantName": VARIANT,
        "ModelName": name,
        "InstanceType": instance,
        "InitialInstanceCount": option_values.whole_number(options.count, "--count", 1, 100),
        "ModelDataDownloadTimeoutInSeconds": _START_S,
        "ContainerStartupHealthCheckTimeoutInSeconds": _START_S,
    }
    machine_image = _machine_image(image)
    if machine_image:
        variant["InferenceAmiVersion"] = machine_image
    config = {"EndpointConfigName": name, "ProductionVariants": [variant], "Tags": tags}
    endpoint = {"EndpointName": name, "EndpointConfigName": name, "Tags": tags}
    documents = EndpointDocuments(
        model,
        config,
        endpoint,
        serving_properties(environment) if options.server == "lmi" else "",
    )
    _check(documents)
    return documents


def endpoint_name(options: EndpointOptions) -> str:
    """As asked, or after the last part of the model's URI."""
    s3_uri(options.model, "MODEL")
    last = options.model.rstrip("/").rpartition("/")[2].removesuffix(".tar.gz")
    name = options.name or re.sub(r"[^a-zA-Z0-9]+", "-", last).strip("-")[:63].rstrip("-")
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name of an endpoint: letters, digits and -, at most 63 of them",
            cure="Give one: --endpoint NAME.",
        )
    return name


def _given_options(texts: tuple[str, ...]) -> Mapping[str, str]:
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--option {text!r}: expected NAME=VALUE, e.g. max_model_len=8192")
        values[name] = value
    return values


def _data_source(uri: str) -> dict[str, str]:
    """An archive is unpacked; files below a prefix are taken as they are, which starts sooner."""
    if uri.endswith(".tar.gz"):
        return {"S3Uri": uri, "S3DataType": "S3Object", "CompressionType": "Gzip"}
    return {
        "S3Uri": f"{uri.rstrip('/')}/",
        "S3DataType": "S3Prefix",
        "CompressionType": "None",
    }


def _machine_image(image: str) -> str:
    """The host's image whose driver is new enough for the container's CUDA (API reference,
    ProductionVariant, InferenceAmiVersion: driver 580 for CUDA 13, 550 for CUDA 12)."""
    cuda = _CUDA.search(image)
    if cuda is None:
        return ""
    new = int(cuda[1]) >= 13
    return (
        "al2023-ami-sagemaker-inference-gpu-4-1" if new else "al2-ami-sagemaker-inference-gpu-3-1"
    )


def _check(documents: EndpointDocuments) -> None:
    faults = [
        UsageError(f"{call}: {fault.field} {fault.what}")
        for call, parameters in (
            ("CreateModel", documents.model),
            ("CreateEndpointConfig", documents.config),
            ("CreateEndpoint", documents.endpoint),
        )
        for fault in request_faults("sagemaker", call, parameters)
    ]
    if faults:
        raise BadInputError(list(faults))
