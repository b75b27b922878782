"""Fixtures of task_runs.py: a module of pytest's plugins, which nothing else imports."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from slipway.cluster.hyperpod import cluster_change
from slipway.cluster.serving import endpoint_change
from slipway.cluster.slurm import jobs
from tests.support.aws_control_plane import REGION, control_plane_in_process
from tests.support.cluster_samples import MOTO_CLUSTER
from tests.support.launcher.sqsh_files import write_sqsh
from tests.support.task_runs import SLURM, Account, Here, Slurm


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


@pytest.fixture
def slurm(machine: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{machine}")
    monkeypatch.setattr("slipway.cluster.slurm.head_node.SLURM_FOLDERS", ())
    monkeypatch.setattr(jobs, "LOOK_S", 0.01)
    return Slurm(folder)


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
    (here.folder / "train.yaml").write_text(MOTO_CLUSTER)
    with control_plane_in_process() as plane:
        plane.hyperpod.quotas["ml.g5.48xlarge for cluster usage"] = 2.0
        plane.hyperpod.default_quotas["ml.c5.xlarge for cluster usage"] = 1.0
        storage = boto3.client("s3", region_name=REGION)
        storage.create_bucket(Bucket="models")
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama",
                  "num_attention_heads": 32, "num_key_value_heads": 8}  # fmt: skip
        storage.put_object(Bucket="models", Key="llama/config.json", Body=json.dumps(config))
        yield Account(here, plane)
