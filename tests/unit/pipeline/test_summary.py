"""What comes next is told by commands that work when they are pasted."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from slipway.core import Project
from slipway.engine import DEFAULT_URL
from slipway.pipeline import summary
from slipway.records import BuildRecord, ExportRecord, ImageRecord, PushRecord
from slipway.registry.local.local_server import RegistryServer
from tests.unit.docs.test_docs import exit_code

RECORD = ImageRecord(
    built=BuildRecord("abc", {}, "sagemaker-slipway/local:1", "sha256:1", 1, 1.0),
    exported=ExportRecord("sha256:1", "/a folder/local.sqsh", "sha256:2", 1, 1.0),
    pushed={"local": PushRecord("sha256:1", "127.0.0.1:5055/x:1", "sha256:3", "m", 1, 1.0)},
)
PROJECT = Project(Path("/nothing"), Path("/nothing"))
STAGES = ("build", "sqsh", "push")


@pytest.mark.parametrize("url", [DEFAULT_URL, "unix:///a folder/engine.sock", "tcp://host:2376"])
def test_docker_is_told_where_the_engine_is(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "which", lambda program: f"/usr/bin/{program}")
    run, _script, pull = summary.next_commands("local", RECORD, STAGES, url, PROJECT)
    for command in (run, pull):
        words = shlex.split(command)
        environment = [f"DOCKER_HOST={url}"] if url != DEFAULT_URL else []
        assert words[: len(environment) + 1] == [*environment, "docker"]
    assert pull.endswith("127.0.0.1:5055/x@sha256:3")


def test_docker_logs_in_to_the_local_registry_with_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "which", lambda program: f"/usr/bin/{program}")
    project = Project(tmp_path, tmp_path / "a state")
    RegistryServer(project.registry).configure(5055)
    *_, pull = summary.next_commands("local", RECORD, STAGES, DEFAULT_URL, project)
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\necho "$@"\n[ "$1" = pull ] || cat\n')
    docker.chmod(0o755)
    shown = subprocess.run(
        ["sh", "-c", pull],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert shown == [
        "login 127.0.0.1:5055 --username slipway --password-stdin",
        (project.registry / "password").read_text().strip(),
        "pull 127.0.0.1:5055/x@sha256:3",
    ]


def test_without_a_docker_program_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "which", lambda _program: None)
    (script,) = summary.next_commands("local", RECORD, STAGES, DEFAULT_URL, PROJECT)
    assert script.startswith("./inv slurm.script local ")
    assert exit_code(script) == 0
    assert "--sqsh '/a folder/local.sqsh'" in script


def test_only_what_was_done_has_a_next() -> None:
    assert summary.next_commands("local", RECORD, ("verify",), DEFAULT_URL, PROJECT) == []
