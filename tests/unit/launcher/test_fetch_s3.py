"""A .sqsh from S3: signed as botocore signs, and read in ranges of the pieces that are missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from launcher.causes import LaunchUsageError
from launcher.fetch.fetch_run import FetchRequest, fetch_sqsh
from launcher.fetch.named_origin import open_origin
from launcher.fetch.s3_origin import AwsKeys, KeyChain, object_url, sign_request
from launcher.fetch.sqsh_sidecar import FetchError
from tests.support.launcher.sqsh_files import sidecar_text, write_sqsh

NOW = datetime(2026, 11, 28, 10, 20, 30, tzinfo=timezone.utc)
KEYS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\0\n\r"), min_size=1
)


@settings(max_examples=50)
@given(
    key=KEYS,
    token=st.sampled_from(["", "a-token"]),
    region=st.sampled_from(["us-east-1", "cn-north-1"]),
)
def test_requests_are_signed_as_botocore_signs_them(key: str, token: str, region: str) -> None:
    keys = AwsKeys("AKIDEXAMPLE", "a/secret+", token)
    headers = {"Range": "bytes=5-9"}
    url = object_url("", region, "a-bucket", key.replace("/", "_") + ".sqsh")
    signed = sign_request(url, headers, region, keys, NOW)
    request = AWSRequest("GET", url, headers=dict(headers))
    with patch("botocore.auth.get_current_datetime", lambda: NOW.replace(tzinfo=None)):
        S3SigV4Auth(Credentials(keys.key, keys.secret, token or None), "s3", region).add_auth(
            request
        )
    assert signed["Authorization"] == request.headers["Authorization"]


@pytest.mark.parametrize(
    ("endpoint", "region", "bucket", "url"),
    [
        ("", "us-west-2", "b", "https://b.s3.us-west-2.amazonaws.com/k/x%20y.sqsh"),
        ("", "cn-north-1", "b", "https://b.s3.cn-north-1.amazonaws.com.cn/k/x%20y.sqsh"),
        ("", "us-west-2", "a.b", "https://s3.us-west-2.amazonaws.com/a.b/k/x%20y.sqsh"),
        ("http://h:1/", "us-west-2", "b", "http://h:1/b/k/x%20y.sqsh"),
    ],
)
def test_an_object_has_its_url(endpoint: str, region: str, bucket: str, url: str) -> None:
    assert object_url(endpoint, region, bucket, "k/x y.sqsh") == url


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def environment(s3: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
    }


def test_only_missing_ranges_come_from_a_bucket(s3: str, tmp_path: Path) -> None:
    client: Any = boto3.client(
        "s3", endpoint_url=s3, region_name="us-east-1",
        aws_access_key_id="testing", aws_secret_access_key="testing",
    )  # fmt: skip
    client.create_bucket(Bucket="images")
    pieces = [os.urandom(30_000) for _ in range(6)]
    content = b"".join(pieces)
    client.put_object(Bucket="images", Key="train/x.sqsh", Body=content)
    client.put_object(Bucket="images", Key="train/x.sqsh.json", Body=sidecar_text(pieces))
    write_sqsh(tmp_path / "older.sqsh", pieces[2:4])
    request = FetchRequest("s3://images/train/x.sqsh", tmp_path)
    result = fetch_sqsh(request, environment(s3))
    assert result.path.read_bytes() == content
    assert (result.from_origin, result.from_older) == (120_000, 60_000)
    for missing, said in (("y.sqsh", r"y\.sqsh\.json is not there"),):
        with pytest.raises(FetchError, match=said):
            fetch_sqsh(FetchRequest(f"s3://images/{missing}", tmp_path), environment(s3))


@pytest.mark.parametrize(
    "uri", ["s3://b", "s3://b/x", "s3:///x.sqsh", "s3://B/x.sqsh", "s3://b/a\n.sqsh"]
)
def test_what_is_no_object_is_a_usage_error(uri: str) -> None:
    with pytest.raises(LaunchUsageError):
        open_origin(uri, {})


FILE = "[default]\naws_access_key_id = a\naws_secret_access_key = b\n[other]\nx = y\n"


@pytest.mark.parametrize(
    ("env", "keys"),
    [
        ({}, AwsKeys("a", "b")),
        ({"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}, AwsKeys("k", "s")),
        ({"AWS_PROFILE": "other"}, None),
        ({"AWS_PROFILE": "none"}, None),
    ],
)
def test_credentials_are_looked_for_in_the_usual_places(
    env: dict[str, str], keys: AwsKeys | None, tmp_path: Path
) -> None:
    path = tmp_path / "credentials"
    path.write_text(FILE)
    given = {"AWS_SHARED_CREDENTIALS_FILE": str(path), "AWS_EC2_METADATA_DISABLED": "true", **env}
    assert KeyChain(given).find() == keys
