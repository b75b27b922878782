"""A .sqsh in S3: ranges of the object, signed as AWS asks (Signature Version 4), no SDK needed.

Credentials are looked for where the SDKs look: the environment, ~/.aws/credentials, the container's
endpoint, and the instance's role. Without any, the request is not signed (public buckets).
"""

from __future__ import annotations

import configparser
import hashlib
import hmac
import json
import re
import threading
import time
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from launcher.causes import LaunchUsageError
from launcher.fetch.http_answers import HttpAnswer, get_url
from launcher.fetch.origin import OriginFile
from launcher.fetch.sqsh_sidecar import (
    LARGEST_SIDECAR,
    FetchError,
    FilePiece,
    check_name,
    parse_sidecar,
)
from launcher.platforms import s3_host

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
DEFAULT_REGION = "us-east-1"
_URI = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<key>[^\n\r\0]+)")
_INSTANCE = "http://169.254.169.254/latest"
_CONTAINER = "http://169.254.170.2"
#: Where else roles' credentials are asked for: this machine, ECS, and EKS Pod Identity.
_AGENTS = ("localhost", "127.0.0.1", "::1", "169.254.170.2", "169.254.170.23", "fd00:ec2::23")
_INSTANCE_SECONDS = 2.0
_ANSWER_BYTES = 1 << 16
#: Roles' credentials last for an hour or more, and are renewed well before their end.
_KEEP_SECONDS = 600.0


@dataclass(frozen=True)
class AwsKeys:
    """What requests are signed with; `token` "" for keys that are a user's own."""

    key: str
    secret: str
    token: str = ""


class S3Origin:
    """One object, with its sidecar beside it. Safe to share by threads."""

    def __init__(self, uri: str, env: Mapping[str, str]) -> None:
        match = _URI.fullmatch(uri)
        name = uri.rpartition("/")[2]
        if match is None or not name.endswith(".sqsh"):
            raise LaunchUsageError(f"{uri!r} names no .sqsh: s3://BUCKET/PREFIX/NAME.sqsh")
        self.where = uri
        self._name = name
        self._bucket, self._key = match["bucket"], match["key"]
        self._env = env
        self._endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL", "")
        self._region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or ""
        self._keys = KeyChain(env)
        self._lock = threading.Lock()

    def describe(self) -> OriginFile:
        """As Origin says."""
        name = check_name(self._name, self.where)
        with closing(self._get(self._key + ".json", {})) as answer:
            self._expect(answer, 200, f"{self.where}.json")
            raw = answer.body(LARGEST_SIDECAR)
        return OriginFile(name, parse_sidecar(raw, f"{self.where}.json"))

    def read(self, piece: FilePiece, offset: int) -> Generator[bytes, None, None]:
        """As Origin says."""
        start = piece.starts[0]
        wanted = {"Range": f"bytes={start + offset}-{start + piece.size - 1}"}
        with closing(self._get(self._key, wanted)) as answer:
            self._expect(answer, 206, self.where)
            if not answer.headers.get("content-range", "").startswith(f"bytes {start + offset}-"):
                raise FetchError(f"{self.where} answers with another range than asked for")
            yield from answer.parts()

    def _get(self, key: str, headers: Mapping[str, str]) -> HttpAnswer:
        """The answer of the bucket's own region, which a bucket says where we guess wrong."""
        for _ in range(2):
            with self._lock:
                region = self._region or self._keys.region() or DEFAULT_REGION
            url = object_url(self._endpoint, region, self._bucket, key)
            signed = sign_request(
                url, headers, region, self._keys.find(), datetime.now(timezone.utc)
            )
            answer = get_url(url, signed)
            if answer.status < 300 or not (theirs := _stated_region(answer)) or theirs == region:
                return answer
            answer.close()
            with self._lock:
                self._region = theirs
        return answer

    def _expect(self, answer: HttpAnswer, status: int, what: str) -> None:
        if answer.status == status:
            return
        if answer.status in (401, 403):
            raise FetchError(
                f"{what}: S3 refuses ({answer.status}). This node's role, or the environment's"
                " credentials, need s3:GetObject; without s3:ListBucket a name that is not there is"
                " refused as well"
            )
        if answer.status == 404:
            raise FetchError(f"{what} is not there")
        raise FetchError(f"S3 answers with {answer.status} for {what}")


def _stated_region(answer: HttpAnswer) -> str:
    """The region that a refusal names: in a header, or, where a signature is for another region,
    in its body (AuthorizationHeaderMalformed; botocore: utils.S3RegionRedirectorv2)."""
    stated = answer.headers.get("x-amz-bucket-region", "")
    if not stated and answer.status == 400:
        found = re.search(rb"<Region>([^<]{1,64})</Region>", answer.body(_ANSWER_BYTES))
        stated = found[1].decode("ascii", "replace") if found else ""
    return stated if re.fullmatch(r"[a-z0-9-]+", stated) else ""


def object_url(endpoint: str, region: str, bucket: str, key: str) -> str:
    """Where an object is; buckets with dots, which no certificate has, stand in the path."""
    path = quote(key, safe="/-_.~")
    if endpoint:
        return f"{endpoint.rstrip('/')}/{bucket}/{path}"
    host = s3_host(region)
    return f"https://{host}/{bucket}/{path}" if "." in bucket else f"https://{bucket}.{host}/{path}"


def sign_request(
    url: str, headers: Mapping[str, str], region: str, keys: AwsKeys | None, now: datetime
) -> dict[str, str]:
    """The headers of a GET with its signature (AWS: "Create a signed AWS API request")."""
    if keys is None:
        return dict(headers)
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    parts = urlsplit(url)
    sent = {**headers, "X-Amz-Date": stamp, "X-Amz-Content-SHA256": EMPTY_SHA256}
    if keys.token:
        sent["X-Amz-Security-Token"] = keys.token
    lines = {name.lower(): " ".join(value.split()) for name, value in sent.items()}
    lines["host"] = parts.netloc
    names = ";".join(sorted(lines))
    canonical = "\n".join(
        [
            "GET",
            parts.path,
            parts.query,
            *(f"{name}:{lines[name]}" for name in sorted(lines)),
            "",
            names,
            EMPTY_SHA256,
        ]
    )
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{keys.secret}".encode()
    for part in (stamp[:8], region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    sent["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={keys.key}/{scope}, SignedHeaders={names},"
        f" Signature={signature}"
    )
    return sent


class KeyChain:
    """Credentials and region of this process, looked for once in a while."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._lock = threading.Lock()
        self._kept: AwsKeys | None = None
        self._until = 0.0
        self._kept_region: str | None = None

    def find(self) -> AwsKeys | None:
        """The keys to sign with; None where there are none."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._kept = self._of_environment() or self._of_file() or self._of_role()
                self._until = time.monotonic() + _KEEP_SECONDS
            return self._kept

    def region(self) -> str:
        """The instance's own; "" where it is none."""
        with self._lock:
            if self._kept_region is None:
                self._kept_region = self._instance("meta-data/placement/region")
            return self._kept_region

    def _of_environment(self) -> AwsKeys | None:
        key, secret = self._env.get("AWS_ACCESS_KEY_ID"), self._env.get("AWS_SECRET_ACCESS_KEY")
        if not key or not secret:
            return None
        return AwsKeys(key, secret, self._env.get("AWS_SESSION_TOKEN", ""))

    def _of_file(self) -> AwsKeys | None:
        path = self._env.get("AWS_SHARED_CREDENTIALS_FILE") or (
            f"{self._env.get('HOME', '/nonexistent')}/.aws/credentials"
        )
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(Path(path).read_text(encoding="utf-8"))
            section = parser[self._env.get("AWS_PROFILE", "default")]
            return AwsKeys(
                section["aws_access_key_id"],
                section["aws_secret_access_key"],
                section.get("aws_session_token", ""),
            )
        except (OSError, ValueError, KeyError, configparser.Error):
            return None

    def _of_role(self) -> AwsKeys | None:
        try:
            data: Any = json.loads(self._role_document())
            return AwsKeys(
                str(data["AccessKeyId"]), str(data["SecretAccessKey"]), str(data["Token"])
            )
        except (ValueError, KeyError, TypeError):
            return None

    def _role_document(self) -> str:
        """What gives out roles' credentials here says; raises ValueError for a wrong address."""
        relative = self._env.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "")
        if relative.startswith("/"):
            return _ask(f"{_CONTAINER}{relative}")
        full = self._env.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", "")
        if urlsplit(full).hostname in _AGENTS:
            return _ask(full, headers=self._agent_login())
        role = self._instance("meta-data/iam/security-credentials/").split("\n")[0]
        return self._instance(f"meta-data/iam/security-credentials/{role}") if role else ""

    def _agent_login(self) -> dict[str, str]:
        """What EKS' agent asks for (AWS SDKs: "Container credential provider")."""
        token = self._env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
        if path := self._env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
            try:
                token = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, ValueError):
                return {}
        return {"Authorization": token} if token else {}

    def _instance(self, path: str) -> str:
        """An answer of the instance metadata service, version 2; "" where there is none."""
        if self._env.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
            return ""
        token = _ask(
            f"{_INSTANCE}/api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
        )
        headers = {"X-aws-ec2-metadata-token": token}
        return _ask(f"{_INSTANCE}/{path}", "GET", headers) if token else ""


def _ask(url: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> str:
    """A small answer of this node's own services, never through a proxy; "" where there is none."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, method=method, headers=dict(headers or {}))  # noqa: S310
    try:
        with opener.open(request, timeout=_INSTANCE_SECONDS) as answer:
            text: str = answer.read(_ANSWER_BYTES).decode("utf-8", "replace").strip()
            return text
    except (OSError, ValueError):
        return ""
