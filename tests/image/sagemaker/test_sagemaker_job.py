"""The image as SageMaker starts it: `train` through the ENTRYPOINT, with /opt/ml."""

from __future__ import annotations

import json

from slipway.verify.plugin import Launch

SCRIPT = """
import json, os, sys
print("ARGUMENTS", json.dumps(sys.argv[1:]))
print("HOSTS", os.environ.get("SM_HOSTS"))
with open("/opt/ml/model/done", "w") as file:
    file.write("trained")
"""

FAILING = """
import sys
print("about to fail")
sys.exit(7)
"""

RAISING = "raise ValueError('the loss is not a number')"


def arguments(log: str) -> list[str]:
    line = next(line for line in log.splitlines() if "ARGUMENTS " in line)
    found: list[str] = json.loads(line.partition("ARGUMENTS ")[2])
    return found


def test_a_job_that_succeeds_ends_with_0_and_leaves_its_model(train: Launch) -> None:
    done = train(SCRIPT, {"epochs": 3, "name": "two words"})
    assert done.exit_code == 0, done.log
    assert done.files["/opt/ml/model/done"] == b"trained"
    assert "/opt/ml/output/failure" not in done.files
    given = arguments(done.log)
    assert dict(zip(given[::2], given[1::2], strict=True)) == {
        "--epochs": "3",
        "--name": "two words",
    }


def test_hyperparameters_are_never_executed(train: Launch) -> None:
    evil = {
        "first": "x; echo INJECTED-$((40+2))",
        "second": "$(echo INJECTED-$((40+2)))",
        "third": "`echo INJECTED-$((40+2))`",
        "fourth": "x' && echo INJECTED-$((40+2)) && '",
        "fifth": "x | tee /opt/ml/model/injected",
    }
    done = train(SCRIPT, evil)
    assert done.exit_code == 0, done.log
    given = arguments(done.log)
    assert dict(zip(given[::2], given[1::2], strict=True)) == {f"--{k}": v for k, v in evil.items()}
    assert "INJECTED-42" not in done.log
    assert "/opt/ml/model/injected" not in done.files


def test_a_job_that_fails_does_not_end_with_0_and_says_so(train: Launch) -> None:
    done = train(FAILING)
    assert "about to fail" in done.log
    assert done.exit_code != 0
    assert done.files["/opt/ml/output/failure"].strip() != b""


def test_an_exception_is_told_in_the_log_and_fails_the_job(train: Launch) -> None:
    done = train(RAISING)
    assert done.exit_code != 0
    assert "the loss is not a number" in done.log


def test_the_launchers_own_runner_runs_a_job(train: Launch) -> None:
    done = train(SCRIPT, {"launch_runner": "python", "launch_script": "train.py", "lr": 0.1})
    assert done.exit_code == 0, done.log
    assert done.files["/opt/ml/model/done"] == b"trained"
    assert arguments(done.log) == ["--lr", "0.1"]
