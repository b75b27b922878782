"""`docker login`'s own files, as the Docker client writes them."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from slipway.core import Credentials
from slipway.registry import NoCredentialsError, credentials_for

HOST = "registry.example.com:5000"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_ECR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(home: Path, **config: object) -> None:
    (home / "config.json").write_text(json.dumps(config))


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def helper(home: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A credential helper `docker-credential-test` (docker/docker-credential-helpers, README)."""
    path = home / "docker-credential-test"
    path.write_text(f"#!/bin/sh\nread host\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}:/usr/bin:/bin")


def test_nobody_is_logged_in_without_a_file(home: Path) -> None:
    assert credentials_for()(HOST) is None


def test_a_login_counts_for_its_own_host_only(home: Path) -> None:
    write(home, auths={HOST: auth("me:pass:word"), "https://other.example.com/v1/": auth("o:p")})
    logins = credentials_for()
    assert logins(HOST) == Credentials("me", "pass:word")
    assert logins("other.example.com") == Credentials("o", "p")
    assert logins("registry.example.com") is None


def test_a_login_with_line_ends_in_its_base64_is_read(home: Path) -> None:
    text = base64.encodebytes(b"me:" + b"p" * 80).decode()
    write(home, auths={HOST: {"auth": text.replace("\n", "\r\n", 1)}})
    assert credentials_for()(HOST) == Credentials("me", "p" * 80)


def test_a_new_login_counts_at_the_next_use(home: Path) -> None:
    logins = credentials_for()
    for password in ("old", "new"):
        write(home, auths={HOST: auth(f"me:{password}")})
        assert logins(HOST) == Credentials("me", password)


@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_a_helper_is_asked(home: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    script = (
        'echo "{\\"ServerURL\\": \\"$host\\", \\"Username\\": \\"me\\", \\"Secret\\": \\"s\\"}"'
    )
    helper(home, monkeypatch, script)
    write(home, **{key: "test" if key == "credsStore" else {HOST: "test"}})
    assert credentials_for()(HOST) == Credentials("me", "s")


def test_a_helper_that_knows_nothing_is_nobody(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(home, monkeypatch, "echo credentials not found in native keychain; exit 1")
    write(home, credsStore="test")
    assert credentials_for()(HOST) is None


def test_a_helper_that_is_not_installed_is_nobody(home: Path) -> None:
    write(home, credsStore="absent", auths={HOST: auth("me:p"), "other.example.com": {}})
    logins = credentials_for()
    assert logins(HOST) == Credentials("me", "p")
    assert logins("other.example.com") is None


def test_a_helper_that_fails_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(home, monkeypatch, "echo the keychain is locked >&2; exit 2")
    write(home, credsStore="test")
    with pytest.raises(NoCredentialsError, match="cannot be read"):
        credentials_for()(HOST)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"auths": {HOST: {"auth": "%%%"}}}, "cannot be read"),
        ({"auths": {HOST: {"auth": base64.b64encode(b"nocolon").decode()}}}, "cannot be read"),
        ({"auths": {HOST: "me:you"}}, "cannot be read"),
        ({"auths": {HOST: {**auth("me:x"), "identitytoken": "t"}}}, "identity token"),
    ],
)
def test_a_login_that_cannot_be_used_is_said_with_the_cure(
    home: Path, config: dict[str, object], told: str
) -> None:
    write(home, **config)
    with pytest.raises(NoCredentialsError, match=told) as caught:
        credentials_for()(HOST)
    assert f"docker login {HOST}" in str(caught.value) or "docker login -u" in str(caught.value)


def test_ecr_hosts_are_not_looked_up_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
    write(home, auths={host: auth("AWS:stale")})
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(NoCredentialsError):
        credentials_for()(host)


BROKEN = {
    "auths": [[], 7, "x", True],
    "credHelpers": [[], 7, "x"],
    "credsStore": [7, ["x"], {"a": 1}, "../../bin/sh"],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, vs in BROKEN.items() for v in vs])
def test_a_part_of_another_type_is_named_with_its_file(home: Path, key: str, value: object) -> None:
    write(home, **{key: value})
    with pytest.raises(NoCredentialsError, match=f"cannot be read: {key}") as caught:
        credentials_for()(HOST)
    assert caught.value.where == str(home / "config.json")


def test_an_entry_that_is_broken_concerns_its_own_host_only(home: Path) -> None:
    write(
        home,
        auths={
            "broken.example": {"auth": 7},
            "null.example": None,
            HOST: {"username": "me", "password": "secret-word"},
            f"https://{HOST}/v1/": auth("old:old"),
            "https://index.docker.io/v1/": auth("hub:p"),
        },
        credHelpers={"other.example": []},
    )
    logins = credentials_for()
    assert logins(HOST) == Credentials("me", "secret-word")
    assert logins("null.example") is None
    assert logins("docker.io") == Credentials("hub", "p")
    with pytest.raises(NoCredentialsError, match=r"auths\.broken\.example\.auth is not base64"):
        logins("broken.example")


@pytest.mark.parametrize("text", ["{", '{"auths": {},}', "[]", "\x00"])
def test_a_file_that_is_no_json_object_is_named_with_its_line(home: Path, text: str) -> None:
    (home / "config.json").write_text(text)
    with pytest.raises(NoCredentialsError) as caught:
        credentials_for()(HOST)
    assert caught.value.where == f"{home / 'config.json'}:1"


@pytest.mark.parametrize(
    "script",
    [
        "echo rubbish",
        "echo '{}'",
        "echo '[]'",
        "echo 'null'",
        """echo '{"Username": 7, "Secret": "MARKED-secret"}'""",
        "printf '\\377\\376'",
        "echo password=MARKED-secret >&2; exit 3",
        "kill -9 $$",
    ],
)
def test_a_helpers_rubbish_is_said_without_what_it_holds(
    home: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    helper(home, monkeypatch, script)
    write(home, credsStore="test")
    with pytest.raises(NoCredentialsError, match="credsStore") as caught:
        credentials_for()(HOST)
    assert "MARKED-secret" not in str(caught.value)


def test_a_helper_that_is_no_program_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home / "docker-credential-test"
    path.write_bytes(b"\x7fELF")
    path.chmod(0o755)
    write(home, credsStore="test")
    monkeypatch.setenv("PATH", f"{home}:/usr/bin:/bin")
    with pytest.raises(NoCredentialsError, match="does not run"):
        credentials_for()(HOST)
