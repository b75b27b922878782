"""compile_bytecode.py, as a build runs it: a real environment, modules as they are in the world.

What is held here holds for this machine's Python; an image's own is asked in tests/image.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from slipway.core import Project
from slipway.records import Pin, PythonLock, python_lock_text
from tests.support.wheels import make_wheel

ROOT = Path(__file__).parents[3]
SCRIPT = Project.at(ROOT).bytecode_compiler
PROBE = ROOT / "slipway" / "verify" / "inside" / "bytecode.py"
LIBRARY = Path(os.__file__).parent
PARTS = ("asyncio", "email", "json", "unittest", "xml", "logging", "concurrent", "http")
"""Of the standard library: 120 modules that name, fold and nest all that Python can."""


def sources() -> dict[str, bytes]:
    return {
        f"world/{path.relative_to(LIBRARY).as_posix()}": path.read_bytes()
        for part in PARTS
        for path in sorted((LIBRARY / part).rglob("*.py"))
        if "test" not in path.parts
    }


class Installed:
    """An environment with distributions as they lie there after an installation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.EnvBuilder(with_pip=False, symlinks=True).create(folder / "venv")
        self.python = folder / "venv" / "bin" / "python"
        (self.site,) = (folder / "venv").glob("lib/python3*/site-packages")
        self.context = folder / "mnt"
        self.context.mkdir()
        shutil.copy(SCRIPT, self.context)
        self.pins: list[Pin] = []

    def add(self, name: str, files: dict[str, bytes], *, pinned: bool = True) -> None:
        shutil.unpack_archive(make_wheel(self.folder / "wheels", name, files), self.site, "zip")
        if pinned:
            self.pins.append(Pin(name, "1.0", (f"sha256:{'0' * 64}",)))

    def compile(self, **more: Any) -> subprocess.CompletedProcess[str]:
        lock = PythonLock("key", "addon", tuple(self.pins), ())
        (self.context / "addon.txt").write_text(python_lock_text(lock))
        command = [str(self.python), "-B", str(self.context / SCRIPT.name), "addon"]
        return subprocess.run(command, capture_output=True, text=True, check=False, **more)

    def bytecode(self) -> dict[str, bytes]:
        return {
            path.relative_to(self.site).as_posix(): path.read_bytes()
            for path in sorted(self.site.rglob("*.pyc"))
        }

    def faults(self, *names: str) -> Any:
        command = [str(self.python), "-I", "-B", str(PROBE), *names]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)

    def run(self, code: str) -> str:
        command = [str(self.python), "-B", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.strip()


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path)


def name_of(module: str) -> str:
    """Of the bytecode of a module, beside it."""
    return importlib.util.cache_from_source(module, optimization="")


def test_the_same_modules_give_the_same_bytes_whoever_compiles_them_and_when(
    installed: Installed,
) -> None:
    installed.add("world", sources())
    assert installed.compile(env={"PYTHONHASHSEED": "1", "TZ": "UTC"}).returncode == 0
    first = installed.bytecode()
    assert sorted(first) == sorted(name_of(path) for path in sources())
    assert len(first) > 100
    for path in first:
        (installed.site / path).unlink()
    for module in installed.site.rglob("*.py"):
        os.utime(module, (1, 1))
    record = installed.site / "world-1.0.dist-info" / "RECORD"
    rows = record.read_text().splitlines()
    random.Random(1).shuffle(rows)
    record.write_text("\n".join(rows))
    again = installed.compile(
        env={
            "PYTHONHASHSEED": "2",
            "PYTHONOPTIMIZE": "2",
            "PYTHONWARNINGS": "error",
            "PYTHONSTARTUP": "/x",
            "TZ": "Asia/Tokyo",
            "LC_ALL": "C",
            "HOME": "/nowhere",
        },
        cwd="/",
        umask=0o077,
        preexec_fn=lambda: os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]),
    )
    assert again.returncode == 0, again.stderr
    assert installed.bytecode() == first
    assert installed.faults("world") == {}


def test_names_that_another_module_has_change_no_byte(installed: Installed) -> None:
    """Before Python 3.11 marshal writes a name that a module has once otherwise where somebody else
    in the process has it, too."""
    text = "\n".join(f"print.name_{number}" for number in range(50)).encode()
    installed.add("alone", {"alone.py": text})
    assert installed.compile().returncode == 0
    alone = installed.bytecode()[name_of("alone.py")]
    (installed.site / name_of("alone.py")).unlink()
    installed.add("another", {"aaa.py": text + b"\nmore = 1\n", "zzz.py": text})
    assert installed.compile().returncode == 0
    assert installed.bytecode()[name_of("alone.py")] == alone


def test_what_is_written_is_bytecode_that_all_may_read(installed: Installed) -> None:
    installed.add("deep", {"deep/a/b.py": b"", "deep/text.txt": b"", "top.py": b""})
    before = {*installed.site.rglob("*")}
    assert installed.compile(umask=0o077).returncode == 0
    modes = {
        path.relative_to(installed.site).as_posix(): oct(path.stat().st_mode)
        for path in {*installed.site.rglob("*")} - before
    }
    assert modes == {
        "__pycache__": "0o40755",
        name_of("top.py"): "0o100644",
        "deep/a/__pycache__": "0o40755",
        name_of("deep/a/b.py"): "0o100644",
    }


def test_what_is_no_module_of_this_python_is_said_and_left_out(installed: Installed) -> None:
    files = {
        "pkg/__init__.py": b"value = 1\n",
        "pkg/template.py": b"class {{ name }}: pass\n",
        "pkg/old.py": b"print 'two'\n",
        "pkg/bytes.py": b"# coding: utf-8\nx = '\xff'\n",
        "pkg/null.py": b"x = '\0'\n",
        "pkg/data.txt": b"x = 1\n",
    }
    installed.add("pkg", files)
    program = installed.python.with_name("tool.py")
    program.write_text("value = 1\n")
    with (installed.site / "pkg-1.0.dist-info" / "RECORD").open("a") as record:
        record.write("../../../bin/tool.py,,\n")
    done = installed.compile()
    assert done.returncode == 0, done.stderr
    assert [*installed.bytecode()] == [name_of("pkg/__init__.py")]
    told = done.stdout.splitlines()
    assert told[-1] == "bytecode of 1 modules of addon"
    assert [line.split("site-packages/")[1].split(":")[0] for line in told[:-1]] == [
        "pkg/bytes.py",
        "pkg/null.py",
        "pkg/old.py",
        "pkg/template.py",
    ]
    assert not program.with_name("__pycache__").exists()
    assert installed.faults("pkg") == {}


def test_bytecode_that_is_there_stays_and_other_distributions_get_none(
    installed: Installed,
) -> None:
    installed.add("mine", {"mine/__init__.py": b"", "mine/new.py": b""})
    installed.add("theirs", {"theirs.py": b""}, pinned=False)
    kept = installed.site / name_of("mine/__init__.py")
    kept.parent.mkdir()
    kept.write_bytes(b"of the base")
    assert installed.compile().returncode == 0
    assert sorted(installed.bytecode()) == [name_of("mine/__init__.py"), name_of("mine/new.py")]
    assert kept.read_bytes() == b"of the base"
    assert installed.faults("mine", "absent") == {
        str(installed.site / "mine/__init__.py"): "of another Python"
    }


def test_python_takes_the_bytecode_and_does_not_look_at_the_source(installed: Installed) -> None:
    installed.add("pkg", {"pkg.py": b"value = 'compiled'\n"})
    assert installed.compile().returncode == 0
    module = installed.site / "pkg.py"
    module.write_text("value = 'edited'\n")
    assert installed.run("import pkg; print(pkg.value, pkg.__cached__)") == (
        f"compiled {installed.site / name_of('pkg.py')}"
    )
    command = [str(installed.python), "-B", "--check-hash-based-pycs", "always"]
    command += ["-c", "import pkg; print(pkg.value)"]
    assert subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout == b"edited\n"
    assert installed.faults("pkg") == {str(module): "of another source"}
    (installed.site / name_of("pkg.py")).write_bytes(
        (installed.site / name_of("pkg.py")).read_bytes()[:30]
    )
    assert installed.faults("pkg") == {str(module): "not whole"}
    (installed.site / name_of("pkg.py")).unlink()
    assert installed.faults("pkg") == {str(module): "there is none"}


def test_pip_takes_bytecode_that_no_record_lists_away_with_its_module(
    installed: Installed,
) -> None:
    installed.add("pkg", {"pkg/__init__.py": b"", "pkg/more.py": b""})
    assert installed.compile().returncode == 0
    pip = [sys.executable, "-m", "pip", "--isolated", "--python", str(installed.python)]
    subprocess.run([*pip, "uninstall", "--quiet", "--yes", "pkg"], check=True)
    assert [*installed.site.glob("pkg*")] == []


@pytest.mark.parametrize("fault", ["a pin that is not there", "a file in the folder's place"])
def test_a_fault_fails_the_build(installed: Installed, fault: str) -> None:
    installed.add("pkg", {"pkg/__init__.py": b""})
    if fault.startswith("a pin"):
        shutil.rmtree(installed.site / "pkg-1.0.dist-info")
    else:
        (installed.site / "pkg" / "__pycache__").write_bytes(b"")
    done = installed.compile()
    assert done.returncode != 0
    assert "pkg" in done.stderr
