"""Training jobs on SageMaker: what is asked for, as AWS's own model of the call takes it."""

from __future__ import annotations

import ast
import dataclasses
import io
import json
import os
import tarfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.cluster.sagemaker.sdk_code import render_job
from slipway.cluster.sagemaker.source_archive import write_source_archive
from slipway.cluster.sagemaker.training_request import (
    TrainingOptions,
    TrainingRequest,
    default_job_name,
    make_training_request,
)
from slipway.core import SlipwayError, UsageError
from tests.support.aws_control_plane import check_request
from tests.support.cluster_samples import LAUNCHER, image

PYTORCH = "pytorch-2.13-sagemaker-ds0.19.8"
CPU = "pytorch-2.13-cpu-sagemaker-ds0.19.8"
NOW = datetime(2026, 11, 28, 12, 30, 5, tzinfo=timezone.utc)
URI = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sagemaker-slipway/x@sha256:" + "a" * 64
FSX = "fsx:fs-0123456789abcdef0:/abcdef/data"
NETWORK = {
    "subnets": ("subnet-0123456789abcdef0",),
    "security_groups": ("sg-0123456789abcdef0",),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/train.py").write_text("print(1)\n")
    return tmp_path / "code"


def options(folder: Path, **changes: Any) -> TrainingOptions:
    given = TrainingOptions(
        instance="ml.p5.48xlarge",
        nodes="2",
        words=("train.py", "--log", "a b"),
        role="arn:aws:iam::123456789012:role/service-role/Train",
        output="s3://bucket/out/",
        source=str(folder),
    )
    return dataclasses.replace(given, **changes)


def request(folder: Path, **changes: Any) -> TrainingRequest:
    return make_training_request(options(folder, **changes), image(PYTORCH), URI, LAUNCHER, NOW)


EVERYTHING: dict[str, Any] = {
    "inputs": ("train=s3://bucket/data", f"fsx={FSX}", "home=efs:fs-01234567:/x:rw"),
    "input_mode": "FastFile",
    "checkpoints": "s3://bucket/ck",
    "env": ("A=b c", "EMPTY="),
    "launch": ("resume=auto", "grace=60"),
    "time": "2-12:00:00",
    "volume": "500",
    "retries": "3",
    "keep_alive": "30",
    **NETWORK,
}


def test_the_whole_of_a_job_is_what_the_api_reference_has(source: Path) -> None:
    made = request(source, **EVERYTHING)
    assert check_request("sagemaker", "CreateTrainingJob", made.parameters) == []
    assert made.parameters["AlgorithmSpecification"] == {
        "TrainingImage": URI,
        "TrainingInputMode": "FastFile",
        "ContainerEntrypoint": ["/opt/entrypoints/entrypoint.sh"],
        "ContainerArguments": [
            *("launch", "sagemaker", "--resume=auto", "--grace=60"),
            *("--checkpoint-uri=s3://bucket/ck", "--", "train.py", "--log", "a b"),
        ],
    }
    assert made.parameters["ResourceConfig"] == {
        "InstanceType": "ml.p5.48xlarge",
        "InstanceCount": 2,
        "VolumeSizeInGB": 500,
        "KeepAlivePeriodInSeconds": 1800,
    }
    assert made.parameters["StoppingCondition"] == {"MaxRuntimeInSeconds": 60 * 3600}
    assert made.parameters["Environment"] == {"A": "b c", "EMPTY": ""}
    assert made.parameters["RetryStrategy"] == {"MaximumRetryAttempts": 3}
    assert [channel["ChannelName"] for channel in made.parameters["InputDataConfig"]] == [
        *("train", "fsx", "home")
    ]
    assert made.parameters["InputDataConfig"][1]["DataSource"] == {
        "FileSystemDataSource": {
            "FileSystemId": "fs-0123456789abcdef0",
            "FileSystemType": "FSxLustre",
            "FileSystemAccessMode": "ro",
            "DirectoryPath": "/abcdef/data",
        }
    }
    assert made.source_uri == f"s3://bucket/out/{made.name}/source/sourcedir.tar.gz"
    assert "EFA" in made.notes[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"words": ()}, "no training script"),
        ({"words": ("gone.py",)}, "there is no gone.py"),
        ({"source": "/nowhere"}, "no folder"),
        ({"instance": "ml.p5.48xlarg"}, "no instance type ml.p5.48xlarg"),
        ({"instance": "ml.trn1.32xlarge"}, "needs GPUs"),
        ({"nodes": "0"}, "--nodes"),
        ({"nodes": "two"}, "--nodes"),
        ({"role": "Train"}, "--role 'Train'"),
        ({"output": "bucket/out"}, "--output-uri"),
        ({"output": "s3://"}, "--output-uri"),
        ({"checkpoints": "/ck"}, "--checkpoints"),
        ({"job_name": "a_b"}, "no name of a training job"),
        ({"job_name": "a" * 64}, "no name of a training job"),
        ({"time": "soon"}, "--time"),
        ({"time": "29-00:00:00"}, "28 days"),
        ({"inputs": ("train",)}, "--input 'train'"),
        ({"inputs": ("a/b=s3://bucket/x",)}, "--input"),
        ({"inputs": ("a=http://x",)}, "--input"),
        ({"inputs": ("a=s3://bucket/x", "a=s3://bucket/y")}, "given twice"),
        ({"inputs": (f"a={FSX}",)}, "own network"),
        ({"subnets": NETWORK["subnets"]}, "--security-group is missing"),
        ({**NETWORK, "subnets": ("vpc-0123456789abcdef0",)}, "--subnet"),
        ({"input_mode": "Slow"}, "--input-mode"),
        ({"launch": ("hosts=a",)}, "SageMaker says that itself"),
        ({"launch": ("no-such=1",)}, "no-such"),
        ({"env": ("A",)}, "takes no value from here"),
        ({"env": ("LAUNCH_X=1",)}, "LAUNCH_X"),
        ({"env": ("A=" + "x" * 513,)}, "512"),
        ({"words": ("train.py", *["x"] * 100)}, "100 words"),
        ({"words": ("train.py", "x" * 257)}, "256"),
        ({"volume": "0"}, "--volume-gb"),
        ({"retries": "31"}, "--retries"),
        ({"keep_alive": "361"}, "--keep-alive"),
        ({"keep_alive": "5", "spot": True}, "exclude each other"),
    ],
)
def test_what_aws_would_refuse_or_could_not_work_is_said_before(
    source: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        request(source, **changes)


TEXT = st.text(max_size=300)
FIELDS = {
    "nodes": st.one_of(TEXT, st.integers(-5, 99_999).map(str)),
    "job_name": TEXT,
    "time": st.one_of(TEXT, st.integers(0, 10**7).map(str)),
    "output": st.one_of(TEXT, TEXT.map("s3://{}".format), TEXT.map("s3://bucket/{}".format)),
    "role": st.one_of(TEXT, TEXT.map("arn:aws:iam::123456789012:role/{}".format)),
    "inputs": st.lists(
        st.one_of(TEXT, TEXT.map("a=s3://bucket/{}".format), TEXT.map("{}=s3://bucket".format))
    ).map(tuple),
    "env": st.lists(st.one_of(TEXT, TEXT.map("A={}".format))).map(tuple),
    "words": st.lists(TEXT, max_size=4).map(lambda words: ("train.py", *words)),
    "volume": st.integers(-1, 99_999).map(str),
    "retries": st.integers(-1, 99).map(str),
    "spot": st.booleans(),
}


@settings(max_examples=300)
@given(st.fixed_dictionaries({}, optional=FIELDS))
def test_whatever_is_given_the_request_is_valid_or_a_sentence(changes: dict[str, Any]) -> None:
    folder = Path(__file__).parents[3] / "examples/causal_lm"
    try:
        made = request(folder, **changes)
    except UsageError:
        return
    assert check_request("sagemaker", "CreateTrainingJob", made.parameters) == []


@given(st.text(min_size=1, max_size=200))
def test_a_name_of_a_job_is_made_of_whatever_an_image_is_called(name: str) -> None:
    made = {"TrainingJobName": default_job_name(name, NOW)}
    broken = [text for text in check_request("sagemaker", "DescribeTrainingJob", made) if text]
    assert broken == []


def test_an_image_without_cuda_runs_on_types_without_gpus(source: Path) -> None:
    wanted = options(source, instance="ml.m5.xlarge", nodes="1")
    made = make_training_request(wanted, image(CPU), URI, LAUNCHER, NOW)
    assert made.parameters["ResourceConfig"]["InstanceType"] == "ml.m5.xlarge"
    with pytest.raises(UsageError, match="no instance type"):
        request(source, instance="ml.m5.xlarge")


def arguments(code: str, name: str) -> dict[str, Any]:
    """The keyword arguments of the one call of `name` in some code; None for what is no literal."""
    calls = [
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name
    ]
    assert len(calls) == 1, name
    values = {}
    for keyword in calls[0].keywords:
        try:
            values[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except ValueError:
            values[str(keyword.arg)] = None
    return values


def test_code_for_sdk_v2_asks_for_the_same_job(source: Path) -> None:
    made = request(source, **EVERYTHING)
    code = render_job(made, "sdk2", "us-east-1")
    said = arguments(code, "Estimator")
    algorithm = made.parameters["AlgorithmSpecification"]
    assert said["image_uri"] == URI
    assert said["container_entry_point"] == algorithm["ContainerEntrypoint"]
    assert said["container_arguments"] == algorithm["ContainerArguments"]
    assert (said["instance_count"], said["max_run"]) == (2, 60 * 3600)
    assert said["environment"] == {"A": "b c", "EMPTY": ""}
    assert said["entry_point"] == "train.py"
    assert arguments(code, "estimator.fit")["job_name"] == made.name


def test_code_for_sdk_v3_gives_its_shell_the_same_words(source: Path) -> None:
    made = request(source, **EVERYTHING)
    code = render_job(made, "sdk3", "us-east-1")
    command = arguments(code, "SourceCode")["command"]
    assert command == (
        "launch sagemaker --resume=auto --grace=60 --checkpoint-uri=s3://bucket/ck "
        "-- train.py --log 'a b'"
    )
    assert arguments(code, "Compute")["keep_alive_period_in_seconds"] == 1800
    assert arguments(code, "ModelTrainer")["training_image"] == URI


def test_the_document_is_json(source: Path) -> None:
    made = request(source)
    assert json.loads(render_job(made, "json", "us-east-1")) == made.parameters


# --- the code of a job ---


def archive(folder: Path) -> bytes:
    stream = io.BytesIO()
    write_source_archive(folder, stream)
    return stream.getvalue()


def test_the_same_code_is_the_same_bytes_and_holds_no_cache(source: Path) -> None:
    (source / "pkg/__pycache__").mkdir(parents=True)
    (source / "pkg/__pycache__/x.pyc").write_bytes(b"x")
    (source / "pkg/a.py").write_text("a")
    (source / ".git").mkdir()
    (source / ".git/config").write_text("secret")
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o700)
    (source / "link.py").symlink_to("pkg/a.py")
    first = archive(source)
    os.utime(source / "train.py", (0, time.time()))
    (source / "train.py").chmod(0o600)
    assert archive(source) == first
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        modes = {member.name: member.mode for member in tar if member.isreg()}
    assert modes == {"pkg/a.py": 0o644, "run.sh": 0o755, "train.py": 0o644}


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "pkg/../../outside"])
def test_a_link_out_of_the_folder_is_refused_by_name(source: Path, target: str) -> None:
    (source / "link").symlink_to(target)
    with pytest.raises(SlipwayError, match="link"):
        archive(source)


def test_a_socket_is_no_code(source: Path) -> None:
    os.mkfifo(source / "pipe")
    with pytest.raises(SlipwayError, match="pipe"):
        archive(source)
