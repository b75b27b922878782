"""Image URIs and login hosts: the published account tables, partition by partition."""

from __future__ import annotations

from pathlib import Path

import botocore.session
import pytest

from slipway.core import UsageError
from slipway.matrix import (
    Matrix,
    Registry,
    ecr_host,
    image_uri,
    is_public,
    load_matrix,
    region_suffixes,
)

ROOT = Path(__file__).parents[3]

# aws/deep-learning-containers:docs/reference/region_availability.md and
# aws/sagemaker-python-sdk:src/sagemaker/image_uri_config/{pytorch,djl-lmi}.json, by hand.
DLC = {
    "us-east-1": "763104351884.dkr.ecr.us-east-1.amazonaws.com",
    "us-east-2": "763104351884.dkr.ecr.us-east-2.amazonaws.com",
    "us-west-1": "763104351884.dkr.ecr.us-west-1.amazonaws.com",
    "us-west-2": "763104351884.dkr.ecr.us-west-2.amazonaws.com",
    "ca-central-1": "763104351884.dkr.ecr.ca-central-1.amazonaws.com",
    "sa-east-1": "763104351884.dkr.ecr.sa-east-1.amazonaws.com",
    "eu-central-1": "763104351884.dkr.ecr.eu-central-1.amazonaws.com",
    "eu-north-1": "763104351884.dkr.ecr.eu-north-1.amazonaws.com",
    "eu-west-1": "763104351884.dkr.ecr.eu-west-1.amazonaws.com",
    "eu-west-2": "763104351884.dkr.ecr.eu-west-2.amazonaws.com",
    "eu-west-3": "763104351884.dkr.ecr.eu-west-3.amazonaws.com",
    "ap-south-1": "763104351884.dkr.ecr.ap-south-1.amazonaws.com",
    "ap-northeast-1": "763104351884.dkr.ecr.ap-northeast-1.amazonaws.com",
    "ap-northeast-2": "763104351884.dkr.ecr.ap-northeast-2.amazonaws.com",
    "ap-southeast-1": "763104351884.dkr.ecr.ap-southeast-1.amazonaws.com",
    "ap-southeast-2": "763104351884.dkr.ecr.ap-southeast-2.amazonaws.com",
    "af-south-1": "626614931356.dkr.ecr.af-south-1.amazonaws.com",
    "ap-east-1": "871362719292.dkr.ecr.ap-east-1.amazonaws.com",
    "ap-east-2": "975050140332.dkr.ecr.ap-east-2.amazonaws.com",
    "ap-northeast-3": "364406365360.dkr.ecr.ap-northeast-3.amazonaws.com",
    "ap-south-2": "772153158452.dkr.ecr.ap-south-2.amazonaws.com",
    "ap-southeast-3": "907027046896.dkr.ecr.ap-southeast-3.amazonaws.com",
    "ap-southeast-4": "457447274322.dkr.ecr.ap-southeast-4.amazonaws.com",
    "ap-southeast-5": "550225433462.dkr.ecr.ap-southeast-5.amazonaws.com",
    "ap-southeast-6": "633930458069.dkr.ecr.ap-southeast-6.amazonaws.com",
    "ap-southeast-7": "590183813437.dkr.ecr.ap-southeast-7.amazonaws.com",
    "ca-west-1": "204538143572.dkr.ecr.ca-west-1.amazonaws.com",
    "eu-central-2": "380420809688.dkr.ecr.eu-central-2.amazonaws.com",
    "eu-south-1": "692866216735.dkr.ecr.eu-south-1.amazonaws.com",
    "eu-south-2": "503227376785.dkr.ecr.eu-south-2.amazonaws.com",
    "il-central-1": "780543022126.dkr.ecr.il-central-1.amazonaws.com",
    "me-central-1": "914824155844.dkr.ecr.me-central-1.amazonaws.com",
    "me-west-1": "124382933778.dkr.ecr.me-west-1.amazonaws.com",
    "me-south-1": "217643126080.dkr.ecr.me-south-1.amazonaws.com",
    "mx-central-1": "637423239942.dkr.ecr.mx-central-1.amazonaws.com",
    "cn-north-1": "727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn",
    "cn-northwest-1": "727897471807.dkr.ecr.cn-northwest-1.amazonaws.com.cn",
    "us-gov-east-1": "446045086412.dkr.ecr.us-gov-east-1.amazonaws.com",
    "us-gov-west-1": "442386744353.dkr.ecr.us-gov-west-1.amazonaws.com",
    "us-iso-east-1": "886529160074.dkr.ecr.us-iso-east-1.c2s.ic.gov",
    "us-isob-east-1": "094389454867.dkr.ecr.us-isob-east-1.sc2s.sgov.gov",
    "us-isof-east-1": "303241398832.dkr.ecr.us-isof-east-1.csp.hci.ic.gov",
    "us-isof-south-1": "454834333376.dkr.ecr.us-isof-south-1.csp.hci.ic.gov",
    "eu-isoe-west-1": "371248457586.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk",
    "eusc-de-east-1": "204133271717.dkr.ecr.eusc-de-east-1.amazonaws.eu",
}
# aws/sagemaker-python-sdk:src/sagemaker/image_uri_config/pytorch-smp.json
SMP = [
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
]
DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return load_matrix(ROOT / "versions.yaml")


@pytest.fixture(scope="module")
def dlc(matrix: Matrix) -> Registry:
    return matrix.registries["dlc"]


@pytest.fixture(scope="module")
def smp(matrix: Matrix) -> Registry:
    return matrix.registries["smp"]


@pytest.mark.parametrize(("region", "host"), DLC.items())
def test_dlc_uri_and_login_host_in_every_region(dlc: Registry, region: str, host: str) -> None:
    uri = image_uri(dlc, region, "pytorch", "2.13.0-cu133-amzn2023")
    assert uri.reference == f"{host}/pytorch:2.13.0-cu133-amzn2023"
    assert (uri.host, uri.login_host) == (host, host)


@pytest.mark.parametrize("region", SMP)
def test_smp_uri_and_login_host_in_every_region(smp: Registry, region: str) -> None:
    host = f"658645717510.dkr.ecr.{region}.amazonaws.com"
    uri = image_uri(smp, region, "smdistributed-modelparallel", "2.5.1-gpu-py311-cu124")
    assert uri.reference == f"{host}/smdistributed-modelparallel:2.5.1-gpu-py311-cu124"
    assert (uri.host, uri.login_host) == (host, host)


def test_the_matrix_names_no_other_region_than_the_published_ones(
    dlc: Registry, smp: Registry
) -> None:
    assert set(dlc.accounts) == set(DLC)
    assert set(smp.accounts) == set(SMP)


def test_regions_and_suffixes_are_those_of_botocores_own_api() -> None:
    session = botocore.session.Session()
    expected = {
        "aws": "amazonaws.com",
        "aws-us-gov": "amazonaws.com",
        "aws-cn": "amazonaws.com.cn",
        "aws-eusc": "amazonaws.eu",
        "aws-iso": "c2s.ic.gov",
        "aws-iso-b": "sc2s.sgov.gov",
        "aws-iso-e": "cloud.adc-e.uk",
        "aws-iso-f": "csp.hci.ic.gov",
    }
    for region, suffix in region_suffixes().items():
        assert suffix == expected[session.get_partition_for_region(region)]
    for partition in session.get_available_partitions():
        for region in session.get_available_regions("ecr", partition):
            assert region in region_suffixes()


def test_pseudo_regions_are_not_regions() -> None:
    assert "aws-global" not in region_suffixes()


@pytest.mark.parametrize("repository", ["pytorch", "pytorch-training"])
def test_without_a_region_the_public_mirror_is_used_and_needs_no_login(
    dlc: Registry, repository: str
) -> None:
    uri = image_uri(dlc, None, repository, "tag")
    assert uri.reference == f"public.ecr.aws/deep-learning-containers/{repository}:tag"
    assert (uri.host, uri.login_host) == ("public.ecr.aws", None)


def test_a_digest_pins_the_reference_and_keeps_the_tag_readable(dlc: Registry) -> None:
    assert image_uri(dlc, None, "pytorch", "2.13", DIGEST).reference == (
        f"public.ecr.aws/deep-learning-containers/pytorch:2.13@{DIGEST}"
    )


@pytest.mark.parametrize("repository", ["huggingface-pytorch-training", "djl-inference"])
def test_a_repository_that_the_mirror_lacks_asks_for_a_region(
    dlc: Registry, repository: str
) -> None:
    assert not is_public(dlc, repository)
    with pytest.raises(UsageError) as caught:
        image_uri(dlc, None, repository, "tag")
    assert repository in caught.value.what
    assert "pytorch, pytorch-training" in caught.value.what
    assert "us-west-2" in (caught.value.cure or "")


def test_a_registry_without_a_mirror_asks_for_a_region(smp: Registry) -> None:
    with pytest.raises(UsageError, match="on no public mirror") as caught:
        image_uri(smp, None, "smdistributed-modelparallel", "tag")
    assert "sa-east-1" in (caught.value.cure or "")


def test_a_region_without_the_registry_names_every_region_that_has_it(smp: Registry) -> None:
    with pytest.raises(UsageError, match="'smp' does not exist in cn-north-1") as caught:
        image_uri(smp, "cn-north-1", "smdistributed-modelparallel", "tag")
    assert all(region in (caught.value.cure or "") for region in SMP)


def test_a_mistyped_region_is_told_from_a_region_without_the_registry(smp: Registry) -> None:
    with pytest.raises(UsageError, match=r"no region 'us-east1' \(did you mean us-east-1"):
        image_uri(smp, "us-east1", "smdistributed-modelparallel", "tag")


def test_accounts_are_text_and_keep_their_leading_zero() -> None:
    host = ecr_host("016839105697", "eu-west-2")
    assert host == "016839105697.dkr.ecr.eu-west-2.amazonaws.com"


@pytest.mark.parametrize("account", ["16839105697", "", "0168-3910-569", "٠١٢٣٤٥٦٧٨٩٠١"])
def test_what_is_not_twelve_digits_is_no_account(account: str) -> None:
    with pytest.raises(UsageError, match="twelve digits"):
        ecr_host(account, "us-east-1")


def test_an_unknown_region_is_refused_with_a_near_one() -> None:
    with pytest.raises(UsageError, match="eu-west-1"):
        ecr_host("763104351884", "eu-wset-1")
