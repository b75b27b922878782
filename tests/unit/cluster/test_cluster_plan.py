"""What a plan says of money: by the file's prices, in AWS's own units."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from slipway.cluster.aws_account import AwsAccount
from slipway.cluster.documents.cluster_file import read_cluster_file
from slipway.cluster.hyperpod.cluster_part import ClusterSite
from slipway.cluster.hyperpod.cluster_plan import ClusterPlan
from slipway.core import UsageError
from tests.support.cluster_samples import LARGE_CLUSTER, SMALL_CLUSTER

PRICES = "prices: {ml.p5.48xlarge: 50.5, storage: 0.2, nat: 0.05, nat_gb: 0.04, address: 0.005}\n"
FREE = "nothing is paid for the gateway to S3; the bucket has a few kilobytes"


def costs(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "cluster.yaml").write_text(text)
    cluster = read_cluster_file(tmp_path / "cluster.yaml")
    nobody = cast("AwsAccount", None)  # is not asked
    return list(ClusterPlan(ClusterSite(cluster, nobody), [], {}).costs())


def test_everything_that_is_made_and_paid_for_is_in_the_sum(tmp_path: Path) -> None:
    """Nodes 4 x 50.5; 1,200 GiB x 0.2 = 240 a month, 730 hours: 0.33; NAT 0.05 + 0.005 an hour."""
    assert costs(tmp_path, SMALL_CLUSTER + PRICES) == [
        "4 x ml.p5.48xlarge: $202.0 an hour",
        "nodes together: $202.0 an hour, $4848.0 a day",
        "NAT gateway: $0.05 an hour; also while no node runs",
        "NAT gateway: $0.04 for each GB that passes it",
        "public address of the NAT gateway: $0.005 an hour; also while no node runs",
        "FSx for Lustre, 1200 GiB: $240.0 a month, $0.33 an hour; also while no node runs",
        "all of these: $202.38 an hour, $4857.21 a day",
        "no price in the file: ml.c5.xlarge",
        FREE,
    ]


def test_without_prices_all_that_is_paid_for_is_named(tmp_path: Path) -> None:
    named = "ml.c5.xlarge, ml.p5.48xlarge, nat, nat_gb, address, storage"
    assert costs(tmp_path, SMALL_CLUSTER) == [f"no price in the file: {named}", FREE]


def test_what_the_file_only_names_is_not_paid_for_here(tmp_path: Path) -> None:
    *_, unknown, _ = costs(tmp_path, LARGE_CLUSTER)
    assert unknown == "no price in the file: ml.m5.4xlarge, ml.m5.2xlarge"
    text = LARGE_CLUSTER.replace("ml.g5.8xlarge: 3", "storage: 1")
    with pytest.raises(UsageError, match="storage has a price, and it is not made"):
        costs(tmp_path, text)


@pytest.mark.parametrize(
    ("prices", "said"),
    [
        ("prices: {storge: 1}", "no group is of storge (did you mean storage?)"),
        ("roles: {job: x}", "roles.job is no entry of a cluster's file (did you mean jobs?)"),
        ("roles: {jobs: me}", "roles.jobs: 'me' is not of the form it has"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, prices: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        costs(tmp_path, f"{SMALL_CLUSTER}{prices}\n")
    assert said in str(caught.value)
