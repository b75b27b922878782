"""`inv test`: everything that must hold before a change lands, in one command."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from invoke.context import Context

from slipway.core import Project, SlipwayError, UsageError, tree_files
from slipway.pipeline.host_tools import HostTool
from slipway.pipeline.host_tools import set_up_host as prepare

TEST_TOOLS = (
    HostTool("mkfs.ext4", "e2fsprogs", "small disks for the system tests", "e2fsprogs"),
    HostTool("mkfs.xfs", "xfsprogs", "small disks for the system tests", "xfsprogs"),
    HostTool("node", "nodejs", "a linter of workflows for the system tests", "nodejs"),
    HostTool("npm", "npm", "a linter of workflows for the system tests", "npm"),
    HostTool("pgrep", "procps", "looking for what a test left running", "procps-ng"),
)
"""What only the system tests need."""

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
            prepare(TEST_TOOLS)
        if folders:
            _call(c, [sys.executable, "-m", "pytest", *folders, *(["-k", k] if k else [])])


def _call(c: Context, command: Sequence[str]) -> None:
    shown = " ".join([Path(command[0]).name, *command[1:3]])
    result = c.run(shlex.join(command), warn=True, pty=False)
    if result is None or not result.ok:
        code = result.exited if result is not None else "none"
        raise SlipwayError(f"`{shown} ...` failed (exit code {code})")
