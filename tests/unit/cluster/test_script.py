"""The scripts of `inv slurm.script`: reviewed as golden files, and run with recorders for srun."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.instances import INSTANCES
from launcher.main_job import UPLOAD_SECONDS
from launcher.options import parse_flags
from slipway.cluster import launcher_tables, script
from slipway.cluster.option_values import SCRIPTS_OWN
from slipway.cluster.sqsh_file import SqshFile
from slipway.core import Piece, wait_until
from slipway.matrix import load_matrix
from slipway.sqsh import sidecar
from slipway.sqsh.sidecar import Sidecar
from tests.support.cluster_samples import GOLDEN, LAUNCHER, ROOT, SMP, image, make, request
from tests.support.cluster_shell import Done, Shell

FOLDER = Path(__file__).with_name("golden") / "slurm"
CONTENT = b"a small squashfs"
PIECES = 2
NODE_CHECK = "not every node is ready"
#: Anything that can be an argument of a process: no NUL, and bytes that are no UTF-8, too.
WORDS = st.lists(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])).map(str)
    | st.binary(max_size=8).map(
        lambda data: data.replace(b"\0", b"").decode(errors="surrogateescape")
    ),
    max_size=6,
)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def sqsh(shell: Shell) -> SqshFile:
    """With its sidecar, as an export leaves the two."""
    path = shell.root / "image.sqsh"
    path.write_bytes(CONTENT)
    made = exported(path)
    return SqshFile(str(path), made.size, made.digest)


def exported(path: Path, hot: tuple[tuple[int, int], ...] = ()) -> Sidecar:
    """Write the sidecar of what is at `path`; its options are named like what the scripts read."""
    content = path.read_bytes()
    made = Sidecar(
        reference="r",
        image_id="sha256:1",
        image_digests=("a@sha256:2",),
        build_id="b",
        pieces=tuple(
            Piece(len(part), hashlib.sha256(part).hexdigest())
            for part in (content[:9], content[9:])
        ),
        entries=3,
        options={"size": 5, "digest": "0"},
        slipway="1",
        hot=hot,
    )
    sidecar.write_sidecar(path, made)
    return made


def counted_reads(shell: Shell) -> Callable[[], int]:
    """Have reads of pieces counted from now on."""
    count = shell.root / "count"
    count.touch()
    shell.put("dd", f'#!/bin/bash\necho x >>{count}\nexec /usr/bin/dd "$@"\n')
    return lambda: count.read_text().count("x")


def text(shell: Shell, *words: str, **options: str | bool | tuple[str, ...]) -> str:
    asked = replace(request(*(words or ("train.py",))), **options)  # type: ignore[arg-type]
    return script.render_sbatch(make(asked, sqsh=sqsh(shell)))


def after_dashes(words: tuple[str, ...]) -> list[str]:
    return list(words[words.index("--") + 1 :])


# --- golden files ---


@pytest.mark.parametrize("name", GOLDEN)
def test_a_script_is_the_one_that_was_reviewed(name: str) -> None:
    made, reviewed = GOLDEN[name](), (FOLDER / name).read_text()
    difference = difflib.unified_diff(reviewed.splitlines(), made.splitlines(), name, "made")
    assert made == reviewed, "\n".join(difference)


def test_every_reviewed_script_is_still_made() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_every_script_passes_shellcheck_and_bash(name: str) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    for command in ([str(shellcheck), "--severity=style"], ["bash", "-n"]):
        done = subprocess.run([*command, str(FOLDER / name)], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("path", sorted((ROOT / "tests/support/slurm_node").iterdir()))
def test_the_stand_ins_of_the_system_tests_pass_shellcheck(path: Path) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", GOLDEN)
def test_no_array_continues_its_lines_with_backslashes(name: str) -> None:
    """`--x=32 \\ # comment` in an array passes " #" as an argument, and auto-resume trips on it."""
    for array in re.findall(r"^\w+\+?=\($.*?^\)$", GOLDEN[name](), re.MULTILINE | re.DOTALL):
        assert "\\\n" not in array
        assert not re.search(r"\\\s+#", array)


@pytest.mark.parametrize("name", sorted({*GOLDEN} - {"fsdp-p5en.sbatch"}))
def test_no_gpus_and_no_pmix_are_asked_for_unless_the_user_does(name: str) -> None:
    """HyperPod's check of sbatch files refuses them (hyperpod-precheck.py)."""
    made = GOLDEN[name]()
    assert not re.search(r"--gpus|--gres|pmix", made)


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.endswith(".sbatch")])
def test_sbatch_finds_its_options_before_the_first_command(name: str) -> None:
    made = GOLDEN[name]()
    lines = made.splitlines()
    first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first:])
    head = lines[:first]
    for option in ("--exclusive", "--ntasks-per-node=1", "--output=%x-%j.out"):
        assert f"#SBATCH {option}" in head
    # Without "B:", which would signal the batch shell only.
    assert re.search(r"^#SBATCH --signal=URG@\d+$", "\n".join(head), re.MULTILINE)


def test_every_image_of_the_matrix_gets_a_sound_script() -> None:
    """bash reads them all at once: a syntax error in any is one of the whole."""
    images = load_matrix(ROOT / "versions.yaml").images
    whole = "".join(
        f"if false; then\n{script.render_sbatch(make(request('x', runtime=runtime), one.name))}fi\n"
        for one in images
        for runtime in ("pyxis", "enroot")
    )
    assert subprocess.run(["bash", "-n"], input=whole.encode(), capture_output=True).stderr == b""


# --- arguments ---


@pytest.fixture(scope="module")
def shared() -> Iterator[Shell]:
    with TemporaryDirectory() as folder:
        yield Shell(Path(folder))


@settings(max_examples=30)
@given(words=WORDS)
def test_every_argument_reaches_the_launcher_under_pyxis(shared: Shell, words: list[str]) -> None:
    done = shared.run(text(shared, "train.py", *words))
    assert done.code == 0, done.said
    assert after_dashes(done.step) == ["train.py", *words]


@settings(max_examples=20)
@given(words=WORDS)
def test_every_argument_reaches_the_launcher_under_enroot(shared: Shell, words: list[str]) -> None:
    done = shared.run(text(shared, "train.py", *words, runtime="enroot"))
    assert done.code == 0, done.said
    (start,) = (call for call in done.called("enroot") if call[0] == "start")
    assert after_dashes(start) == ["train.py", *words]


@settings(max_examples=20)
@given(
    words=st.lists(st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"])))
)
def test_every_value_of_a_variable_reaches_the_container(shared: Shell, words: list[str]) -> None:
    values = {f"NAME_{number}": word for number, word in enumerate(words)}
    env = tuple(f"{name}={value}" for name, value in values.items())
    done = shared.run(text(shared, env=env))
    assert done.code == 0, done.said
    assert {name: done.env[name] for name in values} == values


@pytest.mark.parametrize("odd", ["a\r\nb", "\x1b[31m", "#SBATCH --nodes=9", "\n#SBATCH --nodes=9"])
def test_an_argument_never_takes_a_line_of_its_own(odd: str) -> None:
    """sbatch refuses DOS line ends, and reads #SBATCH at the start of a line."""
    made = script.render_sbatch(make(request("train.py", odd)))
    assert "\r" not in made
    assert "\x1b" not in made
    assert "\n#SBATCH --nodes=9" not in made


# --- the container's step ---


@pytest.mark.parametrize(
    ("name", "flavour"), [(SMP, "smp"), ("pytorch-2.13-hyperpod-ds0.19.8", "fsdp")]
)
def test_every_variable_that_the_script_sets_is_named_to_the_container(
    shell: Shell, name: str, flavour: str
) -> None:
    asked = request("x", flavour=flavour, env=("MINE=1", "THEIRS"))
    job = make(asked, name, sqsh(shell))
    made = script.render_sbatch(job).replace("have:/var/log/aws/clusters", "")
    exported = re.findall(r"^export (\w+)=", made, re.MULTILINE)
    assert exported
    done = shell.run(made, {"THEIRS": "2"})
    assert done.code == 0, done.said
    (named,) = (word for word in done.step if word.startswith("--container-env="))
    assert named.partition("=")[2].split(",") == [*exported[:-1], "MINE", "THEIRS"]
    assert (done.env["MINE"], done.env["THEIRS"]) == ("1", "2")


def test_enroot_is_told_every_variable_and_what_slurm_says(shell: Shell) -> None:
    done = shell.run(text(shell, runtime="enroot", env=("MINE=a b",)))
    assert done.code == 0, done.said
    (start,) = (call for call in done.called("enroot") if call[0] == "start")
    named = {start[n + 1] for n, word in enumerate(start) if word == "--env"}
    assert {"MINE", "SLURM_JOB_ID", "SLURM_NODEID", "SLURMD_NODENAME"} <= named
    assert done.env["MINE"] == "a b"


def test_a_variable_that_is_not_set_where_the_job_is_submitted_is_named(shell: Shell) -> None:
    done = shell.run(text(shell, env=("HF_TOKEN",)))
    assert (done.code, done.calls) == (1, ())
    assert done.said == "job: HF_TOKEN is not set where this was submitted\n"


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.endswith(".sbatch")])
def test_no_variable_of_a_users_can_be_one_of_the_scripts(name: str) -> None:
    made = GOLDEN[name]()
    found = {*re.findall(r"^\s*(?:local )?([a-z]\w*)\+?=", made, re.MULTILINE)}
    found |= {*re.findall(r"\bfor (\w+) in\b", made)}
    for listed in re.findall(r"\blocal ([^\n]+)|\bread -r ([\w ]+)<", made):
        found |= {word.partition("=")[0] for word in "".join(listed).split() if word[0].isalpha()}
    assert {"workdir", "code", "launcher", "item"} <= found
    assert found <= SCRIPTS_OWN


def test_libraries_of_the_submitting_shell_stay_outside(shell: Shell) -> None:
    done = shell.run(text(shell), {"PYTHONPATH": "/home/me", "PYTHONHOME": "/usr"})
    assert not {"PYTHONPATH", "PYTHONHOME"} & {*done.env}
    done = shell.run(text(shell, env=("PYTHONPATH",)), {"PYTHONPATH": "/fsx/me"})
    assert (done.code, done.env["PYTHONPATH"]) == (0, "/fsx/me")


def test_one_task_a_node_has_all_cpus_and_takes_the_others_with_it(shell: Shell) -> None:
    step = shell.run(text(shell)).step
    options = step[: step.index("/opt/entrypoints/entrypoint.sh")]
    wanted = ("--nodes=2", "--ntasks-per-node=1", "--kill-on-bad-exit=1", "--cpu-bind=none")
    assert {*wanted, "--wait=30", "--export=ALL"} <= {*options}
    assert not any(option.startswith("--auto-resume") for option in options)


def test_auto_resume_is_asked_for_on_hyperpod(shell: Shell) -> None:
    made = text(shell).replace("/opt/sagemaker_cluster", str(shell.work))
    assert "--auto-resume=1" in shell.run(made).step


@pytest.mark.parametrize("there", [True, False])
def test_the_cluster_logs_are_mounted_where_they_exist(shell: Shell, there: bool) -> None:
    logs = shell.root / "clusters"
    if there:
        logs.mkdir()
    done = shell.run(text(shell).replace("/var/log/aws/clusters", str(logs)))
    (mounts,) = (word for word in done.step if word.startswith("--container-mounts="))
    disks = ("/opt/dlami/nvme", "/opt/sagemaker", "/var/tmp")
    wanted = [f"{disk}:{disk}" for disk in disks if Path(disk).is_dir()]
    wanted += [f"{shell.work}:{shell.work}"] + ([f"{logs}:{logs}"] if there else [])
    assert mounts.partition("=")[2].split(",") == wanted


def test_an_smp_job_says_where_the_cluster_logs_are_missing(shell: Shell) -> None:
    made = script.render_sbatch(make(request("x"), SMP, sqsh(shell)))
    done = shell.run(made.replace("/var/log/aws/clusters", str(shell.root / "none")))
    assert done.code == 1
    assert f"n1: {shell.root / 'none'} is not there" in done.said


def test_sources_of_mounts_are_made_and_read_only_ones_are_not(shell: Shell) -> None:
    new, data = shell.root / "new" / "deep", shell.root / "data"
    mounts = (f"{new}:/new", f"{data}:/data:ro")
    done = shell.run(text(shell, mounts=mounts))
    assert done.code == 1
    assert f"n1: {data} is not there" in done.said
    assert NODE_CHECK in done.said
    assert new.is_dir()
    data.mkdir()
    done = shell.run(text(shell, mounts=mounts))
    assert done.code == 0, done.said


@pytest.mark.parametrize("bad", ["with blank", "with,comma", "with:colon"])
def test_a_folder_that_cannot_be_mounted_is_refused(shell: Shell, bad: str) -> None:
    done = shell.run(text(shell), {"SLURM_SUBMIT_DIR": str(shell.root / bad)})
    assert (done.code, done.calls) == (1, ())
    assert "cannot be mounted" in done.said


# --- the .sqsh ---


def test_a_sqsh_that_is_missing_or_different_stops_the_job_before_the_container(
    shell: Shell,
) -> None:
    made = text(shell)
    path = shell.root / "image.sqsh"
    for content, told in (
        (None, "is not there, or not readable"),
        (b"short", f"has 5 bytes, and its export had {len(CONTENT)}: copy it again"),
        (CONTENT.upper(), "differs from its export in the bytes 0 to 9: copy it again"),
        (CONTENT[:9] + CONTENT[9:].upper(), "differs from its export in the bytes 9 to 16: copy"),
    ):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        done = shell.run(made)
        assert (done.code, len(done.calls)) == (1, 1)
        assert f"n1: {path} {told}" in done.said


def test_a_sqsh_is_hashed_once_until_it_changes(shell: Shell) -> None:
    made = text(shell)
    reads = counted_reads(shell)
    for _ in range(3):
        assert shell.run(made).code == 0
    assert reads() == PIECES
    (shell.root / "image.sqsh").write_bytes(CONTENT.upper())
    assert shell.run(made).code == 1


@pytest.mark.parametrize("command", ["sha256sum", "dd", "xargs"])
def test_a_hash_that_was_cut_short_is_no_different_file(shell: Shell, command: str) -> None:
    shell.put(command, "#!/bin/bash\nkill -TERM $$\n")
    done = shell.run(text(shell))
    assert done.code == 1
    assert f"n1: {shell.root / 'image.sqsh'} could not be read to its end" in done.said
    assert "copy it again" not in done.said


def test_the_check_lets_every_node_say_what_is_wrong(shell: Shell) -> None:
    """--kill-on-bad-exit drops what the killed and even the failed task have printed."""
    (check, step) = shell.run(text(shell)).called("srun")
    assert "--kill-on-bad-exit=0" in check
    assert "--kill-on-bad-exit=1" in step


@pytest.mark.parametrize(("check", "hashes"), [("once", True), ("nodes", True), ("size", False)])
def test_who_hashes_is_chosen(shell: Shell, check: str, hashes: bool) -> None:
    reads = counted_reads(shell)
    assert shell.run(text(shell, check=check)).code == 0
    assert reads() == (PIECES if hashes else 0)


def test_a_file_is_hashed_with_a_sidecar_of_its_own_export_only(shell: Shell) -> None:
    made = text(shell)
    path = shell.root / "image.sqsh"
    beside = sidecar.sidecar_path(path)
    beside.unlink()
    done = shell.run(made)
    assert done.code == 1
    assert f"n1: {beside} is not there, or not readable: copy it together" in done.said
    path.write_bytes(CONTENT.upper())
    exported(path)
    done = shell.run(made)
    assert done.code == 1
    assert f"n1: {beside} is of another export: copy it together" in done.said


@pytest.mark.parametrize("node", ["0", "1"])
def test_every_node_reads_ahead_what_a_start_reads(shell: Shell, node: str) -> None:
    made = text(shell, check="size")
    path = shell.root / "image.sqsh"
    exported(path, hot=((0, 4), (7, 16)))
    shell.put("dd", f'#!/bin/bash\nexec /usr/bin/dd "$@" of={shell.root}/ahead.$BASHPID\n')
    assert shell.run(made, {"NODE": node}).code == 0
    read = sorted(file.read_bytes() for file in shell.root.glob("ahead.*"))
    assert read == sorted([CONTENT[:4], CONTENT[7:16]])


def test_what_cannot_be_read_ahead_stops_no_job(shell: Shell) -> None:
    made = text(shell, check="size")
    exported(shell.root / "image.sqsh", hot=((0, 4),))
    shell.put("dd", "#!/bin/bash\nexit 1\n")
    assert shell.run(made).code == 0
    sidecar.sidecar_path(shell.root / "image.sqsh").unlink()
    assert shell.run(made).code == 0


def test_pieces_are_hashed_side_by_side_whatever_openmp_was_told(shell: Shell) -> None:
    shell.put("nproc", "#!/bin/bash\n[[ -v OMP_NUM_THREADS ]] && echo 1 || echo 12\n")
    shell.put("xargs", f'#!/bin/bash\necho "$@" >{shell.root}/xargs\nexec /usr/bin/xargs "$@"\n')
    assert shell.run(text(shell), {"OMP_NUM_THREADS": "1"}).code == 0
    assert "--max-procs=12 " in (shell.root / "xargs").read_text()


@pytest.mark.parametrize(("check", "hashed"), [("once", False), ("nodes", True)])
def test_the_other_nodes_hash_only_when_told_to(shell: Shell, check: str, hashed: bool) -> None:
    made = text(shell, check=check)
    (shell.root / "image.sqsh").write_bytes(CONTENT.upper())
    assert (shell.run(made, {"NODE": "1"}).code == 1) is hashed


def test_what_is_not_known_here_comes_from_the_sidecar_on_the_cluster(shell: Shell) -> None:
    known = sqsh(shell)
    beside = sidecar.sidecar_path(Path(known.path))
    whole = beside.read_bytes()
    beside.unlink()
    made = script.render_sbatch(make(request("x"), sqsh=SqshFile(known.path)))
    done = shell.run(made)
    assert done.code == 1
    assert f"{known.path}.json is not there: copy it together with the .sqsh" in done.said
    beside.write_bytes(whole)
    done = shell.run(made)
    assert done.code == 0, done.said
    (check, _) = done.called("srun")
    assert check[-4:-1] == (known.path, str(len(CONTENT)), known.digest)


# --- how it ends ---

#: Stands for the image's launcher in the step's own command.
STAND_IN = """#!/bin/bash
trap 'echo launcher TERM; sleep 0.2; exit 7' TERM
trap 'echo launcher URG' URG
echo "$@" up
while :; do sleep 0.05; done
"""


def test_a_node_that_has_failed_waits_for_the_others_before_srun_is_told(shell: Shell) -> None:
    """srun signals all other nodes at the first exit code that is not 0."""
    step = shell.run(text(shell)).step
    command = list(step[step.index("/bin/bash") :])
    command[command.index("/opt/entrypoints/launch")] = "launcher"
    shell.put("sleep", '#!/bin/bash\nkill -TERM "$PPID"; echo "waited $1"\n')
    for code, said in ((0, ""), (143, "waited 3\n")):
        shell.put("launcher", f"#!/bin/bash\nexit {code}\n")
        env = {"PATH": f"{shell.bin}:{os.environ['PATH']}"}
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True)
        assert (done.returncode, done.stdout) == (code, said)


def test_urg_is_term_for_the_launcher_and_term_does_not_end_what_waits_for_it(
    shell: Shell,
) -> None:
    """Slurm's URG and scancel's TERM reach every process of a step; here only the first of them."""
    step = shell.run(text(shell)).step
    command = list(step[step.index("/bin/bash") :])
    command[command.index("/opt/entrypoints/launch")] = "launcher"
    shell.put("launcher", STAND_IN)
    with subprocess.Popen(
        command,
        env={"PATH": f"{shell.bin}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline().endswith(" up\n")
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGURG)
        assert process.stdout.readline() == "launcher TERM\n"
        assert process.wait() == 7


@pytest.mark.parametrize(
    ("signals", "own", "code"),
    [
        ((), 143, 143),  # told by the other nodes' launchers
        ((signal.SIGURG,), 143, 143),  # the time limit, or scancel --signal=URG
        ((signal.SIGTERM,), 143, 145),  # scancel; or Slurm, late, of a node that was lost before
        ((signal.SIGTERM, signal.SIGURG), 143, 143),
        ((signal.SIGURG, signal.SIGTERM), 143, 143),
        ((signal.SIGTERM,), 77, 77),  # failed before the signal came
        ((signal.SIGTERM,), 0, 0),
    ],
)
def test_a_stop_by_term_alone_has_a_code_of_its_own(
    shell: Shell, signals: tuple[signal.Signals, ...], own: int, code: int
) -> None:
    step = shell.run(text(shell)).step
    command = list(step[step.index("/bin/bash") :])
    command[command.index("/opt/entrypoints/launch")] = "launcher"
    shell.put("sleep", "#!/bin/bash\n")
    go_on = shell.root / "go-on"
    body = f"trap : TERM\necho up\nuntil [[ -e {go_on} ]]; do /bin/sleep 0.02; done\nexit {own}"
    shell.put("launcher", f"#!/bin/bash\n{body}\n")
    with subprocess.Popen(
        command,
        env={"PATH": f"{shell.bin}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        for number in signals:
            process.send_signal(number)
            assert wait_until(lambda: not pending(process.pid), 10)  # taken, before the next
        go_on.touch()
        assert process.wait() == code


def pending(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    rows = dict(line.split(":", 1) for line in status.splitlines())
    return int(rows["ShdPnd"], 16) | int(rows["SigPnd"], 16)


def end(shell: Shell, left: int | None, none: str = "NONE", **env: str) -> Done:
    """A step that ends, `left` seconds before the time limit (None: there is none, or `none`)."""
    when = f"@$(($(date +%s) + {left}))" if left is not None else none
    shell.put("squeue", f'#!/bin/bash\necho "{when}"\n')
    return shell.run(text(shell, requeue="2", signal="300", time="1:00:00"), env)


@pytest.mark.parametrize(
    ("left", "env", "again"),
    [
        (250, {"STEP_CODE": "143"}, True),
        (350, {"STEP_CODE": "143"}, True),
        (900, {"STEP_CODE": "143"}, False),  # scancel --signal=URG
        (None, {"STEP_CODE": "143"}, False),
        (250, {"STEP_CODE": "143", "SEND": "TERM"}, False),  # scancel
        (250, {"STEP_CODE": "143", "SLURM_RESTART_COUNT": "1"}, True),
        (250, {"STEP_CODE": "143", "SLURM_RESTART_COUNT": "2"}, False),
        (900, {"STEP_CODE": "145"}, True),  # one node was told to stop, and nobody told the job
        (None, {"STEP_CODE": "145"}, True),
        (900, {"STEP_CODE": "145", "SEND": "TERM"}, False),  # scancel
        (900, {"STEP_CODE": "145", "SLURM_RESTART_COUNT": "2"}, True),  # after two lost nodes
        (900, {"STEP_CODE": "145", "SLURM_RESTART_COUNT": "4"}, False),
        (900, {"STEP_CODE": "137"}, False),
        (250, {"STEP_CODE": "255"}, True),
        (900, {"STEP_CODE": "255"}, False),
        (250, {"STEP_CODE": "1"}, False),
        (250, {"STEP_CODE": "0"}, False),
        (900, {"STEP_CODE": "1"}, False),
        (900, {"STEP_CODE": "77", "NODES_DEAD": "1"}, True),
        (900, {"STEP_CODE": "77", "NODES_DEAD": "1", "SEND": "TERM"}, False),
        (900, {"STEP_CODE": "77", "NODES_DEAD": "1", "SLURM_RESTART_COUNT": "2"}, False),
    ],
)
def test_a_job_begins_again_only_near_its_limit_or_without_a_node(
    shell: Shell, left: int | None, env: dict[str, str], again: bool
) -> None:
    done = end(shell, left, **env)
    assert done.code == int(env["STEP_CODE"].replace("145", "143"))
    assert done.called("scontrol") == ([("requeue", "7")] if again else [])


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"STEP_CODE": "145", "SLURM_RESTART_COUNT": "4"}, "it was begun again 4 times already"),
        ({"STEP_CODE": "145", "SLURM_RESTART_COUNT": "5"}, "it was begun again 5 times already"),
        ({"STEP_CODE": "143", "SLURM_RESTART_COUNT": "2"}, "it was begun again 2 times already"),
    ],
)
def test_a_job_that_does_not_begin_again_says_how_often_it_did(
    shell: Shell, env: dict[str, str], told: str
) -> None:
    assert told in end(shell, 250, **env).said


@pytest.mark.parametrize("runtime", ["pyxis", "enroot"])
@pytest.mark.parametrize("fetch", ["", "shared", "sbcast"])
def test_no_step_that_matters_has_the_number_of_one_of_an_earlier_attempt(
    shell: Shell, runtime: str, fetch: str
) -> None:
    """Slurm counts a job's steps from 0 in each attempt, and kills late what was lost by number."""
    shell.put("sbcast", '#!/bin/bash\ncp -- "${@: -2:1}" "${@: -1}"\n')
    place = str(shell.root / "nvme")
    made = text(shell, requeue="3", runtime=runtime, fetch=fetch, fetch_to=place if fetch else "")
    used = 0
    for attempt in range(4):
        shutil.rmtree(place, ignore_errors=True)
        done = shell.run(
            made,
            {
                "SLURM_JOB_NUM_NODES": "1",
                "SLURM_RESTART_COUNT": str(attempt),
                "STEP_CODE": "77",
                "NODES_DEAD": "1",
            },
        )
        assert done.code == 77, done.said
        steps = done.called("srun")
        idle = steps.count(("--nodes=1", "--ntasks=1", "true"))
        assert steps[:idle] == [("--nodes=1", "--ntasks=1", "true")] * idle
        assert idle >= used
        assert len(steps) > idle
        used = len(steps)


def test_with_spares_each_node_has_a_step_and_the_loss_of_one_does_not_end_the_job(
    shell: Shell,
) -> None:
    made = text(shell, nodes="3", spares="1")
    assert {"#SBATCH --no-kill", "#SBATCH --requeue", "#SBATCH --nodes=3"} <= {*made.splitlines()}
    assert "    --spares=1\n" in made
    assert "--auto-resume=1" not in made


def test_with_spares_hyperpods_own_replacement_is_not_given_up(shell: Shell) -> None:
    made = text(shell, nodes="3", spares="1").replace("/opt/sagemaker_cluster", str(shell.work))
    done = shell.run(made)
    assert (done.code, done.calls) == (1, ())
    assert done.said == (
        "job: HyperPod replaces lost nodes itself (--auto-resume): write this script without "
        "--spares\n"
    )


@pytest.mark.parametrize("code", [0, 77])
def test_a_job_whose_first_node_was_lost_before_its_end_begins_only_to_end_so(
    shell: Shell, code: int
) -> None:
    outcome = shell.work / "logs" / "7-outcome"
    outcome.parent.mkdir()
    outcome.write_text(f"{code}\n")
    done = shell.run(text(shell, nodes="3", spares="1"))
    assert (done.code, done.calls) == (code, ())
    assert done.said == f"job: it had ended with {code} after its first node was lost\n"
    assert not outcome.exists()


def test_a_job_with_spares_that_slurm_begins_again_too_often_ends(shell: Shell) -> None:
    made = text(shell, nodes="3", spares="1", requeue="2")
    done = shell.run(made, {"SLURM_RESTART_COUNT": "4"})
    assert (done.code, done.said) == (1, "job: it was begun again 3 times already\n")


def test_a_controller_that_does_not_answer_is_no_time_limit(shell: Shell) -> None:
    assert end(shell, None, none="", STEP_CODE="143").called("scontrol") == []


def test_a_job_that_slurm_does_not_requeue_keeps_its_exit_code(shell: Shell) -> None:
    shell.put("scontrol", "#!/bin/bash\nexit 1\n")
    done = end(shell, 250, STEP_CODE="143")
    assert done.code == 143
    assert "job: Slurm did not requeue it" in done.said


def test_without_requeue_a_job_never_begins_again(shell: Shell) -> None:
    made = text(shell)
    assert "#SBATCH --no-requeue" in made
    done = shell.run(made, {"STEP_CODE": "143"})
    assert (done.code, done.called("scontrol")) == (143, [])


def test_the_exit_code_of_the_step_is_the_jobs_under_enroot(shell: Shell) -> None:
    """What was unpacked is removed; a start from the file leaves nothing."""
    for unpack, wanted in (("1", ["remove", "create", "start", "remove"]), ("0", ["start"])):
        done = shell.run(text(shell, runtime="enroot"), {"STEP_CODE": "42", "UNPACK": unpack})
        assert done.code == 42
        assert [call[0] for call in done.called("enroot")] == wanted


def test_a_container_starts_from_the_file_where_the_node_can_and_the_log_says_so(
    shell: Shell,
) -> None:
    done = shell.run(text(shell, runtime="enroot"))
    assert "job: every node starts from the file\n" in done.said
    (start,) = done.called("enroot")
    assert any(word.endswith(".sqsh") for word in start)
    done = shell.run(text(shell, runtime="enroot"), {"UNPACK": "1"})
    assert "n1: unpacks the image (enroot start: Command not found: squashfuse)\n" in done.said
    (start,) = (call for call in done.called("enroot") if call[0] == "start")
    assert "slurm-7-0" in start
    assert not any(word.endswith(".sqsh") for word in start)


def test_why_a_node_unpacks_is_the_last_line_that_says_something(shell: Shell) -> None:
    """As mount(8) of Debian 13 (util-linux 2.41) says it; older ones end with the first line."""
    said = (
        "mount: /run/image: failed to setup loop device for /a.sqsh.\n"
        "       dmesg(1) may have more information after failed mount system call."
    )
    done = shell.run(text(shell, runtime="enroot"), {"UNPACK": "1", "UNPACK_SAID": said})
    assert f"n1: unpacks the image (enroot start: {said.splitlines()[0]})\n" in done.said


#: squeue of Slurm 22.05: job 3 runs, 4 has ended, 5 is not known any more; of 6 nothing is heard.
SQUEUE = """#!/bin/bash
case "$*" in
*--jobs=3*) echo RUNNING ;;
*--jobs=4*) ;;
*--jobs=5*) echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1 ;;
*) exit 124 ;;
esac
"""


def test_what_killed_jobs_have_left_is_removed_before_the_image_is_unpacked(shell: Shell) -> None:
    shell.put("squeue", SQUEUE)
    there = [f"slurm-{job}-0" for job in (3, 4, 5, 6, 7)]  # 7 is this job
    others = ["slurm-4", "slurm-x-0", "pyxis_4", "slipway-0-4"]
    env = {"UNPACK": "1", "SLURM_RESTART_COUNT": "1", "CONTAINERS": " ".join(there + others)}
    done = shell.run(text(shell, runtime="enroot"), env)
    removed = [call[-1] for call in done.called("enroot") if call[0] == "remove"]
    before = ["slurm-4-0", "slurm-5-0", "slurm-7-0"]
    assert removed == [*before, "slurm-7-1", "slurm-7-1"]  # its own, before and after
    assert "n1: removes slurm-5-0, which an ended job has left\n" in done.said


def test_pyxis_unpacks_unless_its_squashfuse_is_on(shell: Shell, tmp_path: Path) -> None:
    conf = tmp_path / "plugstack.conf"
    env = {"SLURM_CONF": str(tmp_path / "slurm.conf")}
    for said, options in (
        ("job: every node starts from the file\n", "runtime_path=/run/pyxis use_squashfuse=1"),
        ("n1: unpacks the image (pyxis has no use_squashfuse=1", "use_squashfuse=0"),
        ("n1: unpacks the image (pyxis has no use_squashfuse=1", "# use_squashfuse=1"),
    ):
        conf.write_text(f"required /usr/lib/slurm/spank_pyxis.so {options}\n")
        assert said in shell.run(text(shell), env).said


def test_an_unpacked_image_is_kept_by_its_digest_where_that_is_asked_for(shell: Shell) -> None:
    done = shell.run(text(shell, runtime="enroot", keep=True), {"UNPACK": "1"})
    first, last = done.called("enroot")[0], done.called("enroot")[-1]
    assert (first[0], last[0]) == ("start", "start")  # is it there and whole; the job
    kept = next(word for word in last if word.startswith(f"slipway-{os.getuid()}-"))
    assert kept in first
    assert "remove" not in [call[0] for call in done.called("enroot")]
    named = f"--container-name=slipway-{os.getuid()}-"
    assert any(word.startswith(named) for word in shell.run(text(shell, keep=True)).step)
    assert not any(word.startswith("--container-name") for word in shell.run(text(shell)).step)


def test_a_signal_does_not_cut_the_removal_of_an_enroot_container_short(shell: Shell) -> None:
    """All processes of the step get it, as soon as another node has ended with an error."""
    removed = shell.root / "removed"
    body = f'[[ $1 != remove ]] || {{ kill -TERM $$; sleep 0.1; echo "$3" >>{removed}; }}'
    body += "; [[ ${*: -1} != /bin/true ]]"  # nothing starts from a file here
    shell.put("enroot", f"#!/bin/bash\n{body}\n")
    assert shell.run(text(shell, runtime="enroot")).code == 0
    assert removed.read_text() == "slurm-7-0\n"  # not the one before the start, which had no trap


def test_the_grace_and_the_uploads_fit_before_the_limit() -> None:
    options = make(request("x", signal="300")).launcher_options
    (grace,) = (o.partition("=")[2] for o in options if o.startswith("--grace="))
    assert int(grace) + UPLOAD_SECONDS < 300


def test_the_launcher_takes_every_option_that_is_handed_to_it() -> None:
    asked = request(
        "x", launch=("prefetch=s3://a=/b", "prefetch=s3://c=/d", "allow-opt-ml-model", "grace=9")
    )
    flags, words = parse_flags([*make(asked).launcher_options, "--", "x"])
    assert words == ["x"]
    assert flags == {
        "instance-type": "ml.p5.48xlarge",
        "grace": "9",
        "prefetch": "s3://a=/b s3://c=/d",
        "allow-opt-ml-model": "true",
    }


def test_the_tables_are_the_launchers_own() -> None:
    for name, row in INSTANCES.items():
        found_name, found = launcher_tables.find_instance_row(LAUNCHER, name)
        assert found_name == f"ml.{name}"
        assert (found.gpus, found.efa, found.rdma) == (row.gpus, row.efa, row.rdma)
    assert image(SMP).base.facts.smp
