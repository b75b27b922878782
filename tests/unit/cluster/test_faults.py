"""What goes wrong outside, through each task that it concerns: one paragraph, nothing half-made.

AWS is moto in this process, with refusals put before it; Slurm's programs are stand-ins that fail
as Slurm 22.05 does, in its words.
"""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import pytest

from launcher.causes import NO_SPACE
from launcher.fetch import fetch_command, origin, partial_file
from slipway.cluster.aws_account import AwsAccount
from slipway.cluster.hyperpod.cluster_lease import hold_lease
from tests.support.aws_control_plane import REGION
from tests.support.cluster_samples import MOTO_CLUSTER
from tests.support.launcher.sqsh_files import ServedFile
from tests.support.task_runs import MOST_LINES, Account, Here, Slurm

pytest_plugins = ["tests.support.task_run_fixtures"]

ROOT = Path(__file__).parents[3]
IMAGE = "pytorch-2.13-hyperpod-ds0.19.8"
SAGEMAKER_IMAGE = "pytorch-2.13-sagemaker-ds0.19.8"
URI = f"123456789012.dkr.ecr.{REGION}.amazonaws.com/sagemaker-slipway/x@sha256:" + "a" * 64
ROLE = "arn:aws:iam::123456789012:role/Any"
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
    path.write_text(MOTO_CLUSTER.replace("count: 2", "count: 1"))
    text = "The cluster is in status Updating"
    told = account.refused(UP, ("UpdateCluster", "ConflictException", text))
    assert text in told
    assert "`./inv cluster.status train.yaml` says in which; wait for it" in told
    path.write_text(MOTO_CLUSTER)
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
