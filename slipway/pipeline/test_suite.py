"""`inv test`: everything that must hold before a change lands, in one command."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
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
    HostTool("chromium", "chromium", "a browser for the report's pages", "chromium"),
    HostTool("pgrep", "procps", "looking for what a test left running", "procps-ng"),
    HostTool("dnf", "dnf", "resolving rpms", "dnf"),
    HostTool("rpmbuild", "rpm", "making rpms for the system tests", "rpm-build"),
    HostTool("createrepo_c", "createrepo-c", "a repository of rpms", "createrepo_c"),
    HostTool("gpg", "gnupg", "signing archives for the system tests", "gnupg2"),
    HostTool("zsh", "zsh", "trying its completion", "zsh"),
    HostTool("fish", "fish", "trying its completion", "fish"),
)
"""What only the system tests need."""

LANES = {
    "launcher": ("cluster", "launcher"),
    "files": (
        *("engine", "sqsh", "squashfs", "storage"),
        *("registry", "resolve", "soci", "tasks", "verify", "wheels"),
    ),
}
"""Folders of tests/system that run beside the others, each lane with an engine of its own. They are
chosen to take about as long as what is left: most of it is waiting, for Slurm, ranks and disks."""

DURATIONS = ("--durations=15", "--durations-min=5")

SHELL_SCRIPTS = (
    *("inv", ".ci/run", "images/local", "images/context", "entrypoints"),
    "slipway/cluster/documents/lifecycle",
)


def _shell_scripts(root: Path) -> list[str]:
    scripts = []
    for name in SHELL_SCRIPTS:
        subject = root / name
        for path in tree_files(subject) if subject.is_dir() else [subject]:
            with path.open("rb") as stream:
                first = stream.readline()
            if path.suffix == ".sh" or first.startswith((b"#!/bin/sh", b"#!/bin/bash")):
                scripts.append(path.relative_to(root).as_posix())
    return scripts


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
    """Run the parts that `only` names (all by default); lint that fails ends it."""
    parts = {"lint", "unit", "system"}
    if only and only not in parts:
        raise UsageError(f"there is no part {only!r}", cure=f"One of {', '.join(sorted(parts))}.")
    chosen = {only} if only else parts
    side_by_side = "system" in chosen and not k
    if "system" in chosen:
        set_up_host(TEST_TOOLS)
    with _base_parts(project) if side_by_side else nullcontext(), c.cd(project.root):
        if "lint" in chosen:
            for command in lint_commands(project):
                _call(c, command)
    if side_by_side:
        _side_by_side(project, unit="unit" in chosen)
    elif chosen != {"lint"}:
        folders = [f"tests/{part}" for part in ("unit", "system") if part in chosen]
        _end(_pytest(project, *folders, *(["-k", k] if k else [])).wait())


def _test_state(project: Project) -> str:
    """Where the system tests' engines keep their files; a lane adds its name."""
    return os.environ.get("SLIPWAY_TEST_STATE") or str(project.state / "test")


@contextmanager
def _base_parts(project: Project) -> Iterator[None]:
    """Beside the block, make what the embedded base consists of; then give each lane a copy.

    It would cost every lane half a minute of CPU. Where it fails the lanes make it, or say why not.
    """
    state = _test_state(project)
    project.logs.mkdir(parents=True, exist_ok=True)
    with (project.logs / "test-base.log").open("wb") as log:
        command = [sys.executable, "-m", "tests.support.base_parts", f"{state}-parts"]
        process = subprocess.Popen(command, cwd=project.root, stdout=log, stderr=log)
        try:
            yield
            process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    parts = Path(f"{state}-parts", "cache")
    for lane in ("", *(f"-{name}" for name in LANES)):
        if parts.is_dir() and not Path(f"{state}{lane}", "cache").exists():
            shutil.copytree(parts, Path(f"{state}{lane}", "cache"))


def _side_by_side(project: Project, *, unit: bool) -> None:
    """All lanes at once, the unit tests first in that of files.

    What the lane of all other folders prints is seen at once, the rest at the end.
    """
    state = _test_state(project)
    lanes = {name: [f"tests/system/{folder}" for folder in LANES[name]] for name in LANES}
    others = [f"--ignore={folder}" for folders in lanes.values() for folder in folders]
    if unit:
        lanes["files"].insert(0, "tests/unit")
    project.logs.mkdir(parents=True, exist_ok=True)
    logs = [project.logs / f"test-{name}.log" for name in lanes]
    with ExitStack() as stack:
        started = [
            _pytest(
                project,
                *(*words, *DURATIONS),
                state=f"{state}-{name}",
                stdout=stack.enter_context(log.open("wb")),
            )
            for log, (name, words) in zip(logs, lanes.items(), strict=True)
        ]
        started.append(_pytest(project, "tests/system", *others, *DURATIONS, state=state))
        try:
            codes = [lane.wait() for lane in started]
        except KeyboardInterrupt as interrupt:
            for lane in started:
                if isinstance(interrupt, Terminated):  # Ctrl-C reaches them by the terminal
                    lane.send_signal(signal.SIGINT)
                lane.wait()
            raise
    sys.stdout.flush()
    for log in logs:
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
