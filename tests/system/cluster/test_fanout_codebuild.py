"""`inv fanout --engine codebuild`: what is asked of CodeBuild, and the builds that it is told to
make, run here by the commands of their buildspec. CodeBuild itself is tests/support/codebuild.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from slipway.cluster import (
    CodeBuildOptions,
    ShipFlags,
    plan_fanout,
    run_codebuild_fanout,
    stop_batch,
)
from slipway.cluster.fanout import codebuild_batches
from slipway.core import SlipwayError, UsageError
from slipway.matrix import select_images
from slipway.pipeline import Checkout
from tests.support.clones import Clone
from tests.support.codebuild import QUEUE_FULL, CodeBuild, codebuild
from tests.support.fanout_samples import put_bases, write_matrix
from tests.support.host_nodes import write_host_venv
from tests.support.registry.ecr_front_door import REGION, Door

pytest_plugins = ["tests.support.registry.fixtures"]

ROLE = "arn:aws:iam::123456789012:role/slipway-builds"
BUCKET = "slipway-builds"
FLAGS = ShipFlags(region=REGION, no_engine=True, no_sqsh=True, unlocked=True)


@pytest.fixture
def clone(data_registry: str, tmp_path: Path) -> Clone:
    put_bases(data_registry, "codebuild/b", 1, 100_000, tmp_path)
    clone = Clone.make(tmp_path / "clone", tmp_path / "unused")
    write_matrix(clone, data_registry, "codebuild/b", 1, 3)
    return clone


@pytest.fixture
def builds(
    door: Door, clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CodeBuild]:
    venv = write_host_venv(tmp_path / "venv", clone.root / "requirements.lock")
    monkeypatch.setattr(codebuild_batches, "POLL_S", 0.05)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with codebuild(tmp_path / "builds", door.api, {"SLIPWAY_VENV": str(venv)}) as state:
        monkeypatch.setenv("AWS_ENDPOINT_URL", state.url)
        place = {"LocationConstraint": REGION}
        storage = boto3.client("s3")
        storage.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=place)
        yield state
        if any(bucket["Name"] == BUCKET for bucket in storage.list_buckets()["Buckets"]):
            empty(storage)


def empty(storage: Any) -> None:
    for entry in storage.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        storage.delete_object(Bucket=BUCKET, Key=entry["Key"])
    storage.delete_bucket(Bucket=BUCKET)


def run(clone: Clone, **options: object) -> None:
    checkout = Checkout.at(clone.root)
    images = select_images(checkout.matrix, [])
    plan = plan_fanout(images, FLAGS, checkout.build_id_of)
    chosen = CodeBuildOptions(role=ROLE, source=f"s3://{BUCKET}/of-slipway", **options)  # type: ignore[arg-type]
    prefix = checkout.matrix.repository_prefix
    run_codebuild_fanout(clone.root, plan, chosen, images, prefix=prefix, as_json=True)


def test_each_image_is_a_build_of_one_batch_and_the_failed_one_is_told(
    builds: CodeBuild, door: Door, clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    builds.broken, builds.waits = {"g1-b0"}, {"g2-b0"}
    with pytest.raises(SlipwayError, match="1 images failed, 1 were not reached") as caught:
        run(clone)
    assert re.search(r"g1-b0: FAILED: arn:aws:codebuild:\S+/i1_g1_b0", str(caught.value))
    told = capsys.readouterr()
    assert f"slipway-fanout:0: {QUEUE_FULL}" in told.err
    rows = {row["name"]: row for row in json.loads(told.out)}
    assert rows["g0-b0"]["uri"].endswith("build/i0_g0_b0")
    tag = rows["g0-b0"]["build_id"][:12]  # the one image whose build was run
    assert [put.status for put in door.faults.requests("PUT", f"/manifests/.*{tag}$")] == [201]
    assert builds.calls[:3] == ["BatchGetProjects", "CreateProject", "StartBuildBatch"]
    assert {*builds.calls[3:]} == {"BatchGetBuildBatches"}
    (project,) = builds.projects.values()
    assert project["environment"]["privilegedMode"] is False

    # Again: the project is brought up to date, and the same checkout is the same object.
    before = project["source"]["location"]
    builds.broken, builds.waits = set(), {"g0-b0", "g1-b0", "g2-b0"}
    run(clone, detach=True)
    (project,) = builds.projects.values()
    assert (builds.calls.count("UpdateProject"), project["source"]["location"]) == (1, before)


def test_a_batch_is_stopped_once(builds: CodeBuild, monkeypatch: pytest.MonkeyPatch) -> None:
    builds.batches["slipway-fanout:9"] = {"id": "slipway-fanout:9", "complete": False}
    stop_batch("slipway-fanout:9", REGION)
    with pytest.raises(UsageError, match="has ended already: STOPPED"):
        stop_batch("slipway-fanout:9", REGION)
    assert builds.calls.count("StopBuildBatch") == 1
    with pytest.raises(UsageError, match="there is no batch nobody in"):
        stop_batch("nobody", REGION)


def test_without_the_bucket_nothing_is_asked_of_codebuild(builds: CodeBuild, clone: Clone) -> None:
    empty(boto3.client("s3"))
    with pytest.raises(SlipwayError, match=f"s3://{BUCKET}"):
        run(clone)
    assert builds.calls == []
