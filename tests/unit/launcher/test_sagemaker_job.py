"""`launch sagemaker` as a process: what users of sagemaker-training rely on."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.launcher.cluster import Cluster, cluster

#: As much of torch as torchrun needs to fail: its main and its error.
FAKE_TORCH = {
    "torch/__init__.py": "",
    "torch/distributed/__init__.py": "",
    "torch/distributed/elastic/__init__.py": "",
    "torch/distributed/elastic/multiprocessing/__init__.py": "",
    "torch/distributed/elastic/multiprocessing/errors.py": (
        "class Failure:\n    local_rank, exitcode, message = 0, 7, 'boom'\n"
        "class ChildFailedError(Exception):\n    failures = {0: Failure()}\n"
    ),
    "torch/distributed/run.py": (
        "import sys\n"
        "from torch.distributed.elastic.multiprocessing.errors import ChildFailedError\n"
        "def main():\n    print('torchrun', sys.argv[1:], flush=True)\n"
        "    if 'fail' in sys.argv:\n        raise ChildFailedError()\n"
    ),
}


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path, 1) as made:
        node = made.nodes[0]
        for name, text in FAKE_TORCH.items():
            path = tmp_path / "lib" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (tmp_path / "bin").mkdir()
        torchrun = tmp_path / "bin" / "torchrun"
        torchrun.write_text(f"#!{sys.executable}\nraise SystemExit('not the real one')\n")
        torchrun.chmod(0o755)
        node.env["PATH"] = f"{tmp_path}/bin:{node.env['PATH']}"
        node.env["PYTHONPATH"] = f"{tmp_path}/lib"
        node.env["LAUNCH_PREFLIGHT"] = "off"
        yield made


def success(made: Cluster) -> bool:
    return (made.nodes[0].ml / "output" / "success").exists()


def test_success_is_a_file_and_failure_takes_an_earlier_one_away(one: Cluster) -> None:
    one.script("import sys; sys.exit(len(sys.argv) - 1)")
    (first,) = one.train()
    assert (first.end(), success(one)) == (0, True)
    (second,) = one.train(args=["x"])
    assert (second.end(), success(one)) == (1, False)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["os.system('torchrun fail')"], 7),
        (["os.system('torchrun fail | cat')"], 7),
        (["subprocess.call(['torchrun', 'fail'])"], 7),
        (["os.system('torchrun fail')", "os.system('torchrun fine')"], 0),
        (["os.system('torchrun fine')"], 0),
        (["os.system('torchrun fine')", "os.system('torchrun fail')"], 7),
    ],
)
def test_a_torchrun_that_a_python_start_script_lost_is_no_success(
    one: Cluster, lines: list[str], code: int
) -> None:
    one.script("\n".join(["import os, subprocess", *lines]))
    (launch,) = one.train()
    assert launch.end() == code
    assert success(one) == (code == 0)
    if code:
        assert "rank 0" in one.nodes[0].failure


@pytest.mark.parametrize("runner", [[], ["--runner", "python"]])
def test_a_script_alone_on_the_command_line_is_given_the_hyperparameters(
    one: Cluster, runner: list[str]
) -> None:
    one.nodes[0].hyperparameters({"lr": 0.1, "sagemaker_region": "x", "text": "a b"})
    one.script("")
    launch = one.start(0, ["plan", "sagemaker", *runner, "--json", "--", "train.py"])
    assert launch.end() == 0
    plan = json.loads("\n".join(launch.lines))
    assert plan["commands"][0]["argv"][-4:] == ["--lr", "0.1", "--text", "a b"]
    assert plan["warnings"] == []


def test_arguments_on_the_command_line_stand_in_for_hyperparameters_and_that_is_said(
    one: Cluster,
) -> None:
    one.nodes[0].hyperparameters({"lr": 0.1})
    one.script("import os, sys; print(sys.argv[1:], os.environ['SM_HPS'])")
    (launch,) = one.train(args=["--epochs", "3"])
    assert launch.end() == 0
    assert "[r0] ['--epochs', '3'] {\"lr\":0.1}" in launch.lines
    assert "not the hyperparameters (lr)" in launch.events("warning")[0]["text"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('#!/bin/bash\necho bash ${BASH_VERSION:+yes} "$1"', "[r0] bash yes a b"),
        ('#!/bin/sh\necho sh "$1"', "[r0] sh a b"),
        ('for x in "$1"; do echo plain $x; done', "[r0] plain a b"),
        ('#!/usr/bin/env -S awk -f\nBEGIN { print "awk", ARGV[1] }', "[r0] awk a b"),
    ],
)
def test_a_script_without_an_ending_starts_by_its_first_line(
    one: Cluster, text: str, line: str
) -> None:
    one.script(text, name="start")
    launch = one.start(0, ["sagemaker", "--", "start", "a b"])
    assert launch.end() == 0
    assert line in launch.lines


def test_requirements_beside_the_code_are_installed_without_an_archive(one: Cluster) -> None:
    one.script("print('ran')")
    (one.nodes[0].ml / "code" / "requirements.txt").write_text("./no-such-directory\n")
    (launch,) = one.train()
    assert launch.end() == 1
    assert "pip could not install" in one.nodes[0].failure
    assert "[r0] ran" not in launch.lines


@pytest.mark.parametrize("size", [43_000, 120_000])
def test_large_hyperparameters_reach_the_script(one: Cluster, size: int) -> None:
    one.nodes[0].hyperparameters({"big": "x" * size, "sagemaker_program": "train.py"})
    one.script("import sys; print(len(sys.argv[2]))")
    launch = one.start(0, ["train"], LAUNCH_RUNNER="python")
    assert launch.end() == 0
    assert f"[r0] {size}" in launch.lines


def test_a_rank_killed_by_a_signal_names_the_line(one: Cluster) -> None:
    one.script("import os, signal\ndef step():\n    os.kill(os.getpid(), signal.SIGSEGV)\nstep()")
    (launch,) = one.train()
    assert launch.end() == 1
    assert one.nodes[0].failure.startswith("RankKilled: killed by SIGSEGV in ")
    assert "train.py, line 3 in step on rank 0" in one.nodes[0].failure


LINGERING_TORCHRUN = """
import os, subprocess, sys, time
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
def main():
    script = sys.argv[[word.endswith("train.py") for word in sys.argv].index(True):]
    env = {**os.environ, "RANK": "0", "LOCAL_RANK": "0"}
    code = subprocess.Popen([sys.executable, *script], env=env).wait()
    if code:
        raise ChildFailedError()
    time.sleep(600)  # as torchrun waits for those of other nodes
"""
SAVES = """
import signal, sys
def save(number, frame):
    print("saved", flush=True)
    sys.exit(int(sys.argv[1]))
signal.signal(signal.SIGTERM, save)
print("up", flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize("code", [0, 3])
def test_a_torchrun_that_waits_for_ended_nodes_does_not_hold_up_a_stop(
    one: Cluster, tmp_path: Path, code: int
) -> None:
    """Another node's torchrun was ended by the same stop: this one would wait for 300 s."""
    (tmp_path / "lib" / "torch" / "distributed" / "run.py").write_text(LINGERING_TORCHRUN)
    one.script(SAVES)
    launch = one.start(0, ["sagemaker", "--grace", "600", "--", "train.py", str(code)])
    launch.wait_for_line("up")
    time.sleep(2.5)  # the launcher has seen the rank, which it does every two seconds
    launch.signal(signal.SIGTERM)
    # A rank that saved well is a stop that went well; on SageMaker that is 0.
    assert launch.end() == (0 if code == 0 else 143)
    assert [bool(launch.events("dismissed")), success(one)] == [code == 0] * 2
