"""Whatever botocore, requests and urllib3 can raise leaves as one paragraph with its cause."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import boto3
import pytest
import requests
from botocore import exceptions as aws
from botocore.exceptions import ClientError

from slipway.core import Credentials, SlipwayError, UsageError, anonymous
from slipway.registry import NoCredentialsError, RegistryClient, RegistryError, RetryPolicy
from slipway.registry.distribution import http_boundary, transport
from slipway.registry.ecr import caller_account, find_aws_credentials
from slipway.registry.ecr.aws_boundary import aws_errors
from slipway.registry.errors import (
    SERVER_TROUBLE,
    ClockError,
    RegistryUnavailableError,
    unavailable_error,
)
from slipway.registry.hosts import check_host, is_loopback
from slipway.registry.logins import credentials_for
from tests.support.exceptions import class_name, every_class, instance

REGION = "eu-central-1"
QUICK = RetryPolicy(attempts=2, base=0.001, cap=0.002)
BOTO = every_class("botocore", "boto3", "s3transfer", "urllib3")
HTTP = every_class("requests", "urllib3")
MARK = "MARKEDsecretMARKEDsecret"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No settings but those of the test, and no session of another one."""
    for name in [*os.environ]:
        if name.startswith("AWS_") or name.lower().endswith("_proxy") or "CERT" in name:
            monkeypatch.delenv(name)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    return tmp_path


def paragraph(error: SlipwayError) -> str:
    text = str(error)
    assert "\n\n" not in text
    assert len(text) < 1200
    assert MARK not in text
    return text


@pytest.mark.parametrize("kind", BOTO, ids=class_name)
def test_every_exception_of_botocore_becomes_a_registry_error(kind: type[Exception]) -> None:
    with pytest.raises(RegistryError) as told, aws_errors("ecr:DescribeImages", "here"):
        raise instance(kind)
    assert told.value.where == "here"
    assert told.value.cure
    paragraph(told.value)


@pytest.mark.parametrize("kind", HTTP, ids=class_name)
def test_every_exception_of_requests_becomes_a_registry_error(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> requests.Response:
        raise instance(kind)

    monkeypatch.setattr(requests.Session, "request", refuse)
    with (
        RegistryClient("registry.example", anonymous, policy=QUICK) as client,
        pytest.raises(RegistryError) as told,
    ):
        client.manifest("a/b", "1")
    assert told.value.cure
    paragraph(told.value)


class Torn:
    """A response whose body raises when it is read."""

    def __init__(self, kind: type[Exception]) -> None:
        self.kind = kind

    def stream(self, *_: object, **__: object) -> object:
        raise instance(self.kind)

    def close(self) -> None:
        """As urllib3's."""

    release_conn = close


@pytest.mark.parametrize("kind", HTTP, ids=class_name)
@pytest.mark.parametrize("ask", ["manifest", "blob"])
def test_every_exception_in_a_body_becomes_a_registry_error(
    kind: type[Exception], ask: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(*_: object, **__: object) -> requests.Response:
        response = requests.Response()
        response.status_code, response.url = 200, "https://registry.example/v2/a/b"
        response.raw = Torn(kind)
        return response

    monkeypatch.setattr(requests.Session, "request", answer)
    with RegistryClient("registry.example", anonymous, policy=QUICK) as client:
        asked: Callable[[str, str], object] = client.manifest if ask == "manifest" else client.blob
        with pytest.raises(RegistryError) as told:
            asked("a/b", f"sha256:{'0' * 64}")
    paragraph(told.value)


# Each row: what is set, and how the error names the setting that is wrong and where it stands.
ENVIRONMENT = [
    ({"AWS_MAX_ATTEMPTS": "x"}, "AWS_MAX_ATTEMPTS"),
    ({"AWS_METADATA_SERVICE_TIMEOUT": "soon"}, "AWS_METADATA_SERVICE_TIMEOUT"),
    ({"AWS_METADATA_SERVICE_NUM_ATTEMPTS": "1.5"}, "AWS_METADATA_SERVICE_NUM_ATTEMPTS"),
    ({"AWS_ENDPOINT_URL": "nonsense"}, "AWS_ENDPOINT_URL"),
    ({"AWS_ENDPOINT_URL_STS": "http://[::1"}, "AWS_ENDPOINT_URL_STS"),
    ({"AWS_ENDPOINT_URL": "https://host:port"}, "AWS_ENDPOINT_URL"),
    ({"AWS_ENDPOINT_URL": "https://a b/"}, "AWS_ENDPOINT_URL"),
    ({"AWS_PROFILE": "nobody"}, "AWS_PROFILE"),
    ({"AWS_DEFAULTS_MODE": "x"}, "AWS_DEFAULTS_MODE"),
    ({"AWS_STS_REGIONAL_ENDPOINTS": "x"}, "AWS_STS_REGIONAL_ENDPOINTS"),
    ({"AWS_REQUEST_CHECKSUM_CALCULATION": "x"}, "AWS_REQUEST_CHECKSUM_CALCULATION"),
    ({"AWS_ACCOUNT_ID_ENDPOINT_MODE": "x"}, "AWS_ACCOUNT_ID_ENDPOINT_MODE"),
    ({"AWS_SESSION_TOKEN": f"{MARK}\n{MARK}"}, "AWS_SESSION_TOKEN"),
    ({"AWS_ACCESS_KEY_ID": "AKIA\nMARKED"}, "AWS_ACCESS_KEY_ID"),
]


@pytest.mark.parametrize(("settings", "name"), ENVIRONMENT)
def test_a_wrong_variable_is_named(
    settings: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": MARK,
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        **settings,
    }.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(RegistryError) as told:
        caller_account(REGION)
    assert f"{name} (from the environment)" in paragraph(told.value)
    assert told.value.cure == f"Correct or unset {name}."


ROLE = "role_arn = arn:aws:iam::123456789012:role/x"
LOGINS = [
    ("max_attempts = many", "max_attempts"),
    ("endpoint_url = nonsense", "endpoint_url"),
    ("services = mine\n[services mine]\nsts =\n  endpoint_url = nonsense", "endpoint_url of sts"),
    ("credential_process = /nonexistent/program", "credential_process"),
    (f"credential_process = /bin/echo {MARK}", "credential_process"),
    ("credential_process = /bin/echo [1]", "credential_process"),
    ('credential_process = "/bin/echo', "credential_process"),
    (f"credential_process = /bin/sh -c 'echo token={MARK} >&2; exit 3'", ""),
    (f"{ROLE}\nsource_profile = other", "source_profile"),
    (f"{ROLE}\nsource_profile = p", "source_profile"),
    (f"{ROLE}\nsource_profile = q\n[profile q]\n{ROLE}\nsource_profile = p", "source_profile"),
    (f"{ROLE}\nsource_profile = q\n[profile q]\n{ROLE}\nsource_profile = r", "source_profile"),
    ("sso_session = gone\nsso_account_id = 1\nsso_role_name = r", "sso_session"),
    (
        "role_arn = arn:aws:iam::123456789012:role/x\nweb_identity_token_file = /nonexistent/t",
        "web_identity_token_file",
    ),
    (f"aws_access_key_id = a\naws_secret_access_key = {MARK}\n  {MARK}", "aws_secret_access_key"),
]


def test_a_path_of_a_containers_logins_that_is_none_is_named(
    clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "nonsense")
    with pytest.raises(RegistryError) as told:
        caller_account(REGION)
    assert "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI (from the env" in paragraph(told.value)


@pytest.mark.parametrize(("text", "name"), LOGINS)
def test_a_wrong_setting_of_a_file_is_named_with_file_and_section(
    text: str, name: str, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clean / "config").write_text(f"[profile p]\n{text}\n")
    monkeypatch.setenv("AWS_PROFILE", "p")
    if "access_key" in text:
        monkeypatch.setattr(
            "botocore.httpsession.URLLib3Session.send",
            lambda *_: (_ for _ in ()).throw(
                aws.HTTPClientError(error=f"Invalid header value {MARK!r}")
            ),
        )
    elif "endpoint" in text or "max_attempts" in text:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", MARK)
    with pytest.raises(RegistryError) as told:
        caller_account(REGION)
    shown = paragraph(told.value)
    assert not name or f"{name} (from {clean / 'config'}, section " in shown


@pytest.mark.parametrize(
    "content", [b"[profile p\nx", b"\xff\xfe[\x00", f"aws_secret_access_key={MARK}".encode()]
)
@pytest.mark.parametrize("variable", ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"])
def test_a_file_that_cannot_be_read_is_named_without_its_text(
    content: bytes, variable: str, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clean / "broken").write_bytes(content)
    monkeypatch.setenv(variable, str(clean / "broken"))
    with pytest.raises(RegistryError) as told:
        find_aws_credentials()
    assert f"{variable} (from the environment)" in paragraph(told.value)
    assert str(clean / "broken") in told.value.what


def test_a_code_is_not_read_where_nobody_can_type_it(
    clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clean / "config").write_text(
        "[profile p]\nrole_arn=arn:aws:iam::123456789012:role/x\nsource_profile=s\n"
        f"mfa_serial=arn:aws:iam::123456789012:mfa/u\n[profile s]\naws_access_key_id=A\n"
        f"aws_secret_access_key={MARK}\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "p")
    with pytest.raises(NoCredentialsError, match=r"profile p wants a code .* no terminal"):
        caller_account(REGION)


WAYS = [
    ({"AWS_CA_BUNDLE": "/nonexistent/ca.pem"}, "AWS_CA_BUNDLE (from the environment)"),
    ({"REQUESTS_CA_BUNDLE": "/etc/hostname"}, "REQUESTS_CA_BUNDLE (from the environment)"),
    ({"HTTPS_PROXY": f"socks5://me:{MARK}@127.0.0.1:9"}, "SOCKS"),
    ({"HTTPS_PROXY": f"http://me:{MARK}@:x"}, "HTTPS_PROXY (from the environment) is not the URL"),
    ({"https_proxy": "http://[::1"}, "https_proxy (from the environment) is not the URL"),
    ({"HTTPS_PROXY": "ftp://127.0.0.1:9"}, "of a kind that there is not: ftp"),
    ({"HTTPS_PROXY": "http://[::1]:9"}, "proxy that HTTPS_PROXY names"),
]


@pytest.mark.parametrize(("settings", "words"), WAYS)
def test_what_stands_in_the_way_to_aws_is_named(
    settings: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in settings.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(RegistryError) as told, aws_errors("sts:GetCallerIdentity", REGION):
        raise aws.EndpointConnectionError(endpoint_url="https://sts.amazonaws.com")
    assert words in paragraph(told.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        *((setting, words) for setting, words in WAYS if "AWS_CA_BUNDLE" not in setting),
        ({"SSL_CERT_FILE": "/nonexistent/ca.pem"}, "SSL_CERT_FILE (from the environment)"),
        ({"ALL_PROXY": "socks5h://127.0.0.1:9"}, "ALL_PROXY (from the environment)"),
    ],
)
def test_what_stands_in_the_way_to_a_registry_is_named(
    settings: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in settings.items():
        monkeypatch.setenv(key, value)
    with (
        RegistryClient("registry.invalid", anonymous, policy=QUICK) as client,
        pytest.raises(RegistryError) as told,
    ):
        client.manifest("a/b", "1")
    shown = paragraph(told.value)
    assert words in shown or "Check HTTPS_PROXY" in shown


def test_the_network_is_named_only_where_it_can_be_the_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cure(error: Exception) -> str:
        failure = http_boundary.http_failure(
            error, "registry.example/a", "https://registry.example/"
        )
        return failure.cure or ""

    assert "network" in cure(requests.ConnectionError("reset"))
    assert "network" in cure(requests.Timeout("too late"))
    for kind in (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader, ValueError):
        assert "network" not in cure(kind("boom"))
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert "HTTPS_PROXY" in cure(requests.ConnectionError("reset"))
    assert "HTTPS_PROXY" in cure(requests.exceptions.ProxyError("refused"))
    assert "network" not in (unavailable_error("h/a", "503", SERVER_TROUBLE).cure or "")


# AWS's own words (IAM user guide, "Troubleshooting Signature Version 4 signing for API requests").
EXPIRED = (
    "Signature expired: 20260101T100000Z is now earlier than 20260101T115500Z "
    "(20260101T120000Z - 5 min.)"
)
EARLY = (
    "Signature not yet current: 20260101T130000Z is still later than 20260101T120500Z "
    "(20260101T120000Z + 5 min.)"
)


@pytest.mark.parametrize(
    ("code", "text", "words"),
    [
        ("InvalidSignatureException", EXPIRED, "2 h behind"),
        ("SignatureDoesNotMatch", EARLY, "1 h ahead of"),
        ("RequestTimeTooSkewed", "The difference is too large.", "wrong"),
        ("RequestExpired", "Request has expired.", "wrong"),
    ],
)
def test_a_wrong_clock_is_told_by_how_much(code: str, text: str, words: str) -> None:
    with pytest.raises(ClockError) as told, aws_errors("sts:GetCallerIdentity", REGION):
        raise ClientError({"Error": {"Code": code, "Message": text}}, "GetCallerIdentity")
    assert f"clock is {words}" in paragraph(told.value)
    assert "timedatectl" in str(told.value.cure)


def test_the_date_of_aws_answer_says_it_best() -> None:
    ours = datetime.now(timezone.utc) - timedelta(days=2, hours=3)
    headers = {"date": ours.strftime("%a, %d %b %Y %H:%M:%S GMT")}
    answer = {
        "Error": {"Code": "RequestTimeTooSkewed", "Message": ""},
        "ResponseMetadata": {"HTTPHeaders": headers},
    }
    with pytest.raises(ClockError, match="2 days 3 h ahead of"), aws_errors("x", REGION):
        raise ClientError(answer, "x")  # type: ignore[arg-type]


def test_a_certificate_of_another_time_names_the_clock() -> None:
    for words, kind in (("is not yet valid", ClockError), ("has expired", RegistryError)):
        error = requests.exceptions.SSLError(f"certificate verify failed: certificate {words}")
        failure = http_boundary.http_failure(error, "h/a", "https://h/")
        assert isinstance(failure, kind)
        assert "clock" in str(failure)


@pytest.mark.parametrize("page", ["<!DOCTYPE html><title>Log\nin</title>", "<html><body>x"])
def test_a_captive_portal_answers_for_aws(page: str) -> None:
    answer = {"Error": {"Code": "200", "Message": page}}
    with pytest.raises(RegistryUnavailableError, match="a web page answers"), aws_errors("x", "y"):
        raise ClientError(answer, "x")  # type: ignore[arg-type]
    with pytest.raises(RegistryUnavailableError, match="not AWS's"), aws_errors("x", "y"):
        raise KeyError("authorizationData")


@pytest.mark.parametrize(
    "host",
    [
        *(
            "",
            "-bad-",
            "host..example",
            "host:port",
            "host:0",
            "host:99999",
            "[::1",
            "::1",
            "[x]:1",
        ),
        *("a b", "é.example", f"{'a' * 64}.example", f"{'a.' * 130}example", "host_name", "h/x"),
        *(f"me:{MARK}@host.example", "[::1]x:5", "host:" + "9" * 12, "\x1b[2J"),
    ],
)
def test_a_name_that_is_no_registrys_is_refused(host: str) -> None:
    is_loopback(host)  # answers, whatever the text is
    with pytest.raises(UsageError) as told, closing(RegistryClient(host, anonymous)):
        pass
    paragraph(told.value)


@pytest.mark.parametrize(
    "host",
    ["h", "localhost:5000", "127.0.0.1", "[::1]:5000", "[2001:db8::1]", "a-b.C.example:65535"],
)
def test_a_name_that_docker_takes_is_taken(host: str) -> None:
    check_host(host)


def test_any_wait_is_said_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    made = transport.RegistryTransport(
        "registry.example", policy=QUICK, on_event=lambda event: said.append(event.text)
    )
    failure = unavailable_error("registry.example/a", "503")
    made.pause(1, 60.0, failure)
    assert "waiting 60 s for registry.example, as it asks" in said
    with pytest.raises(RegistryUnavailableError, match="asks for a wait of 3 h"):
        made.pause(1, 3 * 3600.0, failure)
    assert slept == []  # everyone waits at the host's gate


def test_a_public_registry_is_used_without_a_login_where_aws_settings_are_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: Callable[[str], Credentials | None] = credentials_for()
    for name, value in (("AWS_MAX_ATTEMPTS", "x"), ("AWS_PROFILE", "nobody")):
        monkeypatch.setenv(name, value)
        assert asked("public.ecr.aws") is None
