from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from moto import mock_aws
from moto.ecr.responses import ECRResponse

from slipway.core import Credentials
from slipway.registry import Target, credentials_for
from slipway.registry.logins import MARGIN, Token

HOST = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def lifetime(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[timedelta]]:
    """Tokens of the API end so much later than they are asked for; each asking is one more."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL_ECR", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    lifetimes = [timedelta(hours=12)]
    original = ECRResponse.get_authorization_token
    asked = 0

    def token(self: ECRResponse) -> object:
        nonlocal asked
        asked += 1
        answer = original(self)
        data = answer.result["authorizationData"][0]  # type: ignore[index]
        data["authorizationToken"] = base64.b64encode(f"AWS:secret-{asked}".encode()).decode()
        data["expiresAt"] = datetime.now(timezone.utc) + lifetimes[0]
        return answer

    monkeypatch.setattr(ECRResponse, "get_authorization_token", token)
    with mock_aws():
        yield lifetimes


@pytest.mark.parametrize(
    ("left", "usable"),
    [
        (timedelta(hours=12), True),
        (MARGIN + timedelta(seconds=1), True),
        (MARGIN, False),
        (timedelta(0), False),
        (datetime(2015, 1, 1, tzinfo=timezone.utc) - NOW, False),
    ],
)
def test_a_token_is_kept_until_shortly_before_its_end(left: timedelta, usable: bool) -> None:
    assert Token(Credentials("AWS", "x"), NOW + left, HOST).usable(NOW) is usable


def test_a_host_is_logged_in_to_once_and_each_host_for_itself(lifetime: list[timedelta]) -> None:
    logins = credentials_for()
    assert logins(HOST) == logins(HOST) == Credentials("AWS", "secret-1")
    other = HOST.replace("eu-central-1", "us-east-1")
    assert logins(other) == Credentials("AWS", "secret-2")
    assert logins(HOST) == Credentials("AWS", "secret-1")


def test_a_refused_token_is_replaced(lifetime: list[timedelta]) -> None:
    logins = credentials_for([HOST])
    assert logins(HOST) == Credentials("AWS", "secret-1")
    logins.forget(HOST)
    assert logins(HOST) == Credentials("AWS", "secret-2")


@pytest.mark.parametrize("left", [timedelta(minutes=4), timedelta(days=-4000)])
def test_a_token_that_ends_soon_or_has_an_end_in_the_past_is_asked_for_at_each_use(
    lifetime: list[timedelta], left: timedelta
) -> None:
    lifetime[0] = left
    logins = credentials_for()
    assert logins(HOST) == Credentials("AWS", "secret-1")
    assert logins(HOST) == Credentials("AWS", "secret-2")


def test_a_target_whose_host_does_not_tell_its_region_is_logged_in_to_as_well(
    lifetime: list[timedelta],
) -> None:
    target = Target("ecr", "ecr", "127.0.0.1:5000", "eu-central-1", "123456789012")
    assert credentials_for([target])("127.0.0.1:5000") == Credentials("AWS", "secret-1")


@pytest.mark.parametrize("host", ["127.0.0.1:5055", "docker.io", "quay.io", "localhost:1"])
def test_other_registries_are_anonymous_and_aws_is_not_asked(
    lifetime: list[timedelta], host: str
) -> None:
    local = Target("local", "local", "127.0.0.1:5055")
    logins = credentials_for([local])
    assert logins(host) is None
    assert logins(HOST) == Credentials("AWS", "secret-1")


def test_public_ecr_is_anonymous_where_there_are_no_aws_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    assert credentials_for()("public.ecr.aws") is None
