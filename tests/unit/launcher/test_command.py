"""The `launch` command and the entrypoint as processes, on this machine alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from launcher import toolkit
from launcher.causes import USAGE
from launcher.option_table import OPTIONS

ROOT = Path(__file__).parents[3] / "entrypoints"
LAUNCH, ENTRYPOINT = str(ROOT / "launch"), str(ROOT / "entrypoint.sh")


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    places = {"HOME": "home", "TMPDIR": "", "TORCH_EXTENSIONS_DIR": "extensions"}
    return {"PATH": path, **{name: str(tmp_path / at) for name, at in places.items()}, **more}


def run(
    tmp_path: Path, *argv: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        cwd=tmp_path,
        env=environment(tmp_path, **(env or {})),
        capture_output=True,
        text=True,
    )


def test_help_names_every_option(tmp_path: Path) -> None:
    text = run(tmp_path, LAUNCH, "help").stdout
    assert [o.name for o in OPTIONS if f"--{o.name} " not in text] == []


def test_an_unknown_command_is_a_usage_error(tmp_path: Path) -> None:
    done = run(tmp_path, LAUNCH, "lunch")
    assert done.returncode == USAGE
    assert done.stderr == "launch: UsageError: unknown command 'lunch'; `launch help` lists them\n"


def test_the_users_python_path_can_not_replace_a_module_of_the_launcher(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('hijacked')")
    done = run(tmp_path, LAUNCH, "version", env={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stderr) == (0, "")


def test_training_gets_the_users_python_path(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "mine.py").write_text("print('mine')")
    (tmp_path / "t.py").write_text("import mine")
    argv = [LAUNCH, "local", "--runner", "python", "--", "t.py"]
    done = run(tmp_path, *argv, env={"PYTHONPATH": str(tmp_path / "lib")})
    assert (done.returncode, done.stdout) == (0, "[r0] mine\n")


def test_a_plan_shows_command_and_variables_with_reasons_and_changes_nothing(
    tmp_path: Path,
) -> None:
    (tmp_path / "t.py").write_text("raise SystemExit('started')")
    before = sorted(tmp_path.rglob("*"))
    argv = [LAUNCH, "plan", "local", "--nproc", "2", "--instance-type", "ml.g5.48xlarge"]
    done = run(tmp_path, *argv, "--", "t.py", "a b", env={"RANK": "9"})
    assert done.returncode == 0, done.stderr
    assert "nproc = 2  [--nproc]" in done.stdout
    assert "t.py 'a b'" in done.stdout
    assert "unset RANK  # left from outside" in done.stdout
    assert 'set   NCCL_SHM_USE_CUDA_MEMCPY="1"  # ml.g5.48xlarge: ' in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_dry_run_is_a_plan(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("raise SystemExit('started')")
    argv = [LAUNCH, "local", "--dry-run", "--json", "--", "t.py"]
    plan = json.loads(run(tmp_path, *argv).stdout)
    assert plan["runner"] == "torchrun"
    assert plan["commands"][0]["argv"][-1] == "t.py"


def test_topology_is_read_from_slurm_inside_a_step(tmp_path: Path) -> None:
    env = {"SLURM_JOB_ID": "5", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NODEID": "1"}
    found = json.loads(run(tmp_path, LAUNCH, "topology", "--json", env=env).stdout)
    assert (found["platform"], found["hosts"], found["node_rank"]) == ("slurm", ["n1", "n2"], 1)


def test_one_node_needs_no_name_resolution_and_no_gate(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("import os\nprint(os.environ['MASTER_ADDR'])")
    argv = [LAUNCH, "local", "--hosts", "no.such.host.invalid", "--runner", "python"]
    done = run(tmp_path, *argv, "--", "t.py")
    assert (done.returncode, done.stdout) == (0, "[r0] 127.0.0.1\n")


def test_a_second_run_does_not_mix_its_logs_with_the_first(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("import sys\nprint(sys.argv[1])")
    argv = [LAUNCH, "local", "--log-dir", "logs", "--job", "j", "--runner", "python"]
    argv += ["--", "t.py"]
    assert run(tmp_path, *argv, "one").stdout == "[r0] one\n"
    assert run(tmp_path, *argv, "two").stdout == "[r0] two\n"
    logs = tmp_path.glob("logs/j-0/*/rank0.log")
    assert sorted(path.read_text() for path in logs) == ["one\n", "two\n"]


def test_on_a_terminal_interrupt_the_ranks_are_stopped_once(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text(
        "import signal, sys\n"
        "signal.signal(15, lambda *a: (print('saved', flush=True), sys.exit(0)))\n"
        "print('up', flush=True)\nwhile True: signal.pause()"
    )
    process = subprocess.Popen(
        [LAUNCH, "local", "--runner", "python", "--", "t.py"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "[r0] up\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.read() == "[r0] saved\n"
    assert process.returncode == 143


def test_once_per_node_runs_a_command_once_and_gives_its_code_to_all(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text(
        "import subprocess, sys\n"
        f"argv = [{LAUNCH!r}, 'once-per-node', '--', '/bin/sh', '-c', 'echo ran >> ran; exit 3']\n"
        "assert subprocess.run(argv).returncode == 3"
    )
    argv = [LAUNCH, "local", "--runner", "python", "--nproc", "4", "--", "t.py"]
    done = run(tmp_path, *argv)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert run(tmp_path, *argv).returncode == 0
    assert (tmp_path / "ran").read_text() == "ran\nran\n"


ODD = ["", "two words", "$(id)", "a;b", "'", '"', "*", "ü", "\\", "-", "--", "train", "\n"]


def test_the_entrypoint_hands_any_command_on_with_its_arguments_intact(tmp_path: Path) -> None:
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    done = run(tmp_path, ENTRYPOINT, "python3", "-c", code, *ODD)
    assert json.loads(done.stdout) == ODD


def test_the_entrypoint_becomes_the_command(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [ENTRYPOINT, "sh", "-c", "echo $$; exit 7"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert int(process.stdout.read()) == process.pid
    assert process.returncode == 7


@pytest.mark.parametrize(
    ("driver", "prepended"),
    [
        ("570.148.08", True),
        ("580.65.06", False),
        ("580.95.05", False),
        ("590.10", False),
        ("535.183.01", True),
        (None, False),
    ],
)
def test_cuda_compatibility_libraries_are_used_under_older_drivers_only(
    tmp_path: Path, driver: str | None, prepended: bool
) -> None:
    compat = tmp_path / "compat"
    compat.mkdir()
    (compat / "libcuda.so.580.65.06").touch()
    (compat / "libcuda.so.1").symlink_to("libcuda.so.580.65.06")
    version = tmp_path / "version"
    if driver:
        version.write_text(
            f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Mon Jan  1 00:00:00 2026\n"
            "GCC version:  gcc version 12.2.0\n"
        )
    env = {"CUDA_COMPAT_DIR": str(compat), "NVIDIA_DRIVER_FILE": str(version)}
    code = "import os; print(os.environ.get('LD_LIBRARY_PATH'))"
    done = run(tmp_path, ENTRYPOINT, "python3", "-c", code, env={**env, "LD_LIBRARY_PATH": "/l"})
    assert done.stdout.strip() == (f"{compat}:/l" if prepended else "/l")
    assert done.stderr == ""


def test_the_open_kernel_modules_wording_is_understood(tmp_path: Path) -> None:
    compat = tmp_path / "compat"
    compat.mkdir()
    (compat / "libcuda.so.580.65.06").touch()
    (compat / "libcuda.so.1").symlink_to("libcuda.so.580.65.06")
    version = tmp_path / "version"
    version.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n"
    )
    env = {"CUDA_COMPAT_DIR": str(compat), "NVIDIA_DRIVER_FILE": str(version)}
    code = "import os; print(os.environ.get('LD_LIBRARY_PATH'))"
    done = run(tmp_path, ENTRYPOINT, "python3", "-c", code, env=env)
    assert done.stdout.strip() == str(compat)


@pytest.mark.parametrize(
    ("env", "hyperparameters", "toolkits"),
    [
        ({}, {"sagemaker_program": "train.py"}, True),
        ({}, {"sagemaker_submit_directory": "s3://b/x.tar.gz"}, True),
        ({"SAGEMAKER_PROGRAM": "train.py"}, {}, True),
        ({}, {}, False),
        ({}, {"lr": 1}, False),
        ({}, {"sagemaker_program": "train.py", "launch_runner": "torchrun"}, False),
        ({}, {"sagemaker_program": "train.py", "launch_nproc": 4}, False),
        ({"LAUNCH_RUNNER": "deepspeed"}, {"sagemaker_program": "train.py"}, False),
        ({"LAUNCH_SCRIPT": "x.py"}, {"sagemaker_program": "train.py"}, False),
        ({"LAUNCH_GRACE": "60"}, {"sagemaker_program": "train.py"}, True),
        ({"LAUNCH_RUNNER": "toolkit"}, {"launch_nproc": 4}, True),
    ],
)
def test_an_estimators_job_stays_sagemaker_trainings_unless_it_asks_for_our_runners(
    env: dict[str, str], hyperparameters: dict[str, object], toolkits: bool
) -> None:
    assert toolkit.toolkit_wanted(env, hyperparameters) == toolkits
