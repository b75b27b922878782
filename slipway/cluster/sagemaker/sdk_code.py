"""A training job as code for AWS's Python SDKs, for people who start jobs from a notebook.

What each argument is called: aws/sagemaker-python-sdk, `sagemaker.estimator.Estimator` of version 2
and `sagemaker.train.ModelTrainer` of version 3.
"""

from __future__ import annotations

import json
import pprint
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from slipway.cluster.sagemaker.training_request import TrainingRequest

FORMS = ("json", "sdk2", "sdk3")


def render_job(request: TrainingRequest, form: str, region: str) -> str:
    """The job as CreateTrainingJob's JSON, or as code for SDK v2 or v3."""
    if form == "json":
        return json.dumps(request.parameters, indent=2) + "\n"
    return (_sdk2 if form == "sdk2" else _sdk3)(request, region)


def _call(name: str, arguments: Mapping[str, Any]) -> str:
    lines = [f"    {key}={_value(value)}," for key, value in arguments.items() if value is not None]
    return "\n".join([f"{name}(", *lines, ")"])


def _value(value: Any) -> str:
    if isinstance(value, _Code):
        return value.text.replace("\n", "\n    ")
    return pprint.pformat(value, width=90, sort_dicts=False).replace("\n", "\n    ")


class _Code:
    """An expression that stands in the text as it is."""

    def __init__(self, text: str) -> None:
        self.text = text


def _sdk2(request: TrainingRequest, region: str) -> str:
    job = request.parameters
    algorithm, resources = job["AlgorithmSpecification"], job["ResourceConfig"]
    stopping, network = job["StoppingCondition"], job.get("VpcConfig", {})
    estimator = _call(
        "estimator = Estimator",
        {
            "image_uri": algorithm["TrainingImage"],
            "role": job["RoleArn"],
            "instance_type": resources["InstanceType"],
            "instance_count": resources["InstanceCount"],
            "volume_size": resources["VolumeSizeInGB"],
            "keep_alive_period_in_seconds": resources.get("KeepAlivePeriodInSeconds"),
            "max_run": stopping["MaxRuntimeInSeconds"],
            "max_wait": stopping.get("MaxWaitTimeInSeconds"),
            "use_spot_instances": job.get("EnableManagedSpotTraining"),
            "max_retry_attempts": job.get("RetryStrategy", {}).get("MaximumRetryAttempts"),
            "input_mode": algorithm["TrainingInputMode"],
            "output_path": job["OutputDataConfig"]["S3OutputPath"],
            "source_dir": str(request.source),
            "entry_point": _script(algorithm["ContainerArguments"]),
            # The image's own launcher reads these; it is no framework estimator's script mode.
            "container_entry_point": algorithm["ContainerEntrypoint"],
            "container_arguments": algorithm["ContainerArguments"],
            "environment": dict(job["Environment"]) or None,
            "subnets": network.get("Subnets"),
            "security_group_ids": network.get("SecurityGroupIds"),
            "sagemaker_session": _Code(_SESSION.format(region=region)),
        },
    )
    inputs = {
        channel["ChannelName"]: _input2(channel) for channel in job.get("InputDataConfig", ())
    }
    fit = _call(
        "estimator.fit",
        {
            "inputs": _Code(_mapping(inputs)) if inputs else None,
            "job_name": request.name,
            "wait": False,
        },
    )
    systems = any("FileSystem" in text for text in inputs.values())
    imports = ["import boto3", "from sagemaker import Session"]
    imports += ["from sagemaker.estimator import Estimator"]
    imports += ["from sagemaker.inputs import FileSystemInput"] if systems else []
    return "\n".join([*imports, "", estimator, fit, ""])


_SESSION = 'Session(boto3.Session(region_name="{region}"))'


def _script(words: Sequence[str]) -> str | None:
    """The script where it is a file: the SDK wants to see it, the launcher has it already."""
    script = words[list(words).index("--") + 1]
    return script if script.endswith((".py", ".sh")) else None


def _mapping(values: Mapping[str, str]) -> str:
    lines = [f"    {name!r}: {text}," for name, text in values.items()]
    return "\n".join(["{", *lines, "}"])


def _input2(channel: Mapping[str, Any]) -> str:
    source = channel["DataSource"]
    if "S3DataSource" in source:
        return repr(source["S3DataSource"]["S3Uri"])
    system = source["FileSystemDataSource"]
    return (
        f"FileSystemInput({system['FileSystemId']!r}, {system['FileSystemType']!r}, "
        f"{system['DirectoryPath']!r}, {system['FileSystemAccessMode']!r})"
    )


def _sdk3(request: TrainingRequest, region: str) -> str:
    job = request.parameters
    algorithm, resources = job["AlgorithmSpecification"], job["ResourceConfig"]
    stopping, network = job["StoppingCondition"], job.get("VpcConfig", {})
    output = job["OutputDataConfig"]["S3OutputPath"]
    compute = _call(
        "Compute",
        {
            "instance_type": resources["InstanceType"],
            "instance_count": resources["InstanceCount"],
            "volume_size_in_gb": resources["VolumeSizeInGB"],
            "keep_alive_period_in_seconds": resources.get("KeepAlivePeriodInSeconds"),
            "enable_managed_spot_training": job.get("EnableManagedSpotTraining"),
        },
    )
    condition = _call(
        "StoppingCondition",
        {
            "max_runtime_in_seconds": stopping["MaxRuntimeInSeconds"],
            "max_wait_time_in_seconds": stopping.get("MaxWaitTimeInSeconds"),
        },
    )
    networking = _call(
        "Networking",
        {
            "subnets": network.get("Subnets"),
            "security_group_ids": network.get("SecurityGroupIds"),
        },
    )
    source = _call(
        "SourceCode",
        {
            "source_dir": str(request.source),
            # SDK v3 starts a shell script of its own, so this is a line of a shell.
            "command": shlex.join(algorithm["ContainerArguments"]),
        },
    )
    retries = job.get("RetryStrategy", {}).get("MaximumRetryAttempts")
    trainer = _call(
        "trainer = ModelTrainer",
        {
            "sagemaker_session": _Code(_SESSION.format(region=region)),
            "training_image": algorithm["TrainingImage"],
            "base_job_name": request.name,
            "role": job["RoleArn"],
            "source_code": _Code(source),
            "compute": _Code(compute),
            "stopping_condition": _Code(condition),
            "networking": _Code(networking) if network else None,
            "training_input_mode": algorithm["TrainingInputMode"],
            "output_data_config": _Code(_call("OutputDataConfig", {"s3_output_path": output})),
            "environment": dict(job["Environment"]) or None,
        },
    )
    if retries is not None:
        trainer += f"\ntrainer.with_retry_strategy(RetryStrategy(maximum_retry_attempts={retries}))"
    channels = [_input3(channel) for channel in job.get("InputDataConfig", ())]
    train = _call(
        "trainer.train",
        {
            "input_data_config": _Code("[\n    " + ",\n    ".join(channels) + ",\n]")
            if channels
            else None,
            "wait": False,
        },
    )
    names = ["Compute", "OutputDataConfig", "SourceCode", "StoppingCondition"]
    names += ["Networking"] if network else []
    names += ["InputData"] if channels else []
    names += ["RetryStrategy"] if retries is not None else []
    if any("FileSystemDataSource" in text for text in channels):
        names += ["FileSystemDataSource"]
    imports = ["import boto3"]
    imports += ["from sagemaker.core.helper.session_helper import Session"]
    imports += ["from sagemaker.train import ModelTrainer"]
    imports += [f"from sagemaker.train.configs import {', '.join(sorted(names))}"]
    return "\n".join([*imports, "", trainer, train, ""])


def _input3(channel: Mapping[str, Any]) -> str:
    source, name = channel["DataSource"], channel["ChannelName"]
    if "S3DataSource" in source:
        data = repr(source["S3DataSource"]["S3Uri"])
    else:
        system = source["FileSystemDataSource"]
        data = (
            f"FileSystemDataSource(file_system_id={system['FileSystemId']!r}, "
            f"file_system_type={system['FileSystemType']!r}, "
            f"file_system_access_mode={system['FileSystemAccessMode']!r}, "
            f"directory_path={system['DirectoryPath']!r})"
        )
    return f"InputData(channel_name={name!r}, data_source={data})"
