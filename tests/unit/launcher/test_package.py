"""What every file of the launcher promises: old Pythons, no foreign imports, sound shell."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3] / "entrypoints"
FILES = sorted((ROOT / "launcher").rglob("*.py"))
#: Run inside the user's Python, where they find torch by name.
IN_USERS_PYTHON = {"torchrun_main.py", "rank_benchmark.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_module_is_python_3_9(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 9))


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_module_imports_only_the_standard_library_and_its_siblings(path: Path) -> None:
    assert imported(path) - sys.stdlib_module_names - {"launcher"} == set()


@pytest.mark.parametrize("name", sorted(IN_USERS_PYTHON))
def test_what_runs_in_the_users_python_imports_nothing_of_the_launcher(name: str) -> None:
    assert "launcher" not in imported(ROOT / "launcher" / "user_python" / name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_module_puts_off_its_annotations(path: Path) -> None:
    """`X | None` is no expression in Python 3.9."""
    tree = ast.parse(path.read_text())
    first = [node for node in tree.body if isinstance(node, ast.ImportFrom)][:1]
    assert [node.module for node in first] == ["__future__"]


@pytest.mark.parametrize("name", ["launch", "entrypoint.sh", "shims/torchrun"])
def test_the_shell_files_are_executable_and_pass_shellcheck(name: str) -> None:
    assert (ROOT / name).stat().st_mode & 0o111
    pass_shellcheck(ROOT / name)


def test_what_login_shells_source_passes_shellcheck() -> None:
    pass_shellcheck(ROOT / "image_path.sh")


def pass_shellcheck(path: Path) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
