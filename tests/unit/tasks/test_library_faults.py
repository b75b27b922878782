"""One of each family of the libraries' exceptions, through each task that uses the library."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import boto3
import docker
import pytest
import requests
import requests.exceptions as http
from botocore import exceptions as aws
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLStreamError

from slipway import __version__
from slipway.core import Project
from slipway.tasks.cli import InvProgram
from tests.support.exceptions import class_name, instance

ROOT = Path(__file__).parents[3]
ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
BARE = (OSError, ValueError, RecursionError)
AWS = (
    *(aws.NoCredentialsError, aws.ClientError, aws.EndpointConnectionError, aws.HTTPClientError),
    *(aws.SSOError, *BARE),
)
HTTP = (*(http.ConnectionError, http.SSLError, http.ProxyError, http.InvalidURL, *BARE),)
DOCKER = (docker.errors.DockerException, http.ConnectionError, *BARE)
REMOTE = "registry://registry.example/a/b:1"


def each(kinds: Sequence[type[Exception]], first: str, *others: str) -> list[Any]:
    """Every class through the first task, and two of them through the others."""
    pairs = [(first, kind) for kind in kinds]
    pairs += [(task, kinds[n]) for task in others for n in (0, -1)]
    return [pytest.param(task, kind, id=f"{task} {class_name(kind)}") for task, kind in pairs]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """State of the test's own, an engine that is not there, and no settings of this machine."""
    for name in [*os.environ]:
        if name.startswith(("AWS_", "DOCKER_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in {
        "SLIPWAY_STATE": str(tmp_path / "state"),
        "HOME": str(tmp_path),
        "INVOKE_SLIPWAY_ENGINE": "tcp://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing-testing",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))


def inv(words: str) -> int:
    program = InvProgram(name="Slipway", binary="inv", version=__version__)
    try:
        program.run(["inv", "--search-root", str(ROOT), *words.split()])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def refuser(kind: type[Exception]) -> Callable[..., object]:
    """Stands in a library's place: whatever it is given, it raises one exception of the kind."""

    def refuse(*_: object, **__: object) -> object:
        raise instance(kind)

    return refuse


def check(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """It ends with our code for a failure and one paragraph; its words."""
    assert inv(words) == 1
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert told.count("\n") <= 6
    return told


@pytest.mark.parametrize(
    ("words", "kind"),
    each(
        AWS,
        f"sqsh --from registry://{ECR}/a/b:1",
        f"sqsh.diff registry://{ECR}/a/b:1 {REMOTE}",
        "push --target ecr --region eu-central-1 --unlocked",
        "ship --target ecr --region eu-central-1 --unlocked",
    ),
)
def test_a_task_that_asks_aws(
    words: str,
    kind: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def challenge(*_: object, **__: object) -> requests.Response:
        answer = requests.Response()
        answer.status_code, answer._content = 401, b""
        answer.headers["WWW-Authenticate"] = "Basic"
        answer.raw = None
        return answer

    monkeypatch.setattr("slipway.registry.distribution.transport.read_answer", lambda *_: b"")
    monkeypatch.setattr(requests.Session, "request", challenge)
    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", refuser(kind))
    assert "inv " in check(words, capsys)


@pytest.mark.parametrize(
    ("words", "kind"), each(HTTP, f"sqsh --from {REMOTE}", f"sqsh.diff {REMOTE} {REMOTE}")
)
def test_a_task_that_asks_a_registry(
    words: str,
    kind: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(requests.Session, "request", refuser(kind))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    assert "registry.example" in check(words, capsys)


@pytest.mark.parametrize(
    ("words", "kind"),
    each(
        DOCKER,
        *("sqsh.diff dockerd://a:1 dockerd://b:1", "doctor", "build --unlocked"),
        *("verify --unlocked", "sqsh --unlocked", "push --unlocked"),
    ),
)
def test_a_task_that_needs_the_engine(
    words: str,
    kind: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(docker, "DockerClient", refuser(kind))
    check(words, capsys)
    assert not Project.at(ROOT).registry.exists(), "no registry is started for nothing"


@pytest.mark.parametrize(
    ("words", "kind"), each((YAMLStreamError, *BARE), "matrix", "plan", "generate", "build")
)
def test_a_task_that_reads_the_matrix(
    words: str,
    kind: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(YAML, "compose", refuser(kind))
    assert inv(words) == 3
    told = capsys.readouterr().err
    assert "versions.yaml:1" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    "text", ["a: [1", "- 1", "slipway: 3", "\tx: 1", '"\\ud800": "\\x00', "a: 1\na: {b: 2}\n--- x"]
)
def test_a_configuration_of_invoke_that_is_none(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.yaml").write_text(text)
    monkeypatch.setenv("INVOKE_RUNTIME_CONFIG", str(tmp_path / "own.yaml"))
    assert inv("matrix") == 3
    assert str(tmp_path / "own.yaml") in capsys.readouterr().err
