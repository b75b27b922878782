"""`./inv`: the virtual environment comes from the hashed lock, once for each lock.

The wrapper under test is the real one, in a folder of its own with a lock of one small package and
a command line that only tells how it was called.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

CLI = """
import json, os, sys
import slipway, six
print(json.dumps({"argv": sys.argv[1:], "cwd": os.getcwd(), "six": six.__version__,
                  "from": slipway.__file__}))
"""


def locked(name: str) -> str:
    """One requirement of the real lock, with its hashes."""
    lock = (ROOT / "requirements.lock").read_text()
    found = re.search(rf"^{name}==.*?(?=^\S)", lock, re.MULTILINE | re.DOTALL)
    assert found
    return found[0]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    root = tmp_path / "a house"
    (root / "slipway" / "tasks").mkdir(parents=True)
    (root / "slipway" / "__init__.py").touch()
    (root / "slipway" / "tasks" / "__init__.py").touch()
    (root / "slipway" / "tasks" / "cli.py").write_text(CLI)
    (root / "requirements.lock").write_text(locked("six"))
    shutil.copy(ROOT / "inv", root / "inv")
    return root


def run(
    house: Path, *arguments: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(house / "inv"), *arguments],
        cwd=cwd or house,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_the_first_use_makes_the_environment_and_the_second_does_not(house: Path) -> None:
    first = run(house, "ship", "two words")
    assert first.returncode == 0, first.stderr
    assert '"ship", "two words"' in first.stdout
    assert "making" in first.stderr
    second = run(house, "ship")
    assert (second.returncode, second.stderr) == (0, "")


def test_it_works_from_any_folder_and_through_a_link(house: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "inv"
    link.parent.mkdir()
    link.symlink_to(house / "inv")
    done = subprocess.run([str(link), "plan"], cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f'"--search-root", "{house}"' in done.stdout
    assert '"cwd": "/"' in done.stdout
    assert f'"from": "{house}/slipway/__init__.py"' in done.stdout


def test_a_changed_lock_makes_it_anew(house: Path) -> None:
    run(house)
    with (house / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    again = run(house)
    assert again.returncode == 0, again.stderr
    assert "making" in again.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"PATH": ".venv/bin:{path}"},  # activated
        {"SLIPWAY_VENV": "{house}/other", "SLIPWAY_PYTHON": "alias/bin/python3"},
    ],
    ids=["activated", "named by another path"],
)
def test_it_is_made_anew_by_the_python_of_its_own(house: Path, environment: dict[str, str]) -> None:
    where = {"house": house, "path": os.environ["PATH"]}
    set_to = {name: value.format_map(where) for name, value in environment.items()}
    place = Path(set_to.get("SLIPWAY_VENV", house / ".venv"))
    assert run(house, SLIPWAY_VENV=str(place)).returncode == 0
    (house / "alias").symlink_to(place)
    (place / ".requirements.lock").unlink()
    again = run(house, cwd=None, **set_to)
    assert again.returncode == 0, again.stderr
    assert "making" in again.stderr
    home = re.search(r"^home = (.*)$", (place / "pyvenv.cfg").read_text(), re.MULTILINE)
    assert home
    assert not Path(home[1]).is_relative_to(house)


def test_an_interrupted_set_up_is_made_anew(house: Path) -> None:
    run(house)
    (house / ".venv" / ".requirements.lock").unlink()
    again = run(house)
    assert again.returncode == 0, again.stderr
    assert "making" in again.stderr


def test_a_wrong_hash_is_refused_and_leaves_no_finished_environment(house: Path) -> None:
    lock = house / "requirements.lock"
    lock.write_text(re.sub(r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, lock.read_text()))
    done = run(house)
    assert done.returncode == 1
    assert "inv: pip could not install requirements.lock" in done.stderr
    assert not (house / ".venv" / ".requirements.lock").exists()


def test_no_python_is_an_error_with_a_cure(house: Path, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "readlink", "dirname", "cmp", "flock", "rm"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    done = run(house, PATH=str(tools))
    assert done.returncode == 1
    assert "no python 3.10 or newer was found" in done.stderr
    assert "apt-get install python3" in done.stderr


def test_a_python_without_venv_is_an_error_with_a_cure(house: Path, tmp_path: Path) -> None:
    broken = tmp_path / "python-without-venv"
    broken.write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\nexit 0\n')
    broken.chmod(0o755)
    done = run(house, SLIPWAY_PYTHON=str(broken))
    assert done.returncode == 1
    assert "cannot make virtual environments" in done.stderr
    assert "apt-get install python3-venv" in done.stderr


ELSEWHERE = {
    "places": {
        "PIP_USER": "1",
        "PIP_TARGET": "/nowhere/target",
        "PIP_PREFIX": "/nowhere/prefix",
        "PIP_ROOT": "/nowhere/root",
        "PYTHONUSERBASE": "/nowhere/user",
    },
    "versions": {"PIP_CONSTRAINT": "constraints.txt", "PIP_REQUIREMENT": "none.txt"},
    "builds": {
        "PIP_PYTHON": "/usr/bin/python3",
        "PIP_NO_BINARY": ":all:",
        "PIP_DRY_RUN": "1",
        "PIP_PLATFORM": "win32",
    },
    "pip.conf": {"PIP_CONFIG_FILE": "pip.conf"},
    "another home": {"PYTHONHOME": "/nowhere"},
    "a search path": {"PYTHONPATH": "shadow", "PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "2"},
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_settings_for_another_python_or_place_neither_break_nor_divert_it(
    house: Path, name: str
) -> None:
    (house / "constraints.txt").write_text("six==1.0\n")
    (house / "pip.conf").write_text(
        "[global]\nuser = true\n[install]\ntarget = /nowhere\nconstraint = constraints.txt\n"
    )
    (house / "shadow").mkdir()
    (house / "shadow" / "six.py").write_text("raise SystemExit('the wrong six')\n")
    done = run(house, cwd=house, **ELSEWHERE[name])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["six"]
    assert not Path("/nowhere").exists()
    # And what it made is whole without the setting.
    again = run(house)
    assert again.returncode == 0, again.stderr
    assert "making" not in again.stderr


def test_an_environment_that_does_not_work_is_not_called_made(house: Path) -> None:
    cli = house / "slipway" / "tasks" / "cli.py"
    cli.write_text("import a_module_that_is_not_there\n")
    done = run(house)
    assert done.returncode == 1
    assert "does not work" in done.stderr
    cli.write_text(CLI)
    again = run(house)
    assert again.returncode == 0, again.stderr
    assert "making" in again.stderr


def test_a_folder_that_is_no_environment_is_never_replaced(house: Path, tmp_path: Path) -> None:
    mine = tmp_path / "home"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years")
    done = run(house, SLIPWAY_VENV=str(mine))
    assert done.returncode == 1
    assert "is no virtual environment" in done.stderr
    assert (mine / "thesis.tex").read_text() == "years"
