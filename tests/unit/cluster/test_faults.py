"""What goes wrong outside, through each task that it concerns: one paragraph, nothing half-made.

AWS is moto in this process, with refusals put before it; Slurm's programs are stand-ins that fail
as Slurm 22.05 does, in its words.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from launcher.causes import NO_SPACE
from launcher.fetch import fetch_command, origin, partial_file
from slipway import __version__
from slipway.cluster.aws_account import AwsAccount
from slipway.cluster.hyperpod import cluster_change
from slipway.cluster.hyperpod.cluster_lease import hold_lease
from slipway.cluster.serving import endpoint_change
from slipway.cluster.slurm import jobs
from slipway.tasks.cli import InvProgram
from tests.support.aws_control_plane import REGION, ControlPlane, control_plane_in_process
from tests.support.launcher.sqsh_files import ServedFile, write_sqsh

ROOT = Path(__file__).parents[3]
IMAGE = "pytorch-2.13-hyperpod-ds0.19.8"
SAGEMAKER_IMAGE = "pytorch-2.13-sagemaker-ds0.19.8"
URI = f"123456789012.dkr.ecr.{REGION}.amazonaws.com/sagemaker-slipway/x@sha256:" + "a" * 64
ROLE = "arn:aws:iam::123456789012:role/Any"
MOST_LINES = 8  # of a paragraph, with what was said before it


class Here:
    """A folder to work in, and `inv` in it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys, self.out = folder, capsys, ""

    def inv(self, *words: str) -> tuple[int, str]:
        """The exit code, and what was told."""
        program = InvProgram(name="Slipway", binary="inv", version=__version__)
        argv = ["inv", "--search-root", str(ROOT), *words]
        sys.argv = argv  # what stands behind -- is read there
        code: Any = 0
        try:
            program.run(argv)
        except SystemExit as end:
            code = end.code
        told = self.capsys.readouterr()
        self.out = told.out
        return int(code or 0), told.err

    def refused(self, *words: str, code: int = 1) -> str:
        """What is told by a task that must fail; with a cure, and no traceback."""
        left = self.files()
        ended, told = self.inv(*words)
        assert ended == code, told
        assert "Traceback" not in told
        (begin,) = [match.start() for match in re.finditer(r"^inv [a-z.]+: ", told, re.MULTILINE)]
        text = told[begin:]
        assert 2 <= len(text.splitlines()) <= MOST_LINES, text
        assert self.files() == left
        return " ".join(told.split())

    def files(self) -> set[str]:
        """All that is in the folder; nothing may be half-made."""
        return {str(path) for path in self.folder.rglob("*") if "state" not in path.parts}


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Here:
    for name in [*os.environ]:
        if name.startswith(("AWS_", "SLURM_", "INVOKE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SLIPWAY_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", [*sys.path])
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "train.py").write_text("print(1)\n")
    write_sqsh(work / "x.sqsh", [random.Random(1).randbytes(3000)])
    return Here(work, capsys)


# --- Slurm ---

SUBMIT = (
    *("slurm.submit", IMAGE, "--nodes", "2", "--instance", "ml.g5.xlarge"),
    *("--sqsh", "/fsx/x.sqsh", "--sbatch", "partition=cpu", "--", "train.py"),
)
FANOUT = (
    *("fanout", IMAGE, "--engine", "slurm", "--dir", "run", "--region", REGION),
    *("--target", "ecr", "--no-engine", "--unlocked", "--sbatch", "partition=cpu"),
)
OF_A_JOB = (
    ("slurm.status", "7"),
    ("slurm.logs", "7"),
    ("slurm.stop", "7"),
    ("sqsh.send", "x.sqsh", "--job", "7"),
    ("report", "--job", "slurm:7"),
)
SLURM = ("sbatch", "squeue", "scontrol", "sinfo", "scancel", "sacct", "srun", "salloc", "sbcast")


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of a machine without Slurm."""
    folder = tmp_path_factory.mktemp("bin")
    for place in (Path("/bin"), Path("/usr/bin")):
        for program in place.iterdir():
            link = folder / program.name
            if program.name not in SLURM and not link.is_symlink():
                link.symlink_to(program)
    return folder


class Slurm:
    """Slurm's programs, each a line of sh. `submitted` is there where a job was."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.submitted = folder / "submitted"

    def program(self, name: str, text: str) -> None:
        (self.folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.folder / name).chmod(0o755)


@pytest.fixture
def slurm(machine: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{machine}")
    monkeypatch.setattr("slipway.cluster.slurm.head_node.SLURM_FOLDERS", ())
    monkeypatch.setattr(jobs, "LOOK_S", 0.01)
    return Slurm(folder)


@pytest.mark.parametrize(
    "words",
    [SUBMIT, FANOUT, ("slurm.queue",), ("cluster.check",), *OF_A_JOB],
    ids=lambda words: words[0],
)
def test_without_slurm(here: Here, slurm: Slurm, words: tuple[str, ...]) -> None:
    told = here.refused(*words)
    assert "no Slurm on this machine" in told or "no machine of a Slurm cluster" in told
    assert "head node" in told


@pytest.mark.parametrize("words", [SUBMIT, FANOUT], ids=lambda words: words[0])
def test_a_partition_that_is_not_there(here: Here, slurm: Slurm, words: tuple[str, ...]) -> None:
    slurm.program("sbatch", "echo 'sbatch: error: invalid partition specified: cpu' >&2; exit 1")
    slurm.program("sinfo", "echo gpu; echo cpus")
    told = here.refused(*words)
    assert "invalid partition specified: cpu" in told
    assert "--sbatch partition=NAME" in told


@pytest.mark.parametrize("words", OF_A_JOB, ids=lambda words: words[0])
def test_a_job_that_is_gone(here: Here, slurm: Slurm, words: tuple[str, ...]) -> None:
    gone = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
    for name in ("scontrol", "squeue", "sacct"):
        slurm.program(name, gone)
    told = here.refused(*words)
    assert "no job 7" in told or "job 7" in told
    assert "Invalid job id" in told


# --- AWS ---

CLUSTER = """\
name: train
region: us-east-1
account: "123456789012"
zone: use1-az4
controller: ml.c5.xlarge
groups:
  workers: {instance: ml.g5.48xlarge, count: 2}
"""
AT = ("--region", REGION)
UP = ("cluster.up", "train.yaml", "--yes")
JOB = (
    *("sagemaker.job", SAGEMAKER_IMAGE, *AT, "--instance", "ml.g5.xlarge", "--role", ROLE),
    *("--output-uri", "s3://models/jobs", "--image-uri", URI, "--submit", "--", "train.py"),
)
DEPLOY = (
    *("deploy.lmi", "s3://models/llama", *AT, "--role", ROLE),
    *("--instance", "ml.g4dn.12xlarge", "--yes"),
)
CODEBUILD = (
    *("fanout", SAGEMAKER_IMAGE, "--engine", "codebuild", *AT, "--target", "ecr", "--no-engine"),
    *("--no-sqsh", "--unlocked", "--role", ROLE, "--source", "s3://models/slipway"),
)
#: Each task that asks AWS, and the call by which it does what it is for.
ASKING: tuple[tuple[tuple[str, ...], str], ...] = (
    (UP, "CreateCluster"),
    (("cluster.status", "train.yaml"), "DescribeCluster"),
    (("cluster.nodes", "train.yaml"), "DescribeCluster"),
    (("cluster.shell", "train.yaml"), "DescribeCluster"),
    (("cluster.delete", "train.yaml", "--yes"), "DescribeCluster"),
    (JOB, "CreateTrainingJob"),
    (("sagemaker.status", "job", *AT), "DescribeTrainingJob"),
    (("sagemaker.logs", "job", *AT), "DescribeTrainingJob"),
    (("sagemaker.stop", "job", *AT), "DescribeTrainingJob"),
    (("report", "--job", "sagemaker:job", *AT), "DescribeTrainingJob"),
    (DEPLOY, "CreateEndpoint"),
    (("deploy.status", "llama", *AT), "DescribeEndpoint"),
    (("deploy.invoke", "llama", *AT), "DescribeEndpoint"),
    (("deploy.delete", "llama", *AT, "--yes"), "DescribeEndpoint"),
    (CODEBUILD, "BatchGetProjects"),
    (("fanout.stop", "slipway-fanout:1", *AT), "BatchGetBuildBatches"),
)
MAKING = tuple((words, call) for words, call in ASKING if call.startswith("Create"))


class Account:
    """The tasks' AWS account, with what is made in it."""

    def __init__(self, here: Here, plane: ControlPlane) -> None:
        self.here, self.plane = here, plane

    def refused(
        self, words: tuple[str, ...], *refusals: tuple[str, str, str], code: int = 1
    ) -> str:
        """What is told where calls are refused: (call, code, text)."""
        for call, kind, text in refusals:
            self.plane.refusals.setdefault(call, []).append((kind, text))
        return self.here.refused(*words, code=code)

    def made(self) -> list[str]:
        """What costs money, or would be in the way of the next run."""
        client = boto3.client("sagemaker", region_name=REGION)
        jobs = client.list_training_jobs()["TrainingJobSummaries"]
        endpoints = client.list_endpoints()["Endpoints"]
        return [
            *(job["TrainingJobName"] for job in jobs),
            *(endpoint["EndpointName"] for endpoint in endpoints),
            *self.plane.hyperpod.clusters,
        ]

    def works(self, words: tuple[str, ...]) -> None:
        """The same words again, with nothing in their way."""
        self.plane.refusals.clear()
        code, told = self.here.inv(*words)
        assert code == 0, told


@pytest.fixture
def account(here: Here, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_MAX_ATTEMPTS", "2"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setattr(cluster_change, "POLL_S", 0.0)
    monkeypatch.setattr(endpoint_change, "POLL_S", 0.0)
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _seconds: None)
    (here.folder / "train.yaml").write_text(CLUSTER)
    with control_plane_in_process() as plane:
        plane.hyperpod.quotas["ml.g5.48xlarge for cluster usage"] = 2.0
        plane.hyperpod.default_quotas["ml.c5.xlarge for cluster usage"] = 1.0
        storage = boto3.client("s3", region_name=REGION)
        storage.create_bucket(Bucket="models")
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama",
                  "num_attention_heads": 32, "num_key_value_heads": 8}  # fmt: skip
        storage.put_object(Bucket="models", Key="llama/config.json", Body=json.dumps(config))
        yield Account(here, plane)


@pytest.mark.parametrize(("words", "call"), ASKING, ids=lambda value: value[0])
def test_throttling_that_does_not_end(account: Account, words: tuple[str, ...], call: str) -> None:
    told = account.refused(words, *[(call, "ThrottlingException", "Rate exceeded")] * 2)
    assert f"{call}: Rate exceeded; tried 2 times" in told
    assert "run it again: it goes on with what is there" in told
    assert account.made() == []


@pytest.mark.parametrize(("words", "call"), MAKING, ids=lambda value: value[0])
def test_a_denial(account: Account, words: tuple[str, ...], call: str) -> None:
    text = "User: arn:aws:iam::123456789012:user/me is not authorized to perform it"
    told = account.refused(words, (call, "AccessDeniedException", text))
    assert f"{call}: {text}" in told
    assert "A policy of the principal has to allow it" in told
    assert "ecr:" not in told
    assert account.made() == []


@pytest.mark.parametrize(("words", "call"), MAKING, ids=lambda value: value[0])
def test_a_limit_of_the_account(account: Account, words: tuple[str, ...], call: str) -> None:
    text = "The account-level service limit 'ml.g5.48xlarge for cluster usage' is 0 Instances"
    told = account.refused(words, (call, "ResourceLimitExceeded", text))
    assert text in told
    assert "Service Quotas" in told
    assert account.made() == []
    account.works(words)


@pytest.mark.parametrize(("words", "call"), MAKING, ids=lambda value: value[0])
def test_a_document_that_aws_refuses(account: Account, words: tuple[str, ...], call: str) -> None:
    text = "1 validation error detected: Value 'x' at 'instanceGroups.2.member.instanceType' failed"
    told = account.refused(words, (call, "ValidationException", text))
    assert text in told
    if call == "CreateCluster":
        assert "train.yaml:7: " in told
    assert account.made() == []
    account.works(words)


def test_a_state_that_forbids_the_call(account: Account) -> None:
    account.works(UP)
    path = account.here.folder / "train.yaml"
    path.write_text(CLUSTER.replace("count: 2", "count: 1"))
    text = "The cluster is in status Updating"
    told = account.refused(UP, ("UpdateCluster", "ConflictException", text))
    assert text in told
    assert "`./inv cluster.status train.yaml` says in which; wait for it" in told
    path.write_text(CLUSTER)
    account.works(("cluster.nodes", "train.yaml", "--json"))
    nodes = json.loads(account.here.out)
    pending = next(node["id"] for node in nodes if node["status"] == "Pending")
    told = account.here.refused("cluster.shell", "train.yaml", "--node", pending)
    assert "lifecycle script runs" in told


def test_two_at_once(account: Account) -> None:
    bucket = "sagemaker-train-123456789012-us-east-1"
    boto3.client("s3", region_name=REGION).create_bucket(Bucket=bucket)
    with hold_lease(AwsAccount(REGION), bucket, "cluster.up"):
        for words in (UP, ("cluster.delete", "train.yaml", "--yes")):
            assert "is at work on this cluster: inv cluster.up" in account.here.refused(*words)
    assert account.made() == []
    account.works(UP)


# --- files on nodes ---


def fetched(here: Here, host: str) -> tuple[int, str]:
    """What a node's own program says."""
    code = fetch_command.main([f"registry://{host}/r:t", "--to", str(here.folder / "node"),
                               "--alone", "--plain-http"])  # fmt: skip
    return code, here.capsys.readouterr().err


def test_a_registry_that_ends_half_way(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "LONGEST_PAUSE", 0.0)
    pieces = [b"a" * 1000, b"b" * 1001]
    served = ServedFile(pieces)
    served.spoil = lambda path, status, headers, data: (
        (status, {"Content-Length": str(len(data))}, b"") if data[:1] == b"b" else None
    )
    with served as (host, _):
        code, told = fetched(here, host)
        assert code != 0
        assert len(told.splitlines()) <= MOST_LINES
        assert "does not answer to the end" in told
        assert not (here.folder / "node" / "x.sqsh").exists()
        served.spoil = None
        del served.asked[:]
        assert fetched(here, host)[0] == 0
        assert len(served.asked) == 1  # what had come is not asked for again
    assert (here.folder / "node" / "x.sqsh").read_bytes() == b"".join(pieces)


def test_a_node_without_room(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_file, "_SPARE_BYTES", 1 << 60)
    served = ServedFile([b"a" * 1000])
    with served as (host, _):
        code, told = fetched(here, host)
    assert code == NO_SPACE
    assert "MiB free" in told
    assert len(told.splitlines()) <= MOST_LINES
    assert served.asked == []
    assert [path.name for path in (here.folder / "node").rglob("*.sqsh")] == []
