"""A .sqsh from S3: signed as botocore signs, and read in ranges of the pieces that are missing."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler
from importlib.resources import files
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
from launcher.fetch.s3_origin import AwsKeys, KeyChain, S3Origin, object_url, sign_request
from launcher.fetch.sqsh_sidecar import FetchError
from launcher.platforms import s3_host
from tests.support.launcher.sqsh_files import sidecar_text, write_sqsh
from tests.support.loopback_files import serve_requests

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


def test_each_region_of_aws_has_its_host() -> None:
    """As botocore has them; the launcher in an image has no botocore to ask."""
    raw = (files("botocore") / "data" / "partitions.json").read_text("utf-8")
    hosts = {
        region: f"s3.{region}.{partition['outputs']['dnsSuffix']}"
        for partition in json.loads(raw)["partitions"]
        for region in partition["regions"]
        if not region.endswith("-global")
    }
    assert len(hosts) > 40
    assert {region: s3_host(region) for region in hosts} == hosts


@contextlib.contextmanager
def served(answer: Callable[[str, Mapping[str, str]], tuple[int, str, bytes]]) -> Iterator[str]:
    """`answer` gives a status, a region for the header of it, and the body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, region, body = answer(self.path, dict(self.headers))
            self.send_response(status)
            if region:
                self.send_header("x-amz-bucket-region", region)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    with serve_requests(Handler) as host:
        yield f"http://{host}"


@pytest.mark.parametrize(
    ("status", "header", "body", "found"),
    [
        (301, "eu-west-3", b"<Error><Code>PermanentRedirect</Code></Error>", True),
        (
            400,
            "",
            b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'us-east-1' is"
            b" wrong; expecting 'eu-west-3'</Message><Region>eu-west-3</Region></Error>",
            True,
        ),
        (400, "", b"<Error><Code>InvalidRequest</Code></Error>", False),
        (403, "", b"<Region>eu-west-3</Region>", False),
        (400, "", b"<Region>../x</Region>", False),
    ],
)
def test_a_bucket_elsewhere_is_asked_in_its_own_region(
    status: int, header: str, body: bytes, found: bool
) -> None:
    pieces = [b"a" * 1000]

    def answer(path: str, headers: Mapping[str, str]) -> tuple[int, str, bytes]:
        if "/eu-west-3/s3/" not in headers["Authorization"]:
            return status, header, body
        return 200, "", sidecar_text(pieces)

    with served(answer) as url:
        origin = S3Origin("s3://bucket/x.sqsh", environment(url))
        if found:
            assert [len(piece.starts) for piece in origin.describe().sidecar.pieces] == [1]
        else:
            with pytest.raises(FetchError, match=str(status)):
                origin.describe()


ROLE = b'{"AccessKeyId": "a", "SecretAccessKey": "b", "Token": "c"}'


@pytest.mark.parametrize("given", ["AWS_CONTAINER_AUTHORIZATION_TOKEN", "file"])
def test_the_agent_of_a_pod_gives_its_role(given: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-token\n")

    def answer(path: str, headers: Mapping[str, str]) -> tuple[int, str, bytes]:
        return (200, "", ROLE) if headers.get("Authorization") == "a-token" else (401, "", b"")

    login = {given: "a-token"}
    if given == "file":
        login = {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token")}
    with served(answer) as url:
        env = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}/v1/credentials", "HOME": "/none"}
        assert KeyChain({**env, **login}).find() == AwsKeys("a", "b", "c")


@pytest.mark.parametrize("uri", ["http://evil.example/x", "http://[bad", "file:///etc/passwd"])
def test_credentials_are_asked_of_this_machine_alone(uri: str) -> None:
    env = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": uri, "AWS_EC2_METADATA_DISABLED": "true"}
    assert KeyChain({**env, "HOME": "/none"}).find() is None


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
