"""What nobody would write on purpose, and somebody does: one paragraph, and never a traceback."""

from __future__ import annotations

import io
import json
import os
from typing import Any

import boto3
import pytest
from botocore.response import StreamingBody
from hypothesis import given
from hypothesis import strategies as st

from slipway.cluster.aws_account import AwsAccount
from slipway.cluster.fanout.fanout_plan import PlannedImage
from slipway.cluster.fanout.image_results import result_of_ship
from slipway.cluster.serving.model_kind import parse_model_config
from slipway.core import SlipwayError
from tests.support.aws_control_plane import REGION
from tests.support.task_runs import Account, Here, Slurm

pytest_plugins = ["tests.support.task_run_fixtures"]

AT = ("--region", REGION)
ROLE = "arn:aws:iam::123456789012:role/Any"
IMAGE = "pytorch-2.13-hyperpod-ds0.19.8"
LMI = ("deploy.lmi", "s3://models/llama", *AT, "--role", ROLE, "--instance", "ml.g4dn.12xlarge")

#: What a program may print in Slurm's place, and end with 0: a wrapper's page, half an answer.
GARBAGE = (
    "echo '<html>'",
    "printf '\\377\\376'",
    "echo '{\"jobs\": '",
    "echo '[]'",
    "echo x | cat; echo y",
)


@pytest.mark.parametrize("text", GARBAGE)
def test_an_answer_that_is_none_of_slurms_is_no_empty_queue(
    here: Here, slurm: Slurm, text: str
) -> None:
    for name in ("scontrol", "squeue", "sacct"):
        slurm.program(name, text)
    for words in (("slurm.queue",), ("slurm.queue", "--json")):
        assert "squeue on this machine lists no jobs: it answers " in here.refused(*words)
    for task in ("slurm.status", "slurm.logs", "slurm.stop"):
        told = here.refused(task, "7")
        assert "it answers " in told
        assert "exit code 0" not in told


@pytest.mark.parametrize("text", ["true", "echo '{\"jobs\": []}'"])
def test_an_empty_queue_is_one(here: Here, slurm: Slurm, text: str) -> None:
    slurm.program("squeue", text)
    assert here.inv("slurm.queue")[0] == 0
    assert here.inv("slurm.queue", "--json")[0] == 0
    assert json.loads(here.out) == []


def test_a_submission_without_a_number_says_where_to_look(here: Here, slurm: Slurm) -> None:
    """The job may be there: its script stays."""
    slurm.program("sbatch", "echo hello")
    ended, told = here.inv(
        *("slurm.submit", IMAGE, "--nodes", "2", "--instance", "ml.g5.xlarge"),
        *("--sqsh", "/fsx/x.sqsh", "--", "train.py"),
    )
    assert ended == 1
    assert "sbatch on this machine told no number of a job: it answers " in told
    assert "`./inv slurm.queue` shows whether it took the job all the same" in told


NAMES = ("", "a b", "../x", "x" * 2000)


@pytest.mark.parametrize(
    "task",
    [
        *("sagemaker.status", "sagemaker.stop", "sagemaker.logs"),
        *("deploy.status", "deploy.invoke", "deploy.delete"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_cannot_be_is_not_asked_for(account: Account, task: str, name: str) -> None:
    """AWS would answer that there is none, and `deploy.delete` that nothing is left."""
    ended, told = account.here.inv(task, name, *AT)
    assert ended == 3
    assert f"{name!r} cannot be: " in told


@pytest.mark.parametrize(
    "text",
    ["", "[]", "7", "{", '{"format": 1, "images": [], "ship": [], "checkout": 5}', "[" * 9999],
)
def test_a_run_whose_plan_is_none(here: Here, text: str) -> None:
    (here.folder / "plan.json").write_text(text)
    for task in ("fanout.status", "fanout.worker"):
        ended, told = here.inv(task, ".")
        assert ended == 1
        assert "--dir" in told


@pytest.mark.parametrize("record", [None, [], 7, {"pushed": [], "exported": "x"}, {"pushed": {}}])
def test_a_ship_that_says_nothing_usable_has_failed(record: Any) -> None:
    """What a worker of a CI system leaves is not always what `inv ship --json` prints."""
    output = json.dumps([{"failure": None, "steps": [], "record": record}])
    made = result_of_ship(PlannedImage("a", "b", "c"), 0, output, "", worker="")
    assert made.failure == "exit code 1: it said nothing"


def test_a_batch_without_a_name(account: Account) -> None:
    assert "cannot be: " in account.here.inv("fanout.stop", "", *AT)[1]


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/slipway"])
def test_documents_that_cannot_be_written(account: Account, place: str) -> None:
    (account.here.folder / "file").touch()
    told = account.here.refused("cluster.documents", "train.yaml", "--output", place)
    assert f"cannot write {place}/" in told


CONFIGS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("model_type", "num_attention_heads", "num_heads", "num_key_value_heads"),
                    *("architectures", "text_config", "is_encoder_decoder", "auto_map"),
                ]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@given(CONFIGS.map(json.dumps) | st.text(max_size=40))
def test_any_config_of_a_model_is_read_or_refused(text: str) -> None:
    try:
        kind = parse_model_config(text, "config.json")
    except SlipwayError:
        return
    assert kind.model_type
    assert kind.parallel_degree(8) in (1, 2, 4, 8)


@pytest.mark.parametrize("text", ["", "[" * 100_000, "null", "{", '{"model_type": "x"}', "\ud800"])
def test_a_config_that_is_none_has_a_cure(account: Account, text: str) -> None:
    (account.here.folder / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    ended, told = account.here.inv(*LMI, "--config", "config.json", "--dry-run")
    assert ended in (1, 3)
    assert told.startswith("inv deploy.lmi: config.json: ")


@pytest.mark.parametrize("price", ["nan", "inf", "-1", "cheap", "1e", "7,09"])
def test_a_price_that_is_none(account: Account, price: str) -> None:
    told = account.here.inv("deploy.delete", "llama", *AT, "--price", price)
    assert told == (3, f"inv deploy.delete: --price {price!r}: dollars an hour, e.g. 7.09\n")


def test_an_endpoint_that_others_made_is_shown_and_removed(account: Account) -> None:
    """Without instances, and with two variants: neither is what `deploy.lmi` makes."""
    client = boto3.client("sagemaker", region_name=REGION)
    client.create_model(ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "x"})
    serverless = {"MemorySizeInMB": 2048, "MaxConcurrency": 1}
    variants: list[Any] = [
        {"VariantName": "a", "ModelName": "m", "ServerlessConfig": serverless},
        {"VariantName": "b", "ModelName": "m", "InstanceType": "ml.m5.large",
         "InitialInstanceCount": 1},
    ]  # fmt: skip
    client.create_endpoint_config(EndpointConfigName="theirs", ProductionVariants=variants)
    client.create_endpoint(EndpointName="theirs", EndpointConfigName="theirs")
    account.works(("deploy.status", "theirs", *AT, "--json"))
    assert [row["type"] for row in json.loads(account.here.out)["variants"]] == [
        *("serverless", "ml.m5.large")
    ]
    account.works(("deploy.delete", "theirs", *AT, "--yes", "--price", "2"))


def test_an_object_that_ends_half_way_is_a_paragraph(account: Account) -> None:
    """Whatever is read after the answer has come: botocore checks its length."""
    broken = {"Body": StreamingBody(io.BytesIO(b"half"), 8)}
    with pytest.raises(SlipwayError, match="s3:GetObject"):
        AwsAccount(REGION).read_body("s3", "GetObject", broken)


@pytest.mark.parametrize("file", ["", ".", "gone.yaml", "binary.yaml", "empty.yaml", "/dev/null"])
def test_a_file_of_a_cluster_that_is_none(account: Account, file: str) -> None:
    (account.here.folder / "binary.yaml").write_bytes(os.urandom(64) + b"\xff")
    (account.here.folder / "empty.yaml").touch()
    for task in ("cluster.documents", "cluster.up", "cluster.delete", "cluster.nodes"):
        told = account.here.refused(task, file, code=3)
        assert "docs/cluster.md has one to begin with" in told
