"""The processes of `inv test`: what each runs, and how they end."""

from __future__ import annotations

import os
import py_compile
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
from invoke.context import Context

from slipway.core import Project, SlipwayError
from slipway.pipeline import test_suite as suite
from slipway.pipeline.test_suite import (
    IMAGE_WORKERS,
    WORKERS,
    _Job,
    _jobs,
    _run_jobs,
    _RunningJob,
)
from tests.support import clones
from tests.support.clones import ROOT

TESTS = ROOT / "tests"


def files_of(job: _Job) -> set[Path]:
    """As pytest takes the words: files and folders, less what is ignored."""
    ignored = {ROOT / word.partition("=")[2] for word in job.words if word.startswith("--ignore=")}
    found: set[Path] = set()
    for word in job.words:
        if not word.startswith("-"):
            path = ROOT / word
            assert path.exists(), word
            found |= {path} if path.is_file() else set(path.rglob("test_*.py"))
    return found - ignored


@pytest.mark.parametrize("unit", [True, False])
def test_every_test_is_in_one_job(unit: bool) -> None:
    with_image, without = _jobs(TESTS, unit=unit)
    files = [path for job in (*with_image, *without) for path in files_of(job)]
    assert len(files) == len(set(files))
    folders = ("unit", "system") if unit else ("system",)
    assert set(files) == {path for name in folders for path in (TESTS / name).rglob("test_*.py")}


class Workers:
    """In place of pytest: what a job is called is what its shell does."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.project = Project(ROOT, tmp_path)
        self.states: dict[str, str] = {}
        self.most = 0
        self.processes: list[subprocess.Popen[bytes]] = []
        monkeypatch.setattr(suite, "_pytest", self.start)
        monkeypatch.delenv("SLIPWAY_TEST_STATE", raising=False)

    def start(
        self, project: Project, script: str, *words: str, env: dict[str, str], stdout: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        at_work = [p for p in self.processes if p.returncode is None]
        self.most = max(self.most, len(at_work) + 1)
        self.states[script] = env["SLIPWAY_TEST_STATE"]
        self.processes.append(subprocess.Popen(["sh", "-c", script], env=env, stdout=stdout))
        return self.processes[-1]


def jobs(**scripts: str) -> list[_Job]:
    return [_Job(name, (script,)) for name, script in scripts.items()]


def test_all_jobs_are_done_and_failures_are_shown_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    workers = Workers(tmp_path, monkeypatch)
    plain = {f"job{number}": f"echo job {number} is done" for number in range(2 * WORKERS)}
    with pytest.raises(SlipwayError, match="exit code 3"):
        _run_jobs(workers.project, jobs(bad="echo bad; exit 3"), jobs(**plain))
    sys.stdout.flush()
    out = capfdbinary.readouterr().out.decode()
    assert all(f"job {number} is done" in out for number in range(2 * WORKERS))
    *before, last = out.splitlines()
    assert before[-1] == "bad"
    assert re.fullmatch(r"all jobs: \d+ s, \d+ s of CPU, \d+% of this machine's", last)
    assert workers.most <= WORKERS


def test_who_builds_the_image_waits_for_the_base_and_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Workers(tmp_path, monkeypatch)
    made, begun = tmp_path / "test-base" / "made", tmp_path / "begun"
    # The base is not made before jobs that need none have begun.
    every = " ".join(f"-e {begun}{number} -a" for number in range(WORKERS - IMAGE_WORKERS))
    script = f"until [ {every} . ]; do sleep 0.01; done; mkdir {made.parent}; touch {made}"
    process = subprocess.Popen(["sh", "-c", script])
    (tmp_path / "log").touch()
    base = _RunningJob(_Job("base", ()), WORKERS - 1, tmp_path / "log", process)
    images = {
        f"image{number}": f"[ -e $SLIPWAY_TEST_BASE/made ] # {number}"
        for number in range(2 * IMAGE_WORKERS)
    }
    plain = {f"plain{number}": f"touch {begun}{number}" for number in range(WORKERS)}
    with_image = [replace(job, builds_image=True) for job in jobs(**images)]
    _run_jobs(workers.project, with_image, jobs(**plain), base)
    assert set(workers.states) == {*images.values(), *plain.values()}
    # An engine that has run other tests would begin without the base.
    states = [{workers.states[script] for script in kind.values()} for kind in (images, plain)]
    assert not states[0] & states[1]
    assert len(states[0]) <= IMAGE_WORKERS


def test_an_interrupt_ends_what_runs_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Workers(tmp_path, monkeypatch)

    def interrupt(_: float) -> None:
        for process in workers.processes:  # as the terminal does it
            process.terminate()
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    sleeping = {f"job{number}": f"exec sleep 60 # {number}" for number in range(2 * WORKERS)}
    with pytest.raises(KeyboardInterrupt):
        _run_jobs(workers.project, [], jobs(**sleeping))
    assert len(workers.processes) == WORKERS
    assert all(process.poll() is not None for process in workers.processes)


ORPHAN = """
import os, subprocess, sys, time
busy = "import time\\nwhile time.process_time() < 0.5: pass"
start = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', sys.argv[1]]).pid)"
pid = subprocess.check_output([sys.executable, "-c", start, busy], stderr=subprocess.STDOUT)
while os.path.exists(f"/proc/{int(pid)}"):
    time.sleep(0.01)
sys.exit(7)
"""


def whole_job(script: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.support.whole_job", sys.executable, "-c", script]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_job_has_the_cpu_time_of_processes_that_left_their_parent() -> None:
    with whole_job(ORPHAN) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 7
    assert usage.ru_utime + usage.ru_stime >= 0.5


def test_a_job_keeps_the_bytecode_of_what_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    script = "import sys; print(sys.dont_write_bytecode)"
    with suite._whole_job(Project(ROOT, tmp_path), "-c", script, stdout=subprocess.PIPE) as job:
        assert job.communicate()[0] == b"False\n"


def test_a_clone_begins_with_the_bytecode_of_its_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout, (module, later) = tmp_path / "checkout", ("print('compiled')", "print('changed.')")
    checkout.mkdir()
    source = checkout / "module.py"
    source.write_text(module)
    compiled = Path(py_compile.compile(str(source), doraise=True) or "")
    half_written = compiled.with_name(f"{compiled.name}.140052")
    half_written.touch()
    before = source.stat()
    source.write_text(later)  # by size and time it is what was compiled
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))

    monkeypatch.setattr(clones, "ROOT", checkout)
    root = clones.Clone.make(tmp_path / "clone", tmp_path / "state").root
    command = [sys.executable, "-c", "import module"]
    assert subprocess.check_output(command, cwd=root) == b"compiled\n"
    assert [path.name for path in root.rglob("*.pyc*")] == [compiled.name]


def test_a_job_that_is_told_to_end_is_interrupted() -> None:
    script = "import time; print('begun', flush=True); time.sleep(60)"
    with whole_job(script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.terminate()
    assert process.returncode == 128 + signal.SIGINT


class Suite:
    """`inv test` with stand-ins: what makes the base is a shell script, and lint a function."""

    def __init__(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str, lint: Callable[[], None]
    ):
        self.workers = Workers(tmp_path, monkeypatch)
        self.base: subprocess.Popen[bytes] | None = None
        script = base

        def whole_job(project: Project, *words: str, **streams: Any) -> subprocess.Popen[bytes]:
            assert words[:2] == ("-m", "tests.support.shared_base")
            self.base = subprocess.Popen(["sh", "-c", script], **streams)
            return self.base

        monkeypatch.setattr(suite, "_whole_job", whole_job)
        monkeypatch.setattr(suite, "set_up_host", lambda tools: None)
        monkeypatch.setattr(suite, "_call", lambda c, command: lint())
        made = jobs(image=": image"), jobs(plain=": plain")
        monkeypatch.setattr(suite, "_jobs", lambda tests, unit: made)

    def run(self) -> None:
        suite.run_test_suite(Context(), self.workers.project)


def test_lint_that_fails_ends_what_makes_the_base_and_starts_no_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lint() -> None:
        raise SlipwayError("a line is too long")

    made = Suite(tmp_path, monkeypatch, "exec sleep 60", lint)
    with pytest.raises(SlipwayError, match="too long"):
        made.run()
    assert made.base is not None
    assert made.base.returncode == -signal.SIGTERM
    assert made.workers.states == {}


@pytest.mark.parametrize("base", [":", "echo it cannot be made; exit 5"])
def test_all_tests_run_whatever_becomes_of_the_base(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
    base: str,
) -> None:
    made = Suite(tmp_path, monkeypatch, base, lambda: None)
    made.run()
    assert set(made.workers.states) == {": image", ": plain"}
    sys.stdout.flush()
    assert ("it cannot be made" in capfdbinary.readouterr().out.decode()) == ("exit" in base)
