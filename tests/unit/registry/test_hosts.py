from __future__ import annotations

import pytest

from slipway.matrix import ecr_host, region_suffixes
from slipway.registry.hosts import (
    EcrHost,
    api_host,
    api_repository,
    is_loopback,
    parse_ecr_host,
    partition_of,
)

ACCOUNT = "123456789012"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (
            "763104351884.dkr.ecr.us-west-2.amazonaws.com",
            EcrHost("763104351884", "us-west-2", "aws"),
        ),
        (
            "727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn",
            EcrHost("727897471807", "cn-north-1", "aws-cn"),
        ),
        (
            "442386744353.dkr.ecr.us-gov-west-1.amazonaws.com",
            EcrHost("442386744353", "us-gov-west-1", "aws-us-gov"),
        ),
        (
            "442386744353.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
            EcrHost("442386744353", "us-gov-west-1", "aws-us-gov", fips=True),
        ),
        (
            f"{ACCOUNT}.dkr.ecr.us-iso-east-1.c2s.ic.gov",
            EcrHost(ACCOUNT, "us-iso-east-1", "aws-iso"),
        ),
        (
            f"{ACCOUNT}.dkr.ecr.us-isob-east-1.sc2s.sgov.gov",
            EcrHost(ACCOUNT, "us-isob-east-1", "aws-iso-b"),
        ),
        (
            f"{ACCOUNT}.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk",
            EcrHost(ACCOUNT, "eu-isoe-west-1", "aws-iso-e"),
        ),
        (
            f"{ACCOUNT}.dkr.ecr.us-isof-south-1.csp.hci.ic.gov",
            EcrHost(ACCOUNT, "us-isof-south-1", "aws-iso-f"),
        ),
        (
            f"{ACCOUNT}.dkr.ecr.eusc-de-east-1.amazonaws.eu",
            EcrHost(ACCOUNT, "eusc-de-east-1", "aws-eusc"),
        ),
        (
            f"{ACCOUNT}.dkr-ecr.eu-west-1.on.aws",
            EcrHost(ACCOUNT, "eu-west-1", "aws", dual_stack=True),
        ),
        (
            f"{ACCOUNT}.dkr-ecr-fips.us-east-1.on.aws",
            EcrHost(ACCOUNT, "us-east-1", "aws", fips=True, dual_stack=True),
        ),
    ],
)
def test_an_ecr_host_of_every_partition_tells_account_region_and_spelling(
    host: str, expected: EcrHost
) -> None:
    assert parse_ecr_host(host) == expected


def test_every_host_that_the_matrix_can_name_is_known_again() -> None:
    assert len(region_suffixes()) > 30
    for region in region_suffixes():
        found = parse_ecr_host(ecr_host(ACCOUNT, region))
        assert found is not None
        assert (found.account, found.region) == (ACCOUNT, region)


@pytest.mark.parametrize(
    "host",
    [
        "public.ecr.aws",
        "docker.io",
        "127.0.0.1:5055",
        "12345.dkr.ecr.us-east-1.amazonaws.com",
        f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com.evil.example",
        f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com.cn",  # another partition's suffix
        f"{ACCOUNT}.dkr.ecr.cn-north-1.amazonaws.com",
        f"{ACCOUNT}.dkr.ecr.us-moon-1.amazonaws.example",
        f"{ACCOUNT}.dkr-ecr.us-east-1.amazonaws.com",
        f"evil.{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com",
    ],
)
def test_a_token_is_never_sent_to_a_host_that_only_looks_like_ecr(host: str) -> None:
    assert parse_ecr_host(host) is None


def test_a_region_newer_than_botocore_is_found_by_its_pattern() -> None:
    assert "eu-moon-7" not in region_suffixes()
    assert partition_of("eu-moon-7") == ("aws", "amazonaws.com")
    assert partition_of("nowhere") is None


@pytest.mark.parametrize(
    "host", ["127.0.0.1:5000", "127.1.2.3", "localhost", "localhost:80", "[::1]:5000", "[::1]"]
)
def test_loopback_is_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["128.0.0.1:5000", "localhost.example", "127.0.0.1.example:80", "10.0.0.1", "[::2]:1"]
)
def test_other_hosts_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_docker_hub_serves_its_api_elsewhere_and_official_images_under_library() -> None:
    assert api_host("docker.io") == "registry-1.docker.io"
    assert api_repository("docker.io", "debian") == "library/debian"
    assert api_repository("docker.io", "team/image") == "team/image"
    assert api_repository("public.ecr.aws", "debian") == "debian"
    assert api_host("public.ecr.aws") == "public.ecr.aws"
