"""`--fetch`: the .sqsh is on a node's own disk, and checked, before anything else happens there."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.cluster import script
from slipway.cluster.sqsh_file import SqshFile
from slipway.core import UsageError
from slipway.sqsh import read_sidecar
from tests.support.cluster_samples import make, request
from tests.support.cluster_shell import Shell
from tests.support.launcher.sqsh_files import ServedFile, write_sqsh

PIECES = [bytes([n]) * 3000 for n in range(5)]
#: As srun and sbcast on a job's one node: a file goes to where it is told.
SBCAST = '#!/bin/bash\ncp -- "${@: -2:1}" "${@: -1}"\necho x >>"$RECORD/../sbcasts"\n'


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def sqsh(shell: Shell, *, known: bool = True) -> SqshFile:
    path = shell.root / "fsx" / "image.sqsh"
    write_sqsh(path, PIECES)
    sidecar = read_sidecar(path)
    assert sidecar is not None
    return SqshFile(str(path), sidecar.size, sidecar.digest) if known else SqshFile(str(path))


def text(shell: Shell, fetch: str, *, known: bool = True, runtime: str = "pyxis") -> str:
    asked = replace(request("train.py"), fetch=fetch, fetch_to=str(shell.root / "nvme"))
    return script.render_sbatch(
        make(replace(asked, runtime=runtime), sqsh=sqsh(shell, known=known))
    )


ALONE = {"SLURM_JOB_NUM_NODES": "1"}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("way", ["shared", "sbcast"])
def test_the_container_starts_from_the_nodes_own_file(shell: Shell, way: str, known: bool) -> None:
    shell.put("sbcast", SBCAST)
    made = text(shell, way, known=known)
    here = shell.root / "nvme" / "image.sqsh"
    for _ in range(2):
        done = shell.run(made, ALONE)
        assert done.code == 0, done.said
        assert f"--container-image={here}" in done.step
        assert here.read_bytes() == b"".join(PIECES)
    left = sorted(path.name for path in here.parent.iterdir() if path.name[0] != ".")
    assert left == ["image.sqsh", "image.sqsh.checked", "image.sqsh.json"]
    if way == "sbcast":  # the second job has it
        assert (shell.root / "sbcasts").read_text() == "x\nx\n"
    else:
        assert "n1: 0.0 MB in 0.0 s: it was there" in done.said


def test_a_node_gets_its_file_from_a_registry(shell: Shell) -> None:
    with ServedFile(PIECES, name="image.sqsh") as (host, asked):
        done = shell.run(text(shell, f"registry://{host}/r:t"), ALONE)
        assert done.code == 0, done.said
        assert len(asked) == 5
        shutil.rmtree(shell.root / "nvme")
    with ServedFile([*PIECES, b"next"], name="image.sqsh") as (host, asked):
        done = shell.run(text(shell, f"registry://{host}/r:t"), ALONE)
    # The tag has moved to another build since the script was written.
    assert (done.code, asked) == (1, [])
    assert "has another file than the one that is wanted" in done.said
    assert not any("--container-image" in word for call in done.called("srun") for word in call)


@pytest.mark.parametrize("way", ["shared", "sbcast"])
def test_a_damaged_file_stops_the_job_before_the_container(shell: Shell, way: str) -> None:
    shell.put("sbcast", SBCAST)
    made = text(shell, way)
    path = shell.root / "fsx" / "image.sqsh"
    path.write_bytes(b"X" + path.read_bytes()[1:])
    done = shell.run(made, ALONE)
    assert done.code == 1
    assert ("other bytes" if way == "shared" else "differs from its export") in done.said
    assert not any("--container-image" in word for call in done.called("srun") for word in call)


def test_without_a_new_enough_python_it_is_said(shell: Shell) -> None:
    for name in ("python3", *(f"python3.{minor}" for minor in range(9, 14))):
        shell.put(name, "#!/bin/bash\nexit 1\n")
    done = shell.run(text(shell, "shared"), ALONE)
    assert done.code == 1
    assert "n1: there is no Python 3.9 or newer to fetch the .sqsh with" in done.said


@pytest.mark.parametrize("what", ["file", "link"])
def test_a_folder_that_another_user_could_have_made_is_not_used(shell: Shell, what: str) -> None:
    asked = replace(request("train.py"), fetch="shared")
    made = script.render_sbatch(make(asked, sqsh=sqsh(shell)))
    disk = shell.root / "disk"
    disk.mkdir()
    made = made.replace("/opt/dlami/nvme /opt/sagemaker /var/tmp", str(disk))
    place = disk / f"slipway-{Path('/proc/self').stat().st_uid}"
    if what == "file":
        place.write_text("")
    else:
        place.symlink_to(shell.work)
    done = shell.run(made, ALONE)
    assert done.code == 1
    assert f"n1: {place} cannot be used" in done.said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fetch": "no"}, "expected shared, sbcast, registry://"),
        ({"fetch": "registry://h/x:t$(id)"}, "expected shared"),
        ({"fetch": "shared", "fetch_to": "local"}, "absolute path"),
        ({"fetch_to": "/nvme"}, "--fetch-to is where --fetch brings"),
        ({"fetch": "shared", "fetch_to": "/fsx/images"}, "where the file comes from"),
    ],
)
def test_what_cannot_work_is_a_usage_error(options: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("$", r"\$")):
        make(replace(request("x"), **options))  # type: ignore[arg-type]


def test_the_program_fits_into_one_argument_of_a_step() -> None:
    """Linux takes 128 KiB: MAX_ARG_STRLEN in execve(2)."""
    job = make(replace(request("x"), fetch="s3://images/train/x.sqsh"))
    assert job.fetch is not None
    assert sum(len(line) + 1 for line in job.fetch.program) < 128 << 10


def test_a_registrys_file_must_be_known_where_the_script_is_written() -> None:
    with pytest.raises(UsageError, match="nothing is known here"):
        make(replace(request("x"), fetch="registry://h/x:t"), sqsh=SqshFile("/fsx/x.sqsh"))
