"""What a person asks of a training job -> the parameters of CreateTrainingJob. Pure.

The names, patterns and bounds are those of the API reference (docs.aws.amazon.com/sagemaker/latest/
APIReference/API_CreateTrainingJob.html) and of botocore's model of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from slipway.cluster import launcher_tables, option_values, training_kinds
from slipway.core import UsageError
from slipway.matrix import Image

ENTRYPOINT = "/opt/entrypoints/entrypoint.sh"
"""The image's own ENTRYPOINT: a job that gives arguments has to give it, too."""
SOURCE_ARCHIVE = "source/sourcedir.tar.gz"
"""Where the code of a job lies below its output, as the SageMaker SDK has it."""

_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_LONGEST_NAME = 63
_TYPE = re.compile(r"ml\.[a-z][a-z0-9-]*\.[a-z0-9]+")
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+", re.ASCII)
_S3 = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?", re.ASCII)
_CHANNEL = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FILE_SYSTEM = re.compile(r"(fsx|efs):(fs-[0-9a-f]{8,17}):(/[^:]*)(?::(ro|rw))?")
_NETWORK = re.compile(r"(subnet|sg)-[0-9a-f]{8,17}")
_INPUT_MODES = ("File", "FastFile", "Pipe")

_MOST_WORDS, _LONGEST_WORD = 100, 256  # ContainerArguments
_LONGEST_VALUE = 512  # Environment
_DAYS = 28  # the longest MaxRuntimeInSeconds that an account may be given

_CHANNEL_FORMS = "NAME=s3://BUCKET/PREFIX, NAME=fsx:fs-ID:/MOUNTNAME/PATH or NAME=efs:fs-ID:/PATH"


@dataclass(frozen=True)
class TrainingOptions:
    """What was asked for, as text. `output` and `checkpoints` are S3 URIs; `words` is the script
    with its arguments, `source` the folder that it is in, `keep_alive` minutes of a warm pool."""

    instance: str
    nodes: str
    words: tuple[str, ...]
    role: str
    output: str
    source: str = "."
    job_name: str = ""
    time: str = "1-00:00:00"
    inputs: tuple[str, ...] = ()
    input_mode: str = "File"
    checkpoints: str = ""
    env: tuple[str, ...] = ()
    launch: tuple[str, ...] = ()
    volume: str = "100"
    keep_alive: str = ""
    retries: str = ""
    spot: bool = False
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingRequest:
    """A job that can be asked for. `notes` are for the person who asks."""

    parameters: Mapping[str, Any]
    source: Path
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The job's."""
        return str(self.parameters["TrainingJobName"])

    @property
    def source_uri(self) -> str:
        """Where the code is to be before the job starts."""
        text: str = json.loads(self.parameters["HyperParameters"]["sagemaker_submit_directory"])
        return text


def make_training_request(
    options: TrainingOptions, image: Image, image_uri: str, launcher: Path, now: datetime
) -> TrainingRequest:
    """Check what was asked and complete it. UsageError for anything that could not work.

    `image_uri` is an ECR reference, `launcher` the checkout's entrypoints/.
    """
    instance_type, efa = _instance(options.instance, image, launcher)
    nodes = option_values.whole_number(options.nodes, "--nodes", 1, 10_000)
    seconds = option_values.time_limit(options.time)
    if not 1 <= seconds <= _DAYS * 86400:
        raise UsageError(f"--time {options.time!r}: from a second to {_DAYS} days")
    name = _job_name(options.job_name) if options.job_name else default_job_name(image.name, now)
    output = s3_uri(options.output, "--output-uri").rstrip("/")
    source_uri = f"{output}/{name}/{SOURCE_ARCHIVE}"
    algorithm = {
        "TrainingImage": image_uri,
        "TrainingInputMode": option_values.one_of_values(
            options.input_mode, "--input-mode", _INPUT_MODES
        ),
        "ContainerEntrypoint": [ENTRYPOINT],
        "ContainerArguments": _arguments(options, launcher),
    }
    volume = option_values.whole_number(options.volume, "--volume-gb", 1, 16_384)
    resources: dict[str, Any] = {
        "InstanceType": instance_type,
        "InstanceCount": nodes,
        "VolumeSizeInGB": volume,
    }
    if options.keep_alive:
        minutes = option_values.whole_number(options.keep_alive, "--keep-alive", 1, 360)
        resources["KeepAlivePeriodInSeconds"] = minutes * 60
    parameters: dict[str, Any] = {
        "TrainingJobName": name,
        "AlgorithmSpecification": algorithm,
        "RoleArn": role_arn(options.role),
        "OutputDataConfig": {"S3OutputPath": output},
        "ResourceConfig": resources,
        "StoppingCondition": {"MaxRuntimeInSeconds": seconds},
        # As the SDK writes them: each value is JSON. The launcher fetches the code by this one.
        "HyperParameters": {"sagemaker_submit_directory": json.dumps(source_uri)},
        "Environment": _environment(options.env),
        "Tags": [
            {"Key": "slipway:image", "Value": image.name},
        ],
    }
    if options.inputs:
        parameters["InputDataConfig"] = [_channel(text) for text in options.inputs]
    if options.spot:
        parameters["EnableManagedSpotTraining"] = True
        parameters["StoppingCondition"]["MaxWaitTimeInSeconds"] = 2 * seconds
    if options.retries:
        attempts = option_values.whole_number(options.retries, "--retries", 1, 30)
        parameters["RetryStrategy"] = {"MaximumRetryAttempts": attempts}
    parameters |= _network(options)
    _check_networked(options, parameters)
    notes = _notes(options, parameters, efa=efa and nodes > 1)
    return TrainingRequest(parameters, _source(options), notes)


def s3_uri(text: str, option: str) -> str:
    """A URI of S3 that has a bucket."""
    if not _S3.fullmatch(text):
        raise UsageError(f"{option} {text!r}: expected s3://BUCKET/PREFIX")
    return text


def role_arn(text: str) -> str:
    """The ARN of an IAM role."""
    if not _ROLE.fullmatch(text):
        raise UsageError(
            f"--role {text!r}: expected an ARN like arn:aws:iam::111122223333:role/NAME",
            cure="The role is what the job's containers may do: `aws iam list-roles` has its ARN.",
        )
    return text


def default_job_name(image: str, now: datetime) -> str:
    """A name of a job of an image, which is another one each second."""
    words = re.sub(r"[^a-zA-Z0-9]+", "-", image).strip("-") or "job"
    return f"{words[: _LONGEST_NAME - 16].rstrip('-')}-{now:%Y%m%d-%H%M%S}"


def _instance(text: str, image: Image, launcher: Path) -> tuple[str, bool]:
    """The type's name, and whether it has EFA. Images without CUDA run on types without GPUs."""
    if image.base.facts.device != "gpu" and _TYPE.fullmatch(text):
        return text, False
    instance_type, instance = launcher_tables.find_instance_row(launcher, text)
    training_kinds.check_device(image, instance_type, instance)
    return instance_type, instance.efa != 0


def _job_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name of a training job: letters, digits and -, at most 63 of them",
            cure="Choose another --job-name.",
        )
    return name


def _arguments(options: TrainingOptions, launcher: Path) -> list[str]:
    if not options.words:
        raise UsageError(
            "there is no training script",
            cure="Give it with its arguments after --: ... -- train.py --epochs 3",
        )
    asked = list(options.launch)
    if options.checkpoints:
        asked.append(f"checkpoint-uri={s3_uri(options.checkpoints, '--checkpoints')}")
    flags = launcher_tables.given_flags(asked, launcher, "SageMaker")
    words = ["launch", "sagemaker", *flags, "--", *options.words]
    if len(words) > _MOST_WORDS:
        raise UsageError(
            f"a job takes {_MOST_WORDS} words of a command, these are {len(words)}",
            cure="Put the script's arguments into a file of its folder, or into a script.",
        )
    for word in words:
        if len(word) > _LONGEST_WORD or "\n" in word:
            raise UsageError(
                f"a job takes words of one line, of {_LONGEST_WORD} characters: {word[:40]!r}...",
                cure="Put it into a file of the script's folder.",
            )
    return words


def _environment(texts: Sequence[str]) -> dict[str, str]:
    values = {}
    for text in texts:
        variable = option_values.parse_variable(text, own=())
        if variable.value is None:
            raise UsageError(
                f"--env {text!r}: a job takes no value from here", cure=f"--env {text}=VALUE"
            )
        if len(variable.value) > _LONGEST_VALUE:
            raise UsageError(
                f"--env {variable.name}: a job's variables have at most {_LONGEST_VALUE} characters"
            )
        values[variable.name] = variable.value
    if len(values) > 100:
        raise UsageError("a job takes 100 variables")
    return values


def _channel(text: str) -> dict[str, Any]:
    name, _, location = text.partition("=")
    if not _CHANNEL.fullmatch(name) or not location:
        raise UsageError(f"--input {text!r}: expected {_CHANNEL_FORMS}")
    system = _FILE_SYSTEM.fullmatch(location)
    if system is not None:
        kind, identifier, path, access = system.groups()
        source = {
            "FileSystemDataSource": {
                "FileSystemId": identifier,
                "FileSystemType": "FSxLustre" if kind == "fsx" else "EFS",
                "FileSystemAccessMode": access or "ro",
                "DirectoryPath": path,
            }
        }
    elif _S3.fullmatch(location):
        source = {
            "S3DataSource": {
                "S3DataType": "S3Prefix",
                "S3Uri": location,
                "S3DataDistributionType": "FullyReplicated",
            }
        }
    else:
        raise UsageError(f"--input {text!r}: expected {_CHANNEL_FORMS}")
    return {"ChannelName": name, "DataSource": source}


def _network(options: TrainingOptions) -> dict[str, Any]:
    if not options.subnets and not options.security_groups:
        return {}
    for option, kind, values in (
        ("--subnet", "subnet", options.subnets),
        ("--security-group", "sg", options.security_groups),
    ):
        if not values:
            raise UsageError(f"{option} is missing: a network has subnets and security groups")
        for value in values:
            if not (_NETWORK.fullmatch(value) and value.startswith(f"{kind}-")):
                raise UsageError(
                    f"{option} {value!r}: expected an id like {kind}-0123456789abcdef0"
                )
    return {
        "VpcConfig": {
            "SecurityGroupIds": list(options.security_groups),
            "Subnets": list(options.subnets),
        }
    }


def _check_networked(options: TrainingOptions, parameters: Mapping[str, Any]) -> None:
    mounted = [text for text in options.inputs if "=fsx:" in text or "=efs:" in text]
    if mounted and "VpcConfig" not in parameters:
        raise UsageError(
            f"--input {mounted[0]}: a file system is reached from its own network only",
            cure="Give --subnet and --security-group of that network.",
        )
    names = [text.partition("=")[0] for text in options.inputs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(f"--input {twice[0]} is given twice")
    if options.spot and options.keep_alive:
        raise UsageError("a warm pool (--keep-alive) and --spot exclude each other")


def _source(options: TrainingOptions) -> Path:
    folder = Path(options.source)
    if not folder.is_dir():
        raise UsageError(f"--source {options.source!r} is no folder here")
    script = options.words[0]
    plain = not script.startswith("-") and Path(script).suffix in (".py", ".sh")
    if plain and not (folder / script).is_file():
        raise UsageError(
            f"there is no {script} in {folder.resolve()}",
            cure="Give the folder that has it: --source FOLDER, and the script's path inside it.",
        )
    return folder


def _notes(
    options: TrainingOptions, parameters: Mapping[str, Any], *, efa: bool
) -> tuple[str, ...]:
    notes = []
    if efa and "VpcConfig" in parameters:
        notes.append(
            "EFA between nodes needs a security group that lets all traffic from and to itself"
        )
    if options.spot and not options.checkpoints:
        notes.append(
            "a spot job that is interrupted begins again from nothing without --checkpoints"
        )
    return tuple(notes)
