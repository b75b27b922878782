"""`launch train` beside sagemaker-training's own `train`, for the same generated /opt/ml.

What each of them gave to the training script (arguments, SM_* variables), how it ended, and which
of output/success and output/failure it left. Differences that are meant are listed with a reason.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.launcher.cluster import LAUNCH, clean_environment

REFERENCE = Path(__file__).parents[3] / "bench" / "toolkit_reference.py"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

#: SM_* variables, or keys inside SM_TRAINING_ENV (after a dot), that differ on purpose.
KNOWN_DIFFERENCES = {
    "SM_TRAINING_ENV.is_smddprun_installed": "SMDDP's runner is no business of our runners",
    "SM_TRAINING_ENV.is_smddpmprun_installed": "SMDDP's runner is no business of our runners",
}
#: A script for both: it writes down what it was given, and ends as it is told.
DUMP = """\
import json, os, sys
sm = {k: v for k, v in os.environ.items() if k.startswith("SM_") and k != "SM_STUDIO_LOCAL_MODE"}
with open(os.environ["DUMP"], "w") as file:
    json.dump({"argv": sys.argv[1:], "sm": sm, "cwd": os.getcwd()}, file)
sys.exit(int(os.environ.get("END", "0")))
"""
SHELL = '#!/bin/bash\n[[ $BASH_VERSION ]] || exit 9\nexec "$DUMP_PYTHON" "$DUMP_SCRIPT" "$@"\n'


@dataclass(frozen=True)
class JobConfig:
    """What a job finds in /opt/ml, and in its environment."""

    name: str
    hyperparameters: Mapping[str, Any]
    resources: Mapping[str, Any]
    channels: Mapping[str, Any]
    script: str = "train.py"
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def alone(self) -> bool:
        """Whether the job has one node, so that it can really be run here."""
        return len(self.resources["hosts"]) == 1

    def write(self, ml: Path, dump: Path) -> dict[str, str]:
        """Create the directory; the environment for it."""
        for directory in ("input/config", "input/data", "output", "model", "code"):
            (ml / directory).mkdir(parents=True)
        for name, value in (
            ("hyperparameters", self.hyperparameters),
            ("resourceconfig", self.resources),
            ("inputdataconfig", self.channels),
        ):
            (ml / "input/config" / f"{name}.json").write_text(json.dumps(value))
        code = ml / "code" / self.script
        code.parent.mkdir(exist_ok=True)
        code.write_text(DUMP if self.script.endswith(".py") else SHELL)
        helper = ml.parent / "dump.py"
        helper.write_text(DUMP)
        for name, text in self.files.items():
            (ml / name).write_text(text)
        return {
            "SAGEMAKER_BASE_DIR": str(ml),
            "SM_STUDIO_LOCAL_MODE": "true",  # the toolkit then waits for no other node's name
            "DUMP": str(dump),
            "DUMP_PYTHON": sys.executable,
            "DUMP_SCRIPT": str(helper),
            "AWS_DEFAULT_REGION": "us-east-1",
            **self.env,
        }


@dataclass(frozen=True)
class JobTrace:
    """What a script was given, and how the job ended. `code` is None where it was only planned."""

    argv: tuple[str, ...] | None
    variables: Mapping[str, Any]
    succeeded: bool | None
    success_file: bool | None = None
    failure_file: bool | None = None


VALUES: tuple[Any, ...] = (
    "1", "0.5", "1e-4", "true", "null", '""', '"text"', "text", "two words", '"a b"', "[1, 2]",
    '["a", "b c"]', '{"a": 1, "b": "x y"}', '{"a": {"b": [1, null]}}', "ü", '"\\u00fc"', "$(id)",
    "`id`", "a;b|c&d", "'", '"\\""', "-1", "--flag", "-", "*", "~", "\\", "NaN", "Infinity", "007",
    "1_000", " padded ", '" padded "', "s3://b/k", '{"not": json', "line\nline", "",
    "9" * 40, "1.10", '"1.10"', "True", "None",
)  # fmt: skip
NAMES = (
    "lr", "batch-size", "batch_size", "x", "E", "model.name", "a b", "ünï", "SM_X", "epochs", "n",
    "_under", "__two", "-dash", "sagemaker", "launcher", "0", "per_device_train_batch_size",
)  # fmt: skip
#: As the service and the SDK write them beside the user's own.
PLATFORM: dict[str, str] = {
    "sagemaker_region": '"eu-west-1"',
    "sagemaker_job_name": '"job-1"',
    "sagemaker_container_log_level": "10",
    "sagemaker_enable_cloudwatch_metrics": "false",
    "_tuning_objective_metric": "validation:loss",
    "default_user_module_name": "x",
    "sagemaker_estimator_class_name": '"PyTorch"',
    "sagemaker_estimator_module": '"sagemaker.pytorch.estimator"',
    "sagemaker_torch_distributed_enabled": "false",
    "sagemaker_parameter_server_enabled": "true",
    "sagemaker_pytorch_ddp_enabled": "true",
    "sagemaker_instance_type": '"ml.p5.48xlarge"',
    "sagemaker_custom": '{"a": 1}',
}


def generate_config(seed: int) -> JobConfig:
    """One of the configurations; the same for the same number."""
    pick = random.Random(seed)
    names = pick.sample(NAMES, pick.randint(0, 6))
    hyper: dict[str, Any] = {name: pick.choice(VALUES) for name in names}
    hyper.update(dict(pick.sample(sorted(PLATFORM.items()), pick.randint(0, 6))))
    if seed % 19 == 0:
        # In the local mode of older SDKs values arrive as they are.
        hyper.update(raw_number=3, raw_list=[1, "a"], raw_none=None, raw_true=True)
    if seed % 13 == 0:
        hyper["big"] = json.dumps("x" * pick.choice([20_000, 43_000, 80_000, 110_000]))
    script = pick.choice(["train.py"] * 6 + ["run.sh", "start", "sub/train.py"])
    env: dict[str, str] = {}
    if pick.random() < 0.3:
        env["SAGEMAKER_PROGRAM"] = script
    else:
        hyper["sagemaker_program"] = json.dumps(script)
    if pick.random() < 0.3:
        env["TRAINING_JOB_NAME"] = "named-by-the-service"
    if pick.random() < 0.25:
        env["END"] = pick.choice(["1", "3", "42", "127"])
    files = {}
    if pick.random() < 0.15:
        files["output/failure"] = "left by an earlier attempt"
    if seed % 23 == 0:
        files["code/requirements.txt"] = pick.choice(["# nothing\n", "./no-such-directory\n"])
    return JobConfig(
        f"generated-{seed}", hyper, _resources(pick, hyper), _channels(pick), script, env, files
    )


def _resources(pick: random.Random, hyper: dict[str, Any]) -> dict[str, Any]:
    count = pick.choice([1, 1, 1, 2, 3, 12])
    hosts = sorted(f"algo-{n + 1}" for n in range(count))  # 1, 10, 11, 12, 2: as the service does
    current = pick.choice(hosts)
    shape = pick.choice(["short", "plain", "groups", "groups", "topology"])
    if shape == "short":  # local mode's
        return {"current_host": current, "hosts": hosts}
    found: dict[str, Any] = {
        "current_host": current,
        "hosts": hosts,
        "current_instance_type": pick.choice(["ml.p5.48xlarge", "ml.c5.xlarge", "local"]),
        "current_group_name": "homogeneousCluster",
        "network_interface_name": pick.choice(["eth0", "eth1"]),
    }
    groups = {"homogeneousCluster": hosts}
    if shape == "groups" and count > 1:
        cut = pick.randint(1, count - 1)
        groups = {"first": hosts[:cut], "second": hosts[cut:]}
        found["current_group_name"] = next(n for n, h in groups.items() if current in h)
        named = pick.sample(sorted(groups), pick.randint(1, 2))
        if pick.random() < 0.6:
            hyper["sagemaker_distribution_instance_groups"] = json.dumps(named)
    found["instance_groups"] = [
        {"instance_group_name": name, "instance_type": "ml.p5.48xlarge", "hosts": members}
        for name, members in groups.items()
    ]
    if shape == "topology":
        found["topology"] = [{"hostName": host, "capacityUnitId": "u-1"} for host in hosts]
    return found


def _channels(pick: random.Random) -> dict[str, Any]:
    names = pick.sample(
        ["training", "train", "code", "eval-set", "a_b", "Model"], pick.randint(0, 4)
    )
    found = {}
    for name in names:
        mode = pick.choice(["File", "FastFile", "Pipe"])
        found[name] = {"TrainingInputMode": mode, "S3DistributionType": "FullyReplicated"}
        if pick.random() < 0.5:
            found[name]["ContentType"] = "application/x-recordio"
    return found


def differences_of(toolkit: JobTrace, ours: JobTrace) -> list[str]:
    """What is not alike, but for the known differences."""
    lines = []
    if toolkit.argv is not None and ours.argv is not None and toolkit.argv != ours.argv:
        lines.append(f"arguments {_shown(toolkit.argv)} against {_shown(ours.argv)}")
    both = toolkit.argv is not None and ours.argv is not None
    for name in sorted({*toolkit.variables, *ours.variables} if both else ()):
        one, other = (trace.variables.get(name, "<unset>") for trace in (toolkit, ours))
        if one != other and name not in KNOWN_DIFFERENCES:
            lines.append(f"{name}: {_shown(one)} against {_shown(other)}")
    if ours.succeeded is None:
        return lines
    if (toolkit.argv is None) != (ours.argv is None):
        lines.append(f"the script ran: {toolkit.argv is not None} against {ours.argv is not None}")
    for what in ("succeeded", "success_file", "failure_file"):
        one, other = getattr(toolkit, what), getattr(ours, what)
        if one != other:
            lines.append(f"{what}: {one} against {other}")
    return lines


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 200 else f"{text[:120]}...{text[-40:]}"


def _variables(found: Mapping[str, str], script: str) -> dict[str, Any]:
    values: dict[str, Any] = dict(found)
    if not script.endswith(".py"):
        # Some shells hand on what they could have named themselves, others all of it.
        values = {name: value for name, value in found.items() if _NAME.fullmatch(name)}
    if "SM_TRAINING_ENV" in values:
        inner = json.loads(values.pop("SM_TRAINING_ENV"))
        values |= {f"SM_TRAINING_ENV.{key}": value for key, value in inner.items()}
    return values


class Differential:
    """Runs both sides below a directory; `python` is one that has sagemaker-training."""

    def __init__(self, root: Path, reference: subprocess.Popen[str]) -> None:
        self._root = root
        self._reference = reference

    def compare(self, config: JobConfig) -> list[str]:
        """The differences of one configuration."""
        place = self._root / config.name
        shutil.rmtree(place, ignore_errors=True)
        traces = [self._toolkit(config, place / "job"), self._ours(config, place / "job")]
        shutil.rmtree(place)
        return differences_of(*traces)

    def _toolkit(self, config: JobConfig, place: Path) -> JobTrace:
        env = config.write(place / "ml", place / "dump.json")
        assert self._reference.stdin is not None
        assert self._reference.stdout is not None
        self._reference.stdin.write(json.dumps({"ml": str(place / "ml"), "env": env}) + "\n")
        self._reference.stdin.flush()
        code = json.loads(self._reference.stdout.readline())["code"]
        trace = self._trace(config, place, code)
        shutil.rmtree(place)
        return trace

    def _ours(self, config: JobConfig, place: Path) -> JobTrace:
        env = config.write(place / "ml", place / "dump.json")
        env = {**clean_environment(), **env, "LAUNCH_LOG_DIR": str(place / "logs")}
        env |= {"LAUNCH_PREFLIGHT": "off", "HOME": str(place), "TMPDIR": str(place)}
        runner = {"LAUNCH_RUNNER": "python"} if config.script.endswith(".py") else {}
        if config.alone:
            argv = [str(LAUNCH), "sagemaker"]
            done = subprocess.run(argv, env={**env, **runner}, capture_output=True, text=True)
            (place / "launch.log").write_text(done.stdout + done.stderr)
            return self._trace(config, place, done.returncode)
        argv = [str(LAUNCH), "plan", "sagemaker", "--json"]
        done = subprocess.run(argv, env={**env, **runner}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        plan = json.loads(done.stdout)
        found = {row["name"]: row["value"] for row in plan["environment"]}
        sm = {name: value for name, value in found.items() if name.startswith("SM_")}
        command = plan["commands"][0]["argv"]
        at = next(n for n, word in enumerate(command) if word.endswith(config.script))
        return JobTrace(tuple(command[at + 1 :]), _variables(sm, config.script), None)

    def _trace(self, config: JobConfig, place: Path, code: int) -> JobTrace:
        dump, output = place / "dump.json", place / "ml" / "output"
        found = json.loads(dump.read_text()) if dump.exists() else None
        return JobTrace(
            argv=tuple(found["argv"]) if found else None,
            variables=_variables(found["sm"], config.script) if found else {},
            succeeded=code == 0,
            success_file=(output / "success").exists(),
            failure_file=(output / "failure").exists(),
        )


@contextmanager
def differential(root: Path, python: Path) -> Iterator[Differential]:
    """Both sides, ready."""
    with subprocess.Popen(
        [str(python), str(REFERENCE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "SAGEMAKER_BASE_DIR": str(root)},
        text=True,
    ) as reference:
        yield Differential(root, reference)
        assert reference.stdin is not None
        reference.stdin.close()
