from __future__ import annotations

import pytest

from slipway.core import Credentials, anonymous
from slipway.registry.distribution.auth import Challenge, forget_credentials, parse_challenge
from slipway.registry.logins import Logins


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
            'scope="repository:library/debian:pull,push"',
            Challenge(
                "bearer",
                {
                    "realm": "https://auth.docker.io/token",
                    "service": "registry.docker.io",
                    "scope": "repository:library/debian:pull,push",
                },
            ),
        ),
        (
            'Basic realm="https://1.dkr.ecr.x.amazonaws.com/",service="ecr.amazonaws.com"',
            Challenge(
                "basic",
                {"realm": "https://1.dkr.ecr.x.amazonaws.com/", "service": "ecr.amazonaws.com"},
            ),
        ),
        ("Basic", Challenge("basic", {})),
        (
            'BEARER Realm = "a\\"b", error=invalid',
            Challenge("bearer", {"realm": 'a"b', "error": "invalid"}),
        ),
    ],
)
def test_a_challenge_is_read(header: str, expected: Challenge) -> None:
    assert parse_challenge(header) == expected


def test_only_credentials_that_are_kept_can_be_forgotten() -> None:
    forget_credentials(anonymous, "host")  # has nothing to forget, and that is no error
    forget_credentials(Logins(), "host")


def test_a_secret_is_not_shown() -> None:
    assert "hush" not in repr(Credentials("user", "hush"))
