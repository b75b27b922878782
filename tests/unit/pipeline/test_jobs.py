"""The processes of `inv test`: what each runs, and how they end."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest

from slipway.core import Project, SlipwayError
from slipway.pipeline import test_suite as suite
from slipway.pipeline.test_suite import IMAGE_WORKERS, WORKERS, _Job, _jobs, _run_jobs
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
        self, project: Project, script: str, *words: str, state: str, stdout: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        at_work = [p for p in self.processes if p.poll() is None]
        self.most = max(self.most, len(at_work) + 1)
        self.states[script] = state
        self.processes.append(subprocess.Popen(["sh", "-c", script], stdout=stdout))
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
    assert out.endswith("bad\n")
    assert workers.most <= WORKERS


def test_few_workers_build_the_image_and_then_take_other_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Workers(tmp_path, monkeypatch)
    held = {f"image{number}": f": image {number}" for number in range(2 * IMAGE_WORKERS)}
    plain = {f"job{number}": f": job {number}" for number in range(2 * WORKERS)}
    _run_jobs(workers.project, jobs(**held), jobs(**plain))
    assert len({workers.states[script] for script in held.values()}) <= IMAGE_WORKERS
    assert set(workers.states) == {*held.values(), *plain.values()}


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
