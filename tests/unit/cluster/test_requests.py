"""What may be asked for: everything that could not work is refused, and told why."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.cluster import ScriptRequest, option_values, sqsh_file, write_script
from slipway.cluster.option_values import ContainerMount, JobVariable
from slipway.cluster.sqsh_file import SqshFile
from slipway.core import USAGE, Piece, Project, SlipwayError, UsageError
from slipway.matrix import Image
from slipway.records import ExportRecord, ImageRecord, save_record
from slipway.sqsh import sidecar
from slipway.sqsh.sidecar import Sidecar
from tests.support.cluster_samples import LOCAL, P5, PYTORCH, ROOT, SMP, make, request


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (request("x", instance="ml.p5.48xlarg"), "did you mean ml.p5.48xlarge"),
        (request("x", instance="p5e.48xlargee"), "did you mean ml.p5e.48xlarge"),
        (request("x", instance="ml.trn1.32xlarge"), "Neuron chips"),
        (request("x", nodes="0"), "--nodes '0': expected a whole number from 1"),
        (request("x", nodes="two"), "--nodes 'two'"),
        (request(), "there is no training script"),
        (request("x", flavour="fsdpp"), "did you mean fsdp?"),
        (request("x", flavour="smp"), "needs an image with SMP"),
        (request("x", runtime="docker"), "one of pyxis, enroot"),
        (request("x", check="all"), "one of once, nodes, size"),
        (request("x", job_name="two words"), "--job-name 'two words'"),
        (request("x", signal="59"), "from 60 to 65535"),
        (request("x", time="4"), "not longer than --signal 300"),
        (request("x", time="tomorrow"), "expected a form like"),
        (request("x", requeue="-1"), "--requeue '-1'"),
        (request("x", spares="-1"), "--spares '-1': expected a whole number"),
        (request("x", spares="one"), "--spares 'one': expected a whole number"),
        (request("x", spares="2"), "--spares 2: of 2 nodes none would be left to train"),
        (request("x", spares="9"), "--spares 9: of 2 nodes none would be left to train"),
        (request("x", nodes="1", spares="1"), "--spares 1: the job has one node"),
        (request("x", spares="1", srun=("auto-resume=1",)), "--spares 1 with --srun auto-resume"),
        (request("x", launch=("spares=1",)), "the script has to know of it, too: --spares N"),
        (request("x", workdir="fsx"), "--workdir 'fsx': expected an absolute path"),
        (request("x", workdir="/fsx/../etc"), "expected an absolute path"),
        (request("x", mounts=("/a b",)), "--mount '/a b'"),
        (request("x", mounts=("/a:/b:rx",)), "expected SRC, SRC:DST or SRC:DST:ro"),
        (request("x", mounts=("/a:/",)), "would hide the whole image"),
        (request("x", mounts=("$HOME",)), "expected an absolute path"),
        (request("x", env=("A B=1",)), "'A B' is no name"),
        (request("x", env=("LAUNCH_GRACE=1",)), "Use --launch."),
        (request("x", env=("SLURM_NODEID=1",)), "Slurm sets these itself"),
        (request("x", env=("A=1\n2",)), "several lines"),
        (request("x", env=("PATH=/opt/bin",)), "the script's own name"),
        (request("x", env=("workdir=/opt",)), "the script's own name"),
        (request("x", launch=("graze=5",)), "did you mean grace?"),
        (request("x", launch=("hosts=a,b",)), "Slurm says that itself"),
        (request("x", launch=("grace",)), "expected grace=VALUE"),
        (request("x", launch=("grace=2m",)), "grace=2m: expected a whole number"),
        (request("x", launch=("grace=256",)), "with --signal 300 ranks have at most 255 s"),
        (request("x", launch=("runner=deepseed",)), "auto, torchrun, deepspeed, python"),
        (request("x", sbatch=("nodes=3",)), "the script sets --nodes itself"),
        (request("x", sbatch=("signal=B:TERM@9",)), "the script sets --signal itself"),
        (request("x", sbatch=("comment=two words",)), "no blanks"),
        (request("x", sbatch=("x\n#SBATCH --y",)), "no blanks"),
        (request("x", srun=("container-image=y",)), "the script sets --container-image itself"),
        (request("x", srun=("wait=0",)), "the script sets --wait itself"),
    ],
)
def test_what_cannot_work_is_a_usage_error_that_says_why(asked: ScriptRequest, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        make(asked)
    assert told in str(caught.value)
    assert caught.value.exit_code == USAGE


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("90:30", 5430),
        ("4:00:00", 14400),
        ("2-12", 216000),
        ("2-12:30", 217800),
        ("1-00:00:01", 86401),
    ],
)
def test_time_limits_are_read_as_sbatch_does(text: str, seconds: int) -> None:
    assert option_values.time_limit(text) == seconds


def test_mounts_have_three_forms() -> None:
    assert option_values.parse_mount("/a") == ContainerMount("/a", "/a")
    assert option_values.parse_mount("/a/:/b") == ContainerMount("/a", "/b")
    assert option_values.parse_mount("/a:/b:ro") == ContainerMount("/a", "/b", read_only=True)


def test_the_users_variables_win_over_the_flavours() -> None:
    job = make(request("x", flavour="fsdp", env=("HF_HUB_ETAG_TIMEOUT=5", "EMPTY=")))
    assert JobVariable("HF_HUB_ETAG_TIMEOUT", "5") in job.env
    assert JobVariable("EMPTY", "") in job.env
    assert len({variable.name for variable in job.env}) == len(job.env)


def test_an_smp_image_is_started_by_smps_rules_and_another_is_not() -> None:
    smp, other = make(request("x"), SMP), make(request("x"), PYTORCH)
    names = {"NVTE_TORCH_COMPILE": "0", "CUDA_DEVICE_MAX_CONNECTIONS": "1", "SM_NUM_GPUS": "8"}
    assert names.items() <= {variable.name: variable.value for variable in smp.env}.items()
    assert smp.present == ("/var/log/aws/clusters",)
    assert (other.env, other.present) == ((), ())


def test_gpu_counts_come_from_the_instance_type() -> None:
    job = make(request("x", instance="ml.g5.12xlarge"), SMP)
    counts = {v.value for v in job.env if v.name in ("SM_NUM_GPUS", "GPU_NUM_DEVICES")}
    assert counts == {"4"}


def test_a_cpu_image_may_run_anywhere() -> None:
    assert make(request("x", instance="ml.trn1.32xlarge"), LOCAL).instance_type


@pytest.mark.parametrize(
    ("asked", "name", "told"),
    [
        (request("x", launch=("checkpoint-dir=/ck",)), PYTORCH, "is on no --mount"),
        (request("x", requeue="1"), PYTORCH, "must go on from its own checkpoints"),
        (request("x", instance="ml.p4d.24xlarge"), SMP, "--fp8 0"),
    ],
)
def test_what_often_goes_wrong_is_noted(asked: ScriptRequest, name: str, told: str) -> None:
    (note,) = make(asked, name).notes
    assert told in note


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (request("x", launch=("checkpoint-dir=/fsx/ck",), mounts=("/fsx",)), PYTORCH),
        (request("x", launch=("checkpoint-dir=/fsx/ck",), workdir="/fsx"), PYTORCH),
        (request("x", launch=("checkpoint-dir=ck",)), PYTORCH),
        (request("x", "--fp8", "0", instance="ml.p4d.24xlarge"), SMP),
        (request("x", "--fp8=0", instance="ml.p4d.24xlarge"), SMP),
        (request("x"), SMP),
    ],
)
def test_nothing_is_noted_without_a_reason(asked: ScriptRequest, name: str) -> None:
    assert make(asked, name).notes == ()


# --- which .sqsh ---


def exported(project: Project, path: Path) -> None:
    record = ImageRecord(exported=ExportRecord("sha256:1", str(path), "ab" * 32, 7, 1.0))
    save_record(project, PYTORCH, record)


def beside(path: Path, size: int) -> SqshFile:
    """A sidecar there, and what it says of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Sidecar("r", "sha256:1", (), "b", (Piece(size, "cd" * 32),), 1, {}, "1")
    sidecar.write_sidecar(path, made)
    return SqshFile(str(path), size, made.digest)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(ROOT, tmp_path / "state")


def test_the_newest_export_is_the_default(project: Project) -> None:
    path = project.sqsh / "x-0123.sqsh"
    path.parent.mkdir(parents=True)
    path.touch()
    exported(project, path)
    assert sqsh_file.newest_sqsh(project, PYTORCH) == SqshFile(str(path), 7, "ab" * 32)


def test_an_image_without_an_export_is_told_how_to_get_one(project: Project) -> None:
    with pytest.raises(SlipwayError, match=r"has no \.sqsh yet"):
        sqsh_file.newest_sqsh(project, PYTORCH)
    exported(project, project.sqsh / "gone.sqsh")
    with pytest.raises(SlipwayError, match=r"gone\.sqsh any more\n.*inv sqsh"):
        sqsh_file.newest_sqsh(project, PYTORCH)


def test_a_copy_on_the_cluster_is_known_by_the_name_of_its_build(project: Project) -> None:
    exported(project, Path("/gone/x-0123.sqsh"))
    found = sqsh_file.sqsh_on_cluster(project, PYTORCH, "/fsx/images/x-0123.sqsh")
    assert found == SqshFile("/fsx/images/x-0123.sqsh", 7, "ab" * 32)
    other = sqsh_file.sqsh_on_cluster(project, PYTORCH, "/fsx/images/x-4567.sqsh")
    assert other == SqshFile("/fsx/images/x-4567.sqsh")


def test_a_sidecar_that_can_be_read_here_is_believed_first(
    project: Project, tmp_path: Path
) -> None:
    exported(project, Path("/gone/x-0123.sqsh"))
    here = beside(project.sqsh / "x-0123.sqsh", 8)
    found = sqsh_file.sqsh_on_cluster(project, PYTORCH, "/fsx/x-0123.sqsh")
    assert found == replace(here, path="/fsx/x-0123.sqsh")
    shared = beside(tmp_path / "fsx" / "x-0123.sqsh", 9)
    assert sqsh_file.sqsh_on_cluster(project, PYTORCH, shared.path) == shared


def test_which_build_a_file_is_goes_by_its_sidecar_and_only_else_by_its_name(
    project: Project, tmp_path: Path
) -> None:
    renamed = beside(tmp_path / "fsx" / "renamed.sqsh", 9)
    known = sqsh_file.sqsh_on_cluster(project, PYTORCH, renamed.path)
    assert known.build_id is not None
    assert known.is_build(known.build_id)
    assert not known.is_build("0" * 64)
    misnamed = beside(tmp_path / "fsx" / f"x-{'0' * 12}.sqsh", 9)
    assert not sqsh_file.sqsh_on_cluster(project, PYTORCH, misnamed.path).is_build("0" * 64)
    assert SqshFile(f"/fsx/x-{'0' * 12}.sqsh").is_build("0" * 64)
    assert not SqshFile("/fsx/x.sqsh").is_build("0" * 64)


@pytest.mark.parametrize("bad", ["image.sqsh", "/fsx/image", "/fsx/a b.sqsh", "docker://x.sqsh"])
def test_a_sqsh_is_an_absolute_path_that_pyxis_takes_for_a_file(project: Project, bad: str) -> None:
    with pytest.raises(UsageError):
        sqsh_file.sqsh_on_cluster(project, PYTORCH, bad)


# --- writing ---


def build_id(_image: Image) -> str:
    return "f" * 64


def test_a_script_is_written_executable_and_written_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "job.sbatch"
    for epochs in ("1", "2"):
        asked = request("train.py", "--epochs", epochs)
        write_script(
            ROOT,
            PYTORCH,
            asked,
            current_build_id=build_id,
            sqsh="/fsx/x-0123.sqsh",
            output=str(path),
        )
    assert path.stat().st_mode & 0o777 == 0o755
    assert "    2\n" in path.read_text()
    said = capsys.readouterr().err
    assert "on the cluster: sbatch job.sbatch" in said
    assert "the job reads /fsx/x-0123.sqsh.json" in said
    assert "is not the build that the matrix gives now" in said


def test_another_file_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(UsageError, match="was not written by this task"):
        write_script(
            ROOT,
            PYTORCH,
            request("x"),
            current_build_id=build_id,
            sqsh="/fsx/x.sqsh",
            output=str(path),
        )
    assert path.read_text() == "mine"


def test_a_script_for_stdout_leaves_stdout_to_it(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    write_script(
        ROOT,
        PYTORCH,
        request("\udcff.py"),
        current_build_id=build_id,
        sqsh="/fsx/x.sqsh",
        output="-",
    )
    out = capfdbinary.readouterr().out
    assert out.startswith(b"#!/bin/bash\n")
    assert out.endswith(b'exit "$code"\n')
    assert b"'\xff.py'" in out


@pytest.mark.parametrize(
    ("name", "asked", "told"),
    [
        ("pytorch-2.13-*", request("x"), "images, and a script starts one"),
        ("pytorch-2.13-hyperpod-ds0.19.9", request("x"), "did you mean"),
        (PYTORCH, ScriptRequest("", P5, ("x",)), "--nodes is missing"),
        (PYTORCH, ScriptRequest("2", "", ("x",)), "--instance is missing"),
    ],
)
def test_an_unclear_request_is_a_usage_error(name: str, asked: ScriptRequest, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        write_script(ROOT, name, asked, current_build_id=build_id, sqsh="/fsx/x.sqsh", output="-")


def test_the_record_of_an_export_has_what_a_script_needs(project: Project) -> None:
    exported(project, Path("/x.sqsh"))
    path = project.records / f"{PYTORCH}.json"
    assert {"path", "digest", "size"} <= {*json.loads(path.read_text())["exported"]}


# --- the command line ---


def inv(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "slipway.tasks.cli", "slurm.script", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True)


def test_words_after_the_dashes_are_the_scripts_whatever_they_look_like() -> None:
    words = ["train.py", "--nodes", "9", "", "two words", "--", "ship", "*"]
    options = ["--nodes", "2", "--instance", P5, "--sqsh", "/fsx/x.sqsh", "--output", "-"]
    repeated = ["--mount", "/a", "--mount", "/b", "--env", "A=1", "--env=B=2"]
    done = inv(PYTORCH, *options, *repeated, "--", *words)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    first = lines.index("    train.py")
    assert lines[first : first + 8] == [f"    {shlex.quote(word)}" for word in words]
    assert {"    /a:/a", "    /b:/b", "export A=1", "export B=2"} <= {*lines}


@pytest.mark.parametrize(
    "words",
    [
        ["train.py", "--epochs", "3"],
        ["--", "train.py"],  # without --nodes
        ["--nodes", "0", "--", "train.py"],
        ["--nodes", "2", "--instance", P5],
        ["--nodes", "2", "--instance", P5, "--"],
    ],
)
def test_a_command_line_that_lacks_something_is_a_usage_error_of_a_few_lines(
    words: list[str],
) -> None:
    done = inv(PYTORCH, "--sqsh", "/fsx/x.sqsh", "--output", "-", *words)
    assert (done.returncode, done.stdout) == (USAGE, b"")
    assert done.stderr.count(b"\n") in (1, 2), done.stderr


def test_a_script_without_the_dashes_is_told_where_it_goes() -> None:
    done = inv(PYTORCH, "--nodes", "2", "--instance", P5, "train.py", "--epochs", "3")
    assert b"arguments go after --: ... -- train.py --epochs 3" in done.stderr


def test_an_unknown_instance_type_is_a_usage_error_that_names_the_nearest() -> None:
    done = inv(PYTORCH, "--nodes", "2", "--instance", "ml.p5en.48xlarg", "--", "train.py")
    assert done.returncode == USAGE
    assert b"did you mean ml.p5en.48xlarge" in done.stderr
    assert b"Traceback" not in done.stderr


def test_who_trains_and_who_waits_is_noted() -> None:
    made = make(request("x", nodes="5", spares="2", launch=("resume=auto",)))
    assert made.notes == ("of 5 nodes 3 train, and 2 wait",)
    assert "--spares=2" in made.launcher_options
