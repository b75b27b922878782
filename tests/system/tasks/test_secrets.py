"""Marked secrets come in on every way while something is wrong; all that is written is searched."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.support.loopback_files import serve_requests

ROOT = Path(__file__).parents[3]
ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"


def marked(name: str) -> str:
    return f"MARKED{name}{'x' * 20}"


HELPER = f"""#!/bin/sh
cat >/dev/null
echo '{{"Username": "me", "Secret": "{marked("helper")}"'
echo 'password={marked("helpererr")}' >&2
"""
PROCESS = f"""#!/bin/sh
echo '{{"Version": 1, "SecretAccessKey": "{marked("process")}"'
echo 'token={marked("processerr")}' >&2
exit $1
"""

PUSH = "push --unlocked --target ecr --region eu-central-1"
FROM_ECR = f"sqsh --from registry://{ECR}/a/b:1"
AUTHS = "sqsh --from registry://auths.invalid/a:1"
ECHOED = "sqsh --from registry://{host}/a:1"

#: What is wrong: variables, lines of the AWS profile in use, and the task that meets it.
FAULTS: list[tuple[dict[str, str], str, str]] = [
    ({}, "", PUSH),
    ({"AWS_MAX_ATTEMPTS": "x"}, "", PUSH),
    ({"AWS_SECRET_ACCESS_KEY": marked("line") + "\n" + marked("end")}, "", PUSH),
    ({"AWS_SESSION_TOKEN": marked("tokenline") + "\r\n" + marked("tokenend")}, "", PUSH),
    ({"AWS_ENDPOINT_URL": f"https://me:{marked('endpoint')}@host:port/"}, "", PUSH),
    ({"AWS_PROFILE": "p"}, "credential_process = {home}/process 0", PUSH),
    ({"AWS_PROFILE": "p"}, "credential_process = {home}/process 3", "doctor"),
    ({"AWS_PROFILE": "p"}, "aws_secret_access_key", FROM_ECR),
    ({"AWS_PROFILE": "p"}, "web_identity_token_file = {home}/token\nrole_arn = a", FROM_ECR),
    ({"HTTPS_PROXY": f"http://me:{marked('proxy')}@127.0.0.1:9"}, "", PUSH),
    ({"HTTPS_PROXY": f"socks5://me:{marked('socks')}@127.0.0.1:9"}, "", AUTHS),
    ({"HTTPS_PROXY": f"http://me:{marked('port')}@host:port"}, "", AUTHS),
    ({"REQUESTS_CA_BUNDLE": "/nonexistent"}, "", AUTHS),
    ({}, "auths", ECHOED),
    ({}, "helper", ECHOED),
    ({}, "", f"sqsh --from registry://me:{marked('name')}@host.invalid/a:1"),
    ({"DOCKER_HOST": f"tcp://me:{marked('docker')}@127.0.0.1:9"}, "", "doctor"),
    ({"PIP_INDEX_URL": f"https://me:{marked('pip')}@127.0.0.1:9/simple"}, "", "lock --check"),
]


@pytest.fixture(scope="module")
def echoing() -> Iterator[str]:
    """A registry that refuses every login, and says in its error what it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            login = self.headers.get("Authorization", "none")
            error = {"code": "UNAUTHORIZED", "message": f"{login} {login.split()[-1]}"}
            body = json.dumps({"errors": [error]}).encode()
            self.send_response(401 if login == "none" else 400)
            self.send_header("WWW-Authenticate", "Basic")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    with serve_requests(Handler) as host:
        yield host


def prepare(home: Path, profile: str, host: str) -> dict[str, str]:
    """Every file that a secret may come from, and the environment that names them."""
    (home / ".aws").mkdir()
    keys = f"aws_access_key_id = AKIAAAAAAAAAAAAAAAAA\naws_secret_access_key = {marked('file')}\n"
    (home / ".aws" / "credentials").write_text(f"[default]\n{keys}[profile torn\n")
    if profile != "aws_secret_access_key":
        (home / ".aws" / "credentials").write_text(f"[default]\n{keys}")
    (home / ".aws" / "config").write_text(f"[profile p]\n{profile.format(home=home)}\n")
    (home / "token").write_text(marked("identity"))
    auth = base64.b64encode(f"me:{marked('auth')}".encode()).decode()
    logins: dict[str, Any] = {"auths": {host: {"auth": auth}}}
    if profile == "helper":
        logins["credHelpers"] = {host: "x"}
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").write_text(json.dumps(logins))
    for name, text in (("docker-credential-x", HELPER), ("process", PROCESS)):
        (home / name).write_text(text)
        (home / name).chmod(0o700)
    return {
        "PATH": f"{home}:{os.environ['PATH']}",
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "SLIPWAY_STATE": str(home / "state"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "PIP_EXTRA_INDEX_URL": f"https://me:{marked('extra')}@127.0.0.1:9/simple",
        "INVOKE_SLIPWAY_ENGINE": "tcp://127.0.0.1:9",
    }


def command_lines(session: int) -> Iterator[bytes]:
    """The arguments of every process of a session."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[3]) == session:
                yield stat.with_name("cmdline").read_bytes()
        except (OSError, IndexError):
            continue


@pytest.mark.parametrize(("settings", "profile", "task"), FAULTS)
def test_no_marked_secret_is_written_anywhere(
    settings: dict[str, str], profile: str, task: str, tmp_path: Path, echoing: str
) -> None:
    task = task.replace("{host}", echoing)
    environment = prepare(tmp_path, profile, echoing)
    given = {path for path in tmp_path.rglob("*") if path.is_file()}
    if "=" not in profile and "secret" not in profile:
        environment["AWS_ACCESS_KEY_ID"] = "AKIAAAAAAAAAAAAAAAAA"
        environment["AWS_SECRET_ACCESS_KEY"] = marked("environment")
        environment["AWS_SESSION_TOKEN"] = marked("session")
    with subprocess.Popen(
        [sys.executable, "-m", "slipway.tasks.cli", "--search-root", str(ROOT), *task.split()],
        env={**environment, **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        started: set[bytes] = set()
        while process.poll() is None:
            lines = command_lines(process.pid)
            started.update(line for line in lines if b"registry://me:" not in line)
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        assert process.stdout
        told = process.stdout.read()
    assert b"Traceback" not in told, told.decode()
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - given
    everything = [told, *started, *(path.read_bytes() for path in written)]
    assert re.findall(rb"MARKED\w+", b"\n".join(everything)) == []
    auth = base64.b64encode(f"me:{marked('auth')}".encode())
    assert auth not in b"\n".join(everything)
    if "127.0.0.1" in task:
        assert b"***" in told or b"gives no login" in told  # it was sent, or could not be read
