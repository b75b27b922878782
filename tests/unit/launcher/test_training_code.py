"""Where a job's code comes from, and what is installed for it, by real pip and a real index."""

from __future__ import annotations

import base64
import json
import shutil
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from launcher.causes import LaunchError
from launcher.data.training_code import bring_source, find_source, install_code
from launcher.stop_request import StopRequest
from tests.support.loopback_files import serve_requests
from tests.support.wheels import make_wheel

ARN = "arn:aws:codeartifact:eu-west-1:123456789012:repository/models/team"
TOKEN = "t0ken-of-the-domain"


def no_s3() -> Any:
    raise AssertionError("nothing is to be asked of S3")


@pytest.mark.parametrize(
    ("source", "present", "wanted"),
    [
        ("s3://b/sourcedir.tar.gz", False, True),
        ("s3://b/sourcedir.tar.gz", True, False),
        ("/opt/ml/input/data/code/x.tar.gz", False, True),
        ("/opt/ml/input/data/code/x.tar.gz", True, False),
        ("CODE", False, False),
        ("", False, False),
    ],
)
def test_code_that_is_there_already_is_not_brought(
    tmp_path: Path, source: str, present: bool, wanted: bool
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    if present:
        (code / "train.py").touch()
    source = source.replace("CODE", str(code))
    for env, hyper in (
        ({}, {"sagemaker_submit_directory": source}),
        ({"SAGEMAKER_SUBMIT_DIRECTORY": source}, {"sagemaker_submit_directory": "s3://other/x"}),
    ):
        found = find_source(env, hyper if source or not env else {}, code)
        assert found == (source if wanted else "")


@pytest.mark.parametrize("kind", ["folder", "archive", "script"])
def test_code_beside_the_job_is_taken_as_the_toolkit_takes_it(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "source"
    (folder / "lib").mkdir(parents=True)
    (folder / "train.py").write_text("print(1)")
    (folder / "lib" / "a.py").write_text("A = 1")
    source = folder
    if kind == "archive":
        source = tmp_path / "source.tar.gz"
        with tarfile.open(source, "w:gz") as tar:
            tar.add(folder, arcname=".")
    elif kind == "script":
        source = folder / "train.py"
    bring_source(no_s3, str(source), tmp_path / "code")
    names = {p.relative_to(tmp_path / "code").as_posix() for p in (tmp_path / "code").rglob("*")}
    assert names == ({"train.py"} if kind == "script" else {"train.py", "lib", "lib/a.py"})


@pytest.mark.parametrize("damage", ["absent", "cut", "not gzip"])
def test_code_that_cannot_be_had_is_named(tmp_path: Path, damage: str) -> None:
    source = tmp_path / "source.tar.gz"
    if damage != "absent":
        with tarfile.open(source, "w:gz") as tar:
            tar.add(__file__, arcname="train.py")
        whole = source.read_bytes()
        source.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"\x1f\x8b" + whole)
    if damage == "not gzip":  # a file that is no archive is a script, as the toolkit has it
        bring_source(no_s3, str(source), tmp_path / "code")
        assert (tmp_path / "code" / source.name).exists()
        return
    with pytest.raises(LaunchError, match=r"source\.tar\.gz"):
        bring_source(no_s3, str(source), tmp_path / "code")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pip installs to, instead of the Python that runs the tests."""
    for name, value in {
        "PIP_TARGET": str(tmp_path / "packages"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_CACHE_DIR": "1",
    }.items():
        monkeypatch.setenv(name, value)
    for name in (
        "PIP_INDEX_URL",
        "PIP_EXTRA_INDEX_URL",
        "PIP_FIND_LINKS",
        "PIP_REQUIRE_VIRTUALENV",
    ):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "packages"


@pytest.mark.parametrize(
    ("script", "installed"), [("train.py", True), ("start", True), ("run.sh", False)]
)
def test_a_package_of_the_code_is_installed_for_all_but_shell_scripts(
    tmp_path: Path, packages: Path, script: str, installed: bool
) -> None:
    code = tmp_path / "code"
    wheel = make_wheel(code / "made", "mymodel", {"mymodel/__init__.py": b"LAYERS = 2"})
    (code / "setup.py").touch()
    # A backend of its own (PEP 517) that needs nothing: setuptools may lack what makes wheels.
    (code / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (code / "backend.py").write_text(
        "import os, shutil\n"
        "def build_wheel(folder, config_settings=None, metadata_directory=None):\n"
        f"    return os.path.basename(shutil.copy({str(wheel)!r}, folder))\n"
    )
    install_code(sys.executable, code, script, {}, StopRequest())
    assert (packages / "mymodel" / "__init__.py").exists() == installed


def test_a_package_that_cannot_be_installed_ends_the_job_by_name(
    tmp_path: Path, packages: Path
) -> None:
    (tmp_path / "setup.py").touch()
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "absent"\nbackend-path = ["."]\n'
    )
    (tmp_path / "requirements.txt").write_text("# nothing\n")
    with pytest.raises(LaunchError, match=r"own package and requirements\.txt"):
        install_code(sys.executable, tmp_path, "train.py", {}, StopRequest())
    assert not packages.exists()


class CodeArtifact(BaseHTTPRequestHandler):
    """AWS CodeArtifact's two calls by their REST paths, and the index that they lead to.

    `GetAuthorizationToken` and `GetRepositoryEndpoint` of the API reference of 2018-09-22.
    """

    wheels: Path
    refuse = False
    asked: list[str]

    def do_POST(self) -> None:
        self.asked.append(self.path)
        if self.refuse:
            self._answer(403, {"message": "User is not authorized"}, error="AccessDeniedException")
            return
        assert self.path.startswith("/v1/authorization-token?")
        self._answer(200, {"authorizationToken": TOKEN, "expiration": 1795864204})

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/v1/repository/endpoint?"):
            host = self.headers["Host"]
            self._answer(200, {"repositoryEndpoint": f"http://{host}/pypi/team/"})
            return
        login = base64.b64encode(f"aws:{TOKEN}".encode()).decode()
        if self.headers["Authorization"] != f"Basic {login}":
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path.endswith(".whl"):
            self._send((self.wheels / self.path.rpartition("/")[2]).read_bytes(), "binary/octet")
        else:
            assert self.path == "/pypi/team/simple/inhouse/"
            (wheel,) = self.wheels.iterdir()
            self._send(f'<a href="{wheel.name}">{wheel.name}</a>'.encode(), "text/html")

    def _answer(self, code: int, body: dict[str, Any], error: str = "") -> None:
        self.send_response(code)
        if error:
            self.send_header("x-amzn-ErrorType", error)
        self._end(json.dumps(body).encode(), "application/json")

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self._end(body, kind)

    def _end(self, body: bytes, kind: str) -> None:
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@contextmanager
def codeartifact(wheels: Path, *, refuse: bool = False) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Handler", (CodeArtifact,), {"wheels": wheels, "refuse": refuse, "asked": asked})
    with serve_requests(handler) as host:
        yield f"http://{host}", asked


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials of the tests' own, and no proxy on the way to loopback."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.usefixtures("aws")
def test_requirements_come_from_codeartifact_where_the_job_names_it(
    tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    wheel = make_wheel(tmp_path / "wheels", "inhouse", {"inhouse.py": b"X = 1"})
    code = tmp_path / "code"
    code.mkdir()
    (code / "requirements.txt").write_text("inhouse\n")
    with codeartifact(wheel.parent) as (url, asked):
        monkeypatch.setenv("AWS_ENDPOINT_URL_CODEARTIFACT", url)
        env = {"CA_REPOSITORY_ARN": ARN}
        install_code(sys.executable, code, "train.py", env, StopRequest())
    assert (packages / "inhouse.py").read_text() == "X = 1"
    assert asked[0] == "/v1/authorization-token?domain=models&domain-owner=123456789012"
    assert TOKEN not in "".join(capfd.readouterr())


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("fault", ["no arn", "refused", "no boto3"])
def test_an_index_that_cannot_be_had_is_said_before_pip_starts(
    tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    (tmp_path / "requirements.txt").write_text("inhouse\n")
    python = sys.executable
    if fault == "no boto3":
        python = str(tmp_path / "python")
        real = shutil.which("python3", path="/usr/bin") or sys.executable
        Path(python).write_text(f'#!/bin/sh\nexec {real} -I -S "$@"\n')
        Path(python).chmod(0o755)
    words = {"no arn": "no ARN", "refused": "AccessDenied", "no boto3": "boto3"}[fault]
    env = {"CA_REPOSITORY_ARN": ARN if fault != "no arn" else "arn:aws:s3:::bucket"}
    with codeartifact(tmp_path, refuse=True) as (url, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL_CODEARTIFACT", url)
        with pytest.raises(LaunchError, match=words):
            install_code(python, tmp_path, "train.py", env, StopRequest())
    assert not packages.exists()
