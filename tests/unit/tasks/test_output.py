"""Whatever becomes of the output: one sentence or nothing, an exit code, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CALLS = (
    "--list",
    "--version",
    "--help ship",
    "ship --help",
    "--print-completion-script bash",
    "matrix",
    "matrix.json",
    "no-such-task",
)


def inv(arguments: str, stdout: int, stderr: int, state: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "slipway.tasks.cli", "--search-root", str(ROOT), *arguments.split()],
        cwd=ROOT,
        env={**os.environ, "SLIPWAY_STATE": str(state)},
        stdout=stdout,
        stderr=stderr,
    )


@pytest.mark.parametrize("arguments", CALLS)
def test_a_reader_that_has_gone_ends_it_without_a_word(arguments: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    call = inv(arguments, writing, subprocess.PIPE, tmp_path)
    os.close(writing)
    _, errors = call.communicate()
    assert b"Traceback" not in errors
    assert b"BrokenPipe" not in errors
    assert call.returncode in (0, 1, 3)


@pytest.mark.parametrize("arguments", CALLS)
def test_a_full_disk_below_the_output_is_one_sentence(arguments: str, tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        call = inv(arguments, full.fileno(), subprocess.PIPE, tmp_path)
        _, errors = call.communicate()
    said = errors.decode()
    if arguments == "no-such-task":  # which prints nothing to stdout
        assert call.returncode == 3
    else:
        assert said.splitlines()[-1] == "inv: cannot write to <stdout>: No space left on device"
        assert call.returncode == 1
    assert "Traceback" not in said
    assert "Exception ignored" not in said


@pytest.mark.parametrize("arguments", CALLS)
def test_where_nothing_can_be_said_at_all_the_exit_code_is_left(
    arguments: str, tmp_path: Path
) -> None:
    with Path("/dev/full").open("wb") as full:
        call = inv(arguments, full.fileno(), full.fileno(), tmp_path)
        assert call.wait() != 0


def test_what_no_encoding_has_is_shown_all_the_same(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "slipway.tasks.cli", "--search-root", str(ROOT), b"no-such-t\xe4sk"],
        cwd=ROOT,
        env={
            **os.environ,
            "SLIPWAY_STATE": str(tmp_path),
            "PYTHONUTF8": "1",
            "PYTHONIOENCODING": "utf-8:strict",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert done.stderr.startswith("inv: No idea what 'no-such-t\\udce4sk' is!")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_standard_file_that_is_closed_is_as_the_null_device(closed: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "slipway.tasks.cli", "--search-root", str(ROOT), "matrix"]
    done = subprocess.run(
        ["/bin/bash", "-c", f'"$@" {closed}', "bash", *words],
        cwd=ROOT,
        env={**os.environ, "SLIPWAY_STATE": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "cannot write" not in done.stderr
    assert ("pytorch" in done.stdout) == (">&-" not in closed.replace("2>&-", ""))
