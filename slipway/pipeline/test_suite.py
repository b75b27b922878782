"""`inv test`: everything that must hold before a change lands, in one command."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
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

WITH_IMAGE = (
    ("pipeline", "local_base"),
    ("cluster/test_slurm.py", "cluster/test_fanout.py", "cluster/test_check.py"),
    ("examples",),
    ("launcher/test_image.py", "launcher/test_deepspeed.py"),
    ("wheels", "registry/test_upstream_bases.py"),
)
"""Of tests/system, what builds the default image or its base, the longest first. All that makes
nodes of Slurm stands together: their image is built, too."""

WITHOUT_IMAGE = (
    ("storage", "engine"),
    ("tasks", "resolve"),
    ("launcher",),
    ("append", "report"),
    ("registry", "soci"),
    ("cluster",),
)
"""What does without; folders that stand nowhere are a job of their own."""

WORKERS, IMAGE_WORKERS = 4, 2
"""Processes at once, each with an engine of its own: most of their time they wait, for Slurm, ranks
and disks. Few of them build the image, each in its own engine; these go on with the other jobs."""

DURATIONS = ("--durations=10", "--durations-min=5")

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
        _run_jobs(project, *_jobs(project.root / "tests", unit="unit" in chosen))
    elif chosen != {"lint"}:
        folders = [f"tests/{part}" for part in ("unit", "system") if part in chosen]
        _end(_pytest(project, *folders, *(["-k", k] if k else [])).wait())


def _test_state(project: Project) -> str:
    """Where the system tests' engines keep their files; each worker but the first adds a number."""
    return os.environ.get("SLIPWAY_TEST_STATE") or str(project.state / "test")


@contextmanager
def _base_parts(project: Project) -> Iterator[None]:
    """Beside the block, make what the embedded base consists of; then give a copy to those who
    build with it.

    It would cost each of them half a minute of CPU. Where it fails they make it, or say why not.
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
    for worker in range(IMAGE_WORKERS):
        cache = Path(_worker_state(state, worker), "cache")
        if parts.is_dir() and not cache.exists():
            shutil.copytree(parts, cache)


def _worker_state(state: str, worker: int) -> str:
    return f"{state}-{worker + 1}" if worker else state


@dataclass(frozen=True)
class _Job:
    """One process of pytest: `words` say what it runs."""

    name: str
    words: tuple[str, ...]


@dataclass
class _RunningJob:
    """A job at work. Its output is printed when it is over."""

    job: _Job
    worker: int
    log: Path
    process: subprocess.Popen[bytes]
    started: float = field(default_factory=time.monotonic)
    cpu_s: float = 0.0  # of all its processes, once it is over

    def has_ended(self) -> bool:
        """Whether it is over."""
        pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        if pid:
            self.process.returncode = os.waitstatus_to_exitcode(status)
            self.cpu_s = usage.ru_utime + usage.ru_stime
        return bool(pid)


def _jobs(tests: Path, *, unit: bool) -> tuple[list[_Job], list[_Job]]:
    """What builds the image, and the rest: every test of tests/system is in one of them."""
    system = tests / "system"
    named = [part for group in (*WITH_IMAGE, *WITHOUT_IMAGE) for part in group]
    rest = sorted(path.name for path in system.iterdir() if path.is_dir() and path.name[0] != "_")
    others = tuple(name for name in rest if name not in named)

    def job(group: tuple[str, ...]) -> _Job:
        apart = [part for part in named if part.rpartition("/")[0] in group]
        words = [f"tests/system/{part}" for part in group]
        words += [f"--ignore=tests/system/{part}" for part in apart]
        return _Job("-".join(Path(part).stem for part in group), tuple(words))

    first = [_Job("unit", ("tests/unit",))] if unit else []
    groups = (*WITHOUT_IMAGE, *([others] if others else []))
    return [job(group) for group in WITH_IMAGE], [*first, *map(job, groups)]


def _run_jobs(project: Project, with_image: list[_Job], without: list[_Job]) -> None:
    """Each worker takes the next job when it has done one, so that all end at about one time."""
    state = _test_state(project)
    project.logs.mkdir(parents=True, exist_ok=True)
    running: list[_RunningJob] = []
    failed: list[_RunningJob] = []
    codes: list[int] = []
    started, cpu_s = time.monotonic(), 0.0
    try:
        while with_image or without or running:
            for worker in set(range(WORKERS)) - {one.worker for one in running}:
                queue = with_image if worker < IMAGE_WORKERS and with_image else without
                if queue:
                    running.append(_start_job(project, queue.pop(0), worker, state))
            for one in [one for one in running if one.has_ended()]:
                running.remove(one)
                codes.append(one.process.returncode)
                cpu_s += one.cpu_s
                print(_times(one.job.name, time.monotonic() - one.started, one.cpu_s), flush=True)
                if codes[-1]:
                    failed.append(one)  # at the end, where they are seen
                else:
                    _show_log(one)
            time.sleep(0.2)
    except KeyboardInterrupt as interrupt:
        for one in running:
            if isinstance(interrupt, Terminated):  # Ctrl-C reaches them by the terminal
                one.process.terminate()
        for one in running:
            one.process.wait()
        raise
    for one in failed:
        _show_log(one)
    took_s = time.monotonic() - started
    busy = cpu_s / (took_s * (os.cpu_count() or 1))
    print(f"{_times('all jobs', took_s, cpu_s)}, {busy:.0%} of this machine's", flush=True)
    _end(*codes)


def _times(name: str, took_s: float, cpu_s: float) -> str:
    return f"{name}: {took_s:.0f} s, {cpu_s:.0f} s of CPU"


def _start_job(project: Project, job: _Job, worker: int, state: str) -> _RunningJob:
    log = project.logs / f"test-{job.name}.log"
    with log.open("wb") as stream:
        process = _pytest(
            project, *job.words, *DURATIONS, state=_worker_state(state, worker), stdout=stream
        )
    return _RunningJob(job, worker, log, process)


def _show_log(one: _RunningJob) -> None:
    sys.stdout.buffer.write(one.log.read_bytes())
    sys.stdout.buffer.flush()


def _pytest(
    project: Project, *arguments: str, state: str = "", stdout: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    env = {**os.environ, **({"SLIPWAY_TEST_STATE": state} if state else {})}
    pytest = [sys.executable, "-m", "pytest", *arguments]
    command = [sys.executable, "-m", "tests.support.whole_job", *pytest]
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
