"""Registries for system tests: a plain one, an ECR, a public one.

Test modules name this file in `pytest_plugins`; helpers to import are in registry_images.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from slipway.core import anonymous
from slipway.registry import RegistryClient
from tests.support.registry.ecr_front_door import REGION, Door, aws_api, ecr, public_registry
from tests.support.registry.open_registry import open_registry


@pytest.fixture(scope="session")
def data_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host of a Distribution that keeps the data of all tests of this session."""
    with open_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="session")
def aws() -> Iterator[str]:
    """URL of the AWS API."""
    with aws_api() as url:
        yield url


@pytest.fixture
def door(data_registry: str, aws: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """An ECR with no repositories, to which the AWS SDK's environment points."""
    with ecr(data_registry, aws) as opened:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_REGION", REGION)
        monkeypatch.setenv("AWS_ENDPOINT_URL", opened.api)
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", opened.api)
        yield opened


@pytest.fixture
def public(data_registry: str) -> Iterator[Door]:
    """A registry with Bearer tokens, in front of the same data."""
    with public_registry(data_registry) as opened:
        yield opened


@pytest.fixture
def plain(data_registry: str) -> Iterator[RegistryClient]:
    """A client of the data itself, past all doors."""
    with RegistryClient(data_registry, anonymous) as client:
        yield client
