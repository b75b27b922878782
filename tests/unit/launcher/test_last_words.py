"""What is said of a rank that ended without a traceback, or by a signal: real Python's words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.ranks import diagnosis
from launcher.ranks.diagnosis import Exit

ARGPARSE = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, required=True)
parser.parse_args()
"""


def run(tmp_path: Path, script: str, *args: str, name: str = "train.py") -> tuple[int, Path]:
    """A real rank's exit code and log."""
    (tmp_path / name).write_text(script)
    log = tmp_path / "rank0.log"
    with log.open("wb") as sink:
        code = subprocess.run(
            [sys.executable, "-u", name, *args],
            cwd=tmp_path,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONFAULTHANDLER": "1"},
        ).returncode
    return code, log


def headline(code: int, log: Path) -> str:
    (cause,) = diagnosis.causes_of_exits([Exit(0, code)], {log: 0})
    return cause.headline()


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--lr", "x"], "train.py: error: argument --lr: invalid float value: 'x'"),
        ([], "train.py: error: the following arguments are required: --lr"),
        (["--lr", "1", "--foo"], "train.py: error: unrecognized arguments: --foo"),
    ],
)
def test_argparse_errors_are_the_message(tmp_path: Path, args: list[str], text: str) -> None:
    code, log = run(tmp_path, "print('loading')\n" + ARGPARSE, *args)
    assert code == 2
    assert headline(code, log) == f"TrainingError: {text} on rank 0"


@pytest.mark.parametrize("text", ["no data in /opt/ml/input", "a: b: c", "ü"])
def test_what_sys_exit_was_given_is_shown(tmp_path: Path, text: str) -> None:
    code, log = run(tmp_path, f"import sys\nprint('step 1')\nsys.exit({text!r})")
    assert headline(code, log) == f"TrainingError: exit code 1: {text} on rank 0"


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("x = 1\ndef f(:\n    pass\n", "SyntaxError: "),
        ("if 1:\nx = 1\n", "IndentationError: expected an indented block"),
        ("if 1:\n\tx = 1\n        y = 2\n", "TabError: "),
        ("print('never closed'\n", "SyntaxError: '(' was never closed"),
    ],
)
def test_a_script_that_is_no_python_is_told_by_file_and_line(
    tmp_path: Path, script: str, error: str
) -> None:
    code, log = run(tmp_path, script)
    text = headline(code, log)
    assert text.startswith(f"TrainingError: {error}")
    assert "train.py, line " in text


def test_a_script_that_can_not_be_opened_is_told(tmp_path: Path) -> None:
    log = tmp_path / "rank0.log"
    with log.open("wb") as sink:
        argv = [sys.executable, "gone.py"]
        code = subprocess.run(argv, cwd=tmp_path, stdout=sink, stderr=sink).returncode
    assert "can't open file" in headline(code, log)
    assert "No such file or directory" in headline(code, log)


def test_without_any_output_there_is_only_the_code(tmp_path: Path) -> None:
    code, log = run(tmp_path, "raise SystemExit(7)")
    assert headline(code, log) == "TrainingError: exit code 7, no traceback on rank 0"


def test_standard_error_is_believed_before_standard_output(tmp_path: Path) -> None:
    (tmp_path / "stdout.log").write_text("step 99\n")
    (tmp_path / "stderr.log").write_text("no data\n")
    logs = {tmp_path / name: 3 for name in ("stdout.log", "stderr.log")}
    (cause,) = diagnosis.causes_of_exits([Exit(3, 1)], logs)
    assert cause.message == "exit code 1: no data"


def test_an_argparse_error_of_long_ago_is_not_the_reason(tmp_path: Path) -> None:
    log = tmp_path / "rank0.log"
    log.write_text("tool.py: error: no\n" + "step\n" * 50 + "the end\n")
    assert headline(1, log) == "TrainingError: exit code 1: the end on rank 0"


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL"])
@pytest.mark.parametrize("threads", [0, 40])
def test_a_rank_that_a_signal_ends_shows_its_python_stack(
    tmp_path: Path, name: str, threads: int
) -> None:
    script = (
        "import os, signal, threading\n"
        f"for _ in range({threads}):\n"
        "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "def step():\n"
        f"    os.kill(os.getpid(), signal.{name})\n"
        "step()\n"
    )
    code, log = run(tmp_path, script)
    assert code == -getattr(signal, name)
    (cause,) = diagnosis.causes_of_exits([Exit(0, code)], {log: 0})
    assert cause.message.startswith(f"killed by {name} in ")
    assert cause.message.endswith("train.py, line 5 in step")
    assert "line 6 in <module>" in cause.detail


def test_an_abort_shows_the_stack_of_the_thread_that_aborted(tmp_path: Path) -> None:
    code, log = run(tmp_path, "import os\ndef step():\n    os.abort()\nstep()\n")
    (cause,) = diagnosis.causes_of_exits([Exit(0, code)], {log: 0})
    assert cause.message == "Fatal Python error: Aborted"
    assert "line 3 in step" in cause.detail


def test_a_traceback_of_long_ago_is_no_stack_of_a_killed_rank(tmp_path: Path) -> None:
    log = tmp_path / "rank0.log"
    log.write_text('Traceback (most recent call last):\n  File "x.py", line 1\nValueError: old\n')
    (cause,) = diagnosis.causes_of_exits([Exit(0, -11)], {log: 0})
    assert (cause.message, cause.detail) == ("killed by SIGSEGV", "")


@given(st.text())
def test_no_output_breaks_the_search_for_last_words(text: str) -> None:
    diagnosis.parse_last_words(text)
