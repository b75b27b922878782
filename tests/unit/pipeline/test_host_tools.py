"""Host tools: what is missing, and how it is installed without a trace."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from slipway.core import Event
from slipway.engine import EngineError
from slipway.pipeline import host_tools

BY_NAME = {tool.name: tool for tool in host_tools.TOOLS}


def _program(folder: Path, name: str, script: str = "exit 0") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_every_tool_is_missing_on_an_empty_path(tmp_path: Path) -> None:
    assert host_tools.missing_tools(str(tmp_path)) == list(host_tools.TOOLS)


def test_a_tool_on_the_path_is_not_missing(tmp_path: Path) -> None:
    _program(tmp_path, "unsquashfs")
    assert BY_NAME["unsquashfs"] not in host_tools.missing_tools(str(tmp_path))
    assert BY_NAME["runc"] in host_tools.missing_tools(str(tmp_path))


def test_packages_are_installed_once_without_recommends_after_one_update() -> None:
    twice = [BY_NAME["runc"], BY_NAME["dockerd"], BY_NAME["runc"]]
    update, install = host_tools.install_commands(twice)
    assert update[-1] == "update"
    assert install[-4:] == ["install", "--no-install-recommends", "docker.io", "runc"]
    assert "DPkg::Lock::Timeout=300" in install
    assert "-y" in install


def test_without_root_the_error_has_the_apt_command_to_type() -> None:
    error = host_tools.manual_commands([BY_NAME["unsquashfs"], BY_NAME["dockerd"]], apt=True)
    assert error.cure == (
        "sudo apt-get update && "
        "sudo apt-get install -y --no-install-recommends docker.io squashfs-tools"
    )


def test_without_apt_the_error_has_the_dnf_command_and_names_what_dnf_has_not() -> None:
    error = host_tools.manual_commands([BY_NAME["unsquashfs"], BY_NAME["mmdebstrap"]], apt=False)
    assert error.cure is not None
    assert "sudo dnf install -y squashfs-tools\n" in error.cure
    assert "mmdebstrap" in error.cure


def test_while_packages_install_no_service_may_start_and_after_it_nothing_is_left(
    tmp_path: Path,
) -> None:
    policy = tmp_path / "policy-rc.d"
    with host_tools._no_services(policy):
        assert subprocess.run([policy, "docker", "start"], check=False).returncode == 101
    assert not policy.exists()


def test_a_policy_left_by_a_killed_install_forbids_nothing(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    with subprocess.Popen(["sleep", "600"]) as gone:
        gone.kill()
    with host_tools._no_services(policy):
        text = policy.read_text().replace(f"kill -0 {os.getpid()} ", f"kill -0 {gone.pid} ")
    policy.write_text(text)
    policy.chmod(0o755)
    assert subprocess.run([policy, "docker", "start"], check=False).returncode == 0


def test_a_policy_of_the_hosts_own_stays_as_it_is(tmp_path: Path) -> None:
    policy = _program(tmp_path, "policy-rc.d", "exit 42")
    before = policy.read_bytes()
    with host_tools._no_services(policy):
        assert policy.read_bytes() == before
    assert policy.read_bytes() == before


def test_a_failing_command_is_told_with_its_own_last_words(tmp_path: Path) -> None:
    program = _program(tmp_path, "apt-get", "echo E: no network; exit 100")
    events: list[Event] = []
    with pytest.raises(EngineError, match="E: no network"):
        host_tools._run([str(program)], dict(os.environ), events.append)
    assert [event.kind for event in events] == ["start", "log", "failed"]
