"""The plugin that checks of images run under, with checks that need no engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.verify.check_process import TESTINFRA

CHECKOUT = Path(__file__).parents[3]
CHECKS = """
import pytest

def test_passes():
    pass

def test_fails():
    assert 1 + 1 == 3, "sums are odd"

@pytest.mark.gpu
def test_needs_a_gpu():
    assert False, "the GPU check ran"

@pytest.fixture
def broken():
    raise RuntimeError("the fixture is broken")

def test_cannot_start(broken):
    pass
"""


@dataclass(frozen=True)
class Ran:
    code: int
    said: list[dict[str, Any]]
    output: str

    def failures(self) -> dict[str, str]:
        return {
            said["check"].rpartition("::")[2]: said["message"]
            for said in self.said
            if said["what"] == "failed"
        }


def run(folder: Path, checks: str, *options: str, block: str = TESTINFRA) -> Ran:
    (folder / "test_checks.py").write_text(checks)
    (folder / "pytest.ini").write_text("[pytest]\n")
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "pytest", "-p", "slipway.verify.plugin", "-p", f"no:{block}"]
    command += ["-p", "no:cacheprovider", "-c", str(folder / "pytest.ini")]
    command += [f"--slipway-report={writing}", "--slipway-subject=unused", *options, str(folder)]
    try:
        done = subprocess.run(
            command,
            pass_fds=[writing],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)
    with os.fdopen(reading) as stream:
        said = [json.loads(line) for line in stream]
    return Ran(done.returncode, said, done.stdout + done.stderr)


def test_each_check_is_told_and_those_that_need_a_gpu_are_left_out_and_counted(
    tmp_path: Path,
) -> None:
    ran = run(tmp_path, CHECKS)
    assert ran.code == 1
    assert ran.said[0] == {"what": "start", "total": 3, "deselected": 1}
    passed = [said["check"] for said in ran.said if said["what"] == "passed"]
    assert [check.rpartition("::")[2] for check in passed] == ["test_passes"]
    assert "sums are odd" in ran.failures()["test_fails"]
    assert "the fixture is broken" in ran.failures()["test_cannot_start"]
    assert "test_needs_a_gpu" not in json.dumps(ran.said)


def test_with_a_gpu_none_is_left_out(tmp_path: Path) -> None:
    ran = run(tmp_path, CHECKS, "--slipway-gpu")
    assert ran.said[0] == {"what": "start", "total": 4, "deselected": 0}
    assert "the GPU check ran" in ran.failures()["test_needs_a_gpu"]


def test_a_file_of_checks_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    ran = run(tmp_path, "def test(:\n")
    assert ran.code == 2
    assert "SyntaxError" in str(ran.failures())


LEAVING = """
import pytest

def test_skips():
    pytest.skip("no reason")

def test_is_expected_to_fail():
    pytest.xfail("no reason")

@pytest.mark.skip("no reason")
def test_is_marked():
    pass

def test_misses_a_module():
    pytest.importorskip("no_such_module")
"""


def test_a_check_may_not_leave_itself_out(tmp_path: Path) -> None:
    ran = run(tmp_path, LEAVING)
    assert ran.said[0]["total"] == len(ran.failures()) == 4
    assert all("it left itself out" in message for message in ran.failures().values())


def test_testinfras_own_host_is_never_used(tmp_path: Path) -> None:
    # It would be the machine that the checks run on.
    ran = run(tmp_path, CHECKS, block="nothing")
    assert ran.code == 4
    assert "./inv verify" in ran.output
