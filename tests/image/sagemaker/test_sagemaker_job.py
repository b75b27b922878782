"""The image as SageMaker starts it: `train` through the ENTRYPOINT, with /opt/ml."""

from __future__ import annotations

import json

from slipway.verify.check_containers import LaunchedJob
from slipway.verify.plugin import Launch

# What it was given goes into a file: sagemaker-training prints a line of stdout as two at times.
SCRIPT = """
import json, sys
with open("/opt/ml/model/arguments", "w") as file:
    json.dump(sys.argv[1:], file)
"""

FAILING = """
import sys
print("about to fail")
sys.exit(7)
"""

RAISING = "raise ValueError('the loss is not a number')"


def arguments(done: LaunchedJob) -> list[str]:
    assert done.exit_code == 0, done.log
    found: list[str] = json.loads(done.files["/opt/ml/model/arguments"])
    return found


def pairs(words: list[str]) -> dict[str, str]:
    return dict(zip(words[::2], words[1::2], strict=True))


def test_a_job_that_succeeds_ends_with_0_and_leaves_its_model(train: Launch) -> None:
    done = train(SCRIPT, {"epochs": 3, "name": "two words"})
    assert pairs(arguments(done)) == {"--epochs": "3", "--name": "two words"}
    assert "/opt/ml/output/failure" not in done.files


def test_hyperparameters_are_never_executed(train: Launch) -> None:
    evil = {
        "first": "x; echo INJECTED-$((40+2))",
        "second": "$(echo INJECTED-$((40+2)))",
        "third": "`echo INJECTED-$((40+2))`",
        "fourth": "x' && echo INJECTED-$((40+2)) && '",
        "fifth": "x | tee /opt/ml/model/injected",
    }
    done = train(SCRIPT, evil)
    assert "INJECTED-42" not in done.log
    assert "/opt/ml/model/injected" not in done.files
    assert pairs(arguments(done)) == {f"--{name}": value for name, value in evil.items()}


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
    done = train(SCRIPT, {"launch_runner": "python", "launch_script": "train.py", "rate": 0.1})
    assert arguments(done) == ["--rate", "0.1"]
