"""`inv test`: everything that must hold before a change lands, in one command."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    ("cluster/test_slurm.py", "cluster/test_fanout.py", "cluster/test_check.py"),
    ("pipeline/test_ship.py", "local_base"),
    ("examples", "launcher/test_deepspeed.py"),
    ("pipeline/test_shared_images.py", "pipeline/test_sources.py"),
    ("launcher/test_image.py",),
    ("wheels", "registry/test_upstream_bases.py"),
)
"""Of tests/system, what builds the default image or its base, the longest first. What makes the
same thing stands together: nodes of Slurm, whose image is built, and DeepSpeed's operator, which is
compiled for a minute."""

WITHOUT_IMAGE = (
    ("storage", "engine"),
    ("tasks", "resolve"),
    ("launcher",),
    ("append", "report"),
    ("registry", "soci"),
    ("pipeline",),
    ("cluster",),
)
"""What does without; folders that stand nowhere are a job of their own."""

WORKERS, IMAGE_WORKERS = 5, 3
"""Processes at once, each with an engine of its own: most of their time they wait, for Slurm, ranks
and disks. Some build the image, each with gigabytes of its own; these go on with the other jobs.
They begin when the base has been made, which is so with few beside it."""

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
    if "system" in chosen and not side_by_side:
        set_up_host(TEST_TOOLS)
    with _shared_base(project) if side_by_side else nullcontext() as base:
        if "lint" in chosen:
            with c.cd(project.root):
                for command in lint_commands(project):
                    _call(c, command)
        if base:
            _run_jobs(project, *_jobs(project.root / "tests", unit="unit" in chosen), base.result())
    if not side_by_side and chosen != {"lint"}:
        folders = [f"tests/{part}" for part in ("unit", "system") if part in chosen]
        _end(_pytest(project, *folders, *(["-k", k] if k else [])).wait())


def _test_state(project: Project) -> str:
    """Where the system tests' engines keep their files; each worker but the first adds a number."""
    return os.environ.get("SLIPWAY_TEST_STATE") or str(project.state / "test")


def _base_state(project: Project) -> str:
    return f"{_test_state(project)}-base"


@dataclass(frozen=True)
class _Job:
    """One process of pytest: `words` say what it runs."""

    name: str
    words: tuple[str, ...]
    builds_image: bool = False


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


@contextmanager
def _shared_base(project: Project) -> Iterator[Future[_RunningJob]]:
    """Beside the block, what is missing on this machine is installed; then the default image and
    its base are made once for all who build them: minutes of CPU. That has the place of the last
    worker.
    """
    job = _Job("base", ("tests.support.shared_base", _base_state(project)))

    def begin() -> _RunningJob:
        set_up_host(TEST_TOOLS)
        log = _log(project, job)
        with log.open("wb") as stream:
            process = _whole_job(project, "-m", *job.words, stdout=stream, stderr=stream)
        return _RunningJob(job, WORKERS - 1, log, process)

    with ThreadPoolExecutor(1) as beside:
        begun = beside.submit(begin)
        try:
            yield begun
        except BaseException as error:
            if begun.exception() is None:
                process = begun.result().process
                if not isinstance(error, KeyboardInterrupt) or isinstance(error, Terminated):
                    process.terminate()  # Ctrl-C reaches it by the terminal
                process.wait()
            raise


def _jobs(tests: Path, *, unit: bool) -> tuple[list[_Job], list[_Job]]:
    """What builds the image, and the rest: every test of tests/system is in one of them."""
    system = tests / "system"
    named = [part for group in (*WITH_IMAGE, *WITHOUT_IMAGE) for part in group]
    rest = sorted(path.name for path in system.iterdir() if path.is_dir() and path.name[0] != "_")
    others = tuple(name for name in rest if name not in named)

    def job(group: tuple[str, ...], *, builds_image: bool = False) -> _Job:
        apart = [part for part in named if part.rpartition("/")[0] in group]
        words = [f"tests/system/{part}" for part in group]
        words += [f"--ignore=tests/system/{part}" for part in apart]
        return _Job("-".join(Path(part).stem for part in group), tuple(words), builds_image)

    first = [_Job("unit", ("tests/unit",))] if unit else []
    groups = (*WITHOUT_IMAGE, *([others] if others else []))
    with_image = [job(group, builds_image=True) for group in WITH_IMAGE]
    return with_image, [*first, *map(job, groups)]


def _run_jobs(
    project: Project,
    with_image: list[_Job],
    without: list[_Job],
    base: _RunningJob | None = None,
) -> None:
    """Each worker takes the next job when it has done one, so that all end at about one time.

    Those that build the image begin when the `base` has been made.
    """
    running = [base] if base else []
    failed: list[_RunningJob] = []
    codes: list[int] = []
    started, cpu_s = time.monotonic(), 0.0
    try:
        while with_image or without or running:
            for worker in set(range(WORKERS)) - {one.worker for one in running}:
                builds = worker >= WORKERS - IMAGE_WORKERS
                queue = with_image if builds and with_image else without
                if queue and not (builds and base in running):
                    running.append(_start_job(project, queue.pop(0), worker))
            for one in [one for one in running if one.has_ended()]:
                running.remove(one)
                cpu_s += one.cpu_s
                print(_times(one.job.name, time.monotonic() - one.started, one.cpu_s), flush=True)
                if one is not base:  # those who need it make it as well, or say why not
                    codes.append(one.process.returncode)
                if one.process.returncode:
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


def _log(project: Project, job: _Job) -> Path:
    project.logs.mkdir(parents=True, exist_ok=True)
    return project.logs / f"test-{job.name}.log"


def _start_job(project: Project, job: _Job, worker: int) -> _RunningJob:
    state = f"{_test_state(project)}{'-image' * job.builds_image}{f'-{worker + 1}' * bool(worker)}"
    env = {"SLIPWAY_TEST_STATE": state}
    if job.builds_image:
        env["SLIPWAY_TEST_BASE"] = _base_state(project)
    log = _log(project, job)
    with log.open("wb") as stream:
        process = _pytest(project, *job.words, *DURATIONS, env=env, stdout=stream)
    return _RunningJob(job, worker, log, process)


def _show_log(one: _RunningJob) -> None:
    sys.stdout.buffer.write(one.log.read_bytes())
    sys.stdout.buffer.flush()


def _pytest(project: Project, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    return _whole_job(project, "-m", "pytest", *arguments, **options)


def _whole_job(
    project: Project, *arguments: str, env: Mapping[str, str] | None = None, **streams: Any
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.support.whole_job", sys.executable, *arguments]
    environment = {**os.environ, **(env or {})}
    # Tests start `inv` hundreds of times: compiling all of it costs more than most of them do.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.Popen(command, cwd=project.root, env=environment, **streams)


def _end(*codes: int) -> None:
    if any(codes):
        raise SlipwayError(f"`python -m pytest ...` failed (exit code {max(codes)})")


def _call(c: Context, command: Sequence[str]) -> None:
    shown = " ".join([Path(command[0]).name, *command[1:3]])
    result = c.run(shlex.join(command), warn=True, pty=False)
    if result is None or not result.ok:
        code = result.exited if result is not None else "none"
        raise SlipwayError(f"`{shown} ...` failed (exit code {code})")
