"""`inv test`: everything that must hold before a change lands, in one command."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from invoke.context import Context

from slipway.core import Project, SlipwayError, Terminated, UsageError, tree_files
from slipway.pipeline.host_tools import HostTool, set_up_host

TEST_TOOLS = (
    HostTool("mkfs.ext4", "e2fsprogs", "small disks for the system tests", "e2fsprogs"),
    HostTool("mkfs.xfs", "xfsprogs", "small disks for the system tests", "xfsprogs"),
    HostTool("node", "nodejs", "a linter of workflows for the system tests", "nodejs"),
    HostTool("npm", "npm", "a linter of workflows for the system tests", "npm"),
    HostTool("pgrep", "procps", "looking for what a test left running", "procps-ng"),
    HostTool("zsh", "zsh", "trying its completion", "zsh"),
    HostTool("fish", "fish", "trying its completion", "fish"),
)
"""What only the system tests need."""

SECOND_HALF = ("cluster", "examples", "launcher")
"""Folders of tests/system that run beside the others: about half of the time, nearly all of it
spent waiting for Slurm and for ranks."""

SHELL_SCRIPTS = ("inv", ".ci/run", "images/local", "entrypoints")


def _shell_scripts(root: Path) -> list[str]:
    found = []
    for name in SHELL_SCRIPTS:
        place = root / name
        for path in tree_files(place) if place.is_dir() else [place]:
            with path.open("rb") as stream:
                first = stream.readline()
            if path.suffix == ".sh" or first.startswith((b"#!/bin/sh", b"#!/bin/bash")):
                found.append(path.relative_to(root).as_posix())
    return found


def lint_commands(project: Project) -> list[list[str]]:
    """Lint, types and drift; each must exit with 0."""
    tool = Path(sys.executable).parent
    dockerfiles = sorted(str(path) for path in project.generated.glob("*/Dockerfile"))
    return [
        [str(tool / "ruff"), "check"],
        [str(tool / "ruff"), "format", "--check"],
        [str(tool / "mypy")],
        [str(tool / "shellcheck"), *_shell_scripts(project.root)],
        [str(tool / "hadolint"), "--config", ".hadolint.yaml", *dockerfiles],
        [sys.executable, "-m", "slipway.tasks.cli", "generate", "--check"],
    ]


def run_test_suite(c: Context, project: Project, only: str = "", k: str = "") -> None:
    """Run the parts that `only` names (all of them by default); the first that fails ends it."""
    parts = {"lint", "unit", "system"}
    if only and only not in parts:
        raise UsageError(f"there is no part {only!r}", cure=f"One of {', '.join(sorted(parts))}.")
    chosen = {only} if only else parts
    with c.cd(project.root):
        if "lint" in chosen:
            for command in lint_commands(project):
                _call(c, command)
    folders = [f"tests/{part}" for part in ("unit", "system") if part in chosen]
    if "system" in chosen:
        set_up_host(TEST_TOOLS)
    if k or "system" not in chosen:
        _end(_pytest(project, *folders, *(["-k", k] if k else [])).wait())
        return
    _side_by_side(project, folders)


def _side_by_side(project: Project, folders: Sequence[str]) -> None:
    """Two halves at once, each with an engine of its own: what they do most is to wait."""
    others = [f"tests/system/{name}" for name in SECOND_HALF]
    log = project.logs / "test-second-half.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    state = os.environ.get("SLIPWAY_TEST_STATE") or str(project.state / "test")
    with log.open("wb") as stream:
        halves = [
            _pytest(project, *others, state=f"{state}-2", stdout=stream),
            _pytest(project, *folders, *(f"--ignore={name}" for name in others)),
        ]
        try:
            codes = [half.wait() for half in halves]
        except KeyboardInterrupt as interrupt:
            for half in halves:
                if isinstance(interrupt, Terminated):  # Ctrl-C reaches them by the terminal
                    half.send_signal(signal.SIGINT)
                half.wait()
            raise
    sys.stdout.flush()
    sys.stdout.buffer.write(log.read_bytes())
    sys.stdout.buffer.flush()
    _end(*codes)


def _pytest(
    project: Project, *arguments: str, state: str = "", stdout: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    env = {**os.environ, **({"SLIPWAY_TEST_STATE": state} if state else {})}
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.Popen(command, cwd=project.root, env=env, stdout=stdout)


def _end(*codes: int) -> None:
    if any(codes):
        raise SlipwayError(f"`python -m pytest ...` failed (exit code {max(codes)})")


def _call(c: Context, command: Sequence[str]) -> None:
    shown = " ".join([Path(command[0]).name, *command[1:3]])
    result = c.run(shlex.join(command), warn=True, pty=False)
    if result is None or not result.ok:
        code = result.exited if result is not None else "none"
        raise SlipwayError(f"`{shown} ...` failed (exit code {code})")
