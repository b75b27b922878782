"""No secret is shown, whatever is said about it; what is not secret stays readable."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.core import (
    Credentials,
    RedactingStream,
    error_text,
    printable,
    public_environment,
    redact,
)

SECRET = "MARKED/secret+42=="
SECRETS = st.text("ABCabc123+/=_-.", min_size=8, max_size=40)


@given(secret=SECRETS, before=st.text(max_size=20), after=st.text(max_size=20))
def test_a_value_that_the_environment_calls_secret_is_hidden_anywhere(
    secret: str, before: str, after: str
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MY_PASSWORD", "HF_TOKEN"):
        shown = redact(f"{before} {secret} {after}", {name: f" {secret}\n"})
        assert secret not in shown.replace(before, "", 1) or secret in before + after


@pytest.mark.parametrize(
    "text",
    [
        f"https://me:{SECRET}@index.example/simple",
        "https://token-MARKED/secret+42==@h/".replace("token-", "user:"),
        f"proxy http://me:{SECRET}@10.0.0.1:3128/ refused",
        f"Authorization: Basic {SECRET}",
        f"{{'Authorization': 'Bearer {SECRET}'}}",
        f"Authorization: {SECRET}",
        f"Bearer {SECRET}",
        f"https://s3/x?X-Amz-Signature={SECRET}&X-Amz-Date=1",
        f"X-Amz-Security-Token={SECRET}",
        f'{{"identitytoken": "{SECRET}"}}',
        f"aws_secret_access_key={SECRET}",
        f"PASSWORD='{SECRET}'",
    ],
)
def test_a_secret_is_known_by_where_it_stands(text: str) -> None:
    shown = redact(text, {})
    assert SECRET not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    "text",
    [
        "registry.example:5000/a/b:1.2@sha256:0123456789abcdef",
        "Log in with a user name and an access token: docker login -u USER host",
        "the registry asks for basic authentication and gives a bearer token",
        "git@github.com:owner/repo.git",
        "https://registry.example:8443/a@sha256:00 and docker://host/a@sha256:00",
        "https://index.example/simple has no torch==2.13",
        "tokens: 12 of 40",
        "$AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN=$TOKEN",
        "Correct or unset DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH.",
    ],
)
def test_what_is_no_secret_stays_as_it_is(text: str) -> None:
    environ = {"AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token", "AWS_PROFILE": "secret-team"}
    assert redact(text, environ) == text


def test_a_short_word_is_not_torn_out_of_ordinary_text() -> None:
    assert redact("the test passed", {"DB_PASSWORD": "test"}) == "the test passed"


def test_a_password_from_a_file_is_hidden_plain_and_encoded() -> None:
    import base64

    Credentials("me", SECRET)
    for shown in (SECRET, base64.b64encode(f"me:{SECRET}".encode()).decode()):
        assert redact(f"it said {shown}!", {}) == "it said ***!"
    assert SECRET not in repr(Credentials("me", SECRET))


def test_a_child_gets_no_login_that_it_does_not_need() -> None:
    environ = {
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ACCESS_KEY_ID": SECRET,
        "AWS_SESSION_TOKEN": SECRET,
        "HF_TOKEN": SECRET,
        "HTTPS_PROXY": f"http://me:{SECRET}@proxy:3128",
        "PATH": "/bin",
        "HTTP_PROXY": "http://proxy:3128",
        "DOCKER_HOST": "tcp://host:2376",
    }
    assert set(public_environment(environ)) == {"PATH", "HTTP_PROXY", "DOCKER_HOST"}


@given(st.text())
def test_text_for_a_terminal_has_no_control_characters(text: str) -> None:
    shown = printable(text)
    assert all(sign in "\n\t" or sign.isprintable() or ord(sign) >= 0xA0 for sign in shown)
    assert "\x1b" not in shown
    shown.encode()  # lone surrogates, too


def test_an_exception_that_cannot_describe_itself_is_named() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise AttributeError("length")

    assert error_text(MuteError()) == "MuteError"
    assert error_text(KeyError()) == "KeyError"
    assert error_text(ValueError(f"https://me:{SECRET}@h/\x1b[2J")) == "https://***@h/\\x1b[2J"


def test_a_stream_hides_what_is_written_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_marked_token")
    target = io.StringIO()
    stream = RedactingStream(target)
    print("using hf_marked_token now", file=stream)
    stream.writelines(["hf_marked_token\n"])
    assert target.getvalue() == "using *** now\n***\n"
    assert not stream.isatty()
