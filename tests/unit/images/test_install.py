"""install_addons.py, as a build runs it: a real environment, real wheels, a real pip."""

from __future__ import annotations

import compileall
import py_compile
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from slipway.records import Pin, PythonLock, python_lock_text
from tests.support.lock_samples import sha256, wheel

SCRIPT = Path(__file__).parents[3] / "images" / "context" / "install_addons.py"


@pytest.fixture(scope="session")
def pip_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pip of this environment as a wheel again, compiled: the tests start it 30 times."""
    pip = metadata.distribution("pip")
    folder = tmp_path_factory.mktemp("pip")
    code = folder / "code" / "pip"
    shutil.copytree(Path(str(pip.locate_file("pip"))), code)
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(code, quiet=2, force=True, invalidation_mode=unchecked)
    path = folder / f"pip-{pip.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in code.rglob("*"):
            archive.write(file, file.relative_to(code.parent))
    return path


class Base:
    """A base's environment, without a pip as uv makes it, and the context of one add-on."""

    def __init__(self, folder: Path, pip_wheel: Path) -> None:
        self.environment, self.context = folder / "venv", folder / "mnt"
        venv.EnvBuilder(with_pip=False, symlinks=True).create(self.environment)
        self.python = self.environment / "bin" / "python"
        (self.context / "bootstrap").mkdir(parents=True)
        shutil.copy(pip_wheel, self.context / "bootstrap")
        shutil.copy(SCRIPT, self.context)
        self.pins: list[Pin] = []

    def has(self, name: str, version: str, *requires: str) -> None:
        made = wheel(self.context.parent / "base-wheels", name, version, requires)
        # What pip would do with it, without the second that pip takes.
        with zipfile.ZipFile(made) as archive:
            archive.extractall(next(self.environment.glob("lib/python3*/site-packages")))

    def locked(self, name: str, version: str, *requires: str) -> Path:
        made = wheel(self.context / "wheels", name, version, requires)
        self.pins.append(Pin(name, version, (sha256(made),)))
        return made

    def add(self, *options: str, asked: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        lock = PythonLock("key", "addon", tuple(self.pins), asked)
        (self.context / "addon.txt").write_text(python_lock_text(lock))
        command = [str(self.python), str(self.context / SCRIPT.name), "addon", *options]
        # Where a build has no network there is no index to go to; the variable proves it unused.
        environment = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PATH": "/usr/bin:/bin"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def installed(self) -> dict[str, str]:
        site = next(self.environment.glob("lib/python3*/site-packages"))
        return {d.metadata["Name"]: d.version for d in metadata.distributions(path=[str(site)])}


@pytest.fixture
def base(tmp_path: Path, pip_wheel: Path) -> Base:
    return Base(tmp_path, pip_wheel)


def test_what_is_absent_is_installed_and_can_be_imported(base: Base) -> None:
    base.locked("addon", "1", "helper")
    base.locked("helper", "2")
    done = base.add()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["installed addon 1", "installed helper 2"]
    imported = [str(base.python), "-c", "import addon, helper; print(helper.VERSION)"]
    assert subprocess.run(imported, capture_output=True, text=True, check=True).stdout == "2\n"


def test_what_the_base_has_is_kept_whatever_is_locked(base: Base) -> None:
    base.has("numpy", "1.26.4")
    base.has("same", "3")
    base.locked("addon", "1", "numpy", "same")
    base.locked("numpy", "2.5.0")
    base.locked("same", "3")
    done = base.add()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "installed addon 1",
        "kept numpy 1.26.4 (locked: 2.5.0)",
        "kept same 3",
    ]
    assert base.installed() == {"addon": "1", "numpy": "1.26.4", "same": "3"}


def test_replacing_an_addon_replaces_what_it_asks_for_and_nothing_else(base: Base) -> None:
    base.has("addon", "1", "helper")
    base.has("plugin", "1")
    base.has("helper", "1")
    base.locked("addon", "2", "helper")
    base.locked("plugin", "2")
    base.locked("helper", "2")
    done = base.add("--replace", "addon", asked=("addon==2", "plugin==2"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "replaced addon 1 -> 2",
        "kept helper 1 (locked: 2)",
        "replaced plugin 1 -> 2",
    ]
    assert base.installed() == {"addon": "2", "plugin": "2", "helper": "1"}


def test_an_addon_that_is_only_installed_replaces_nothing(base: Base) -> None:
    base.has("plugin", "1")
    base.locked("addon", "1")
    base.locked("plugin", "2")
    base.add(asked=("addon==1", "plugin==2"))
    assert base.installed()["plugin"] == "1"


def test_a_declared_package_may_move(base: Base) -> None:
    base.has("protobuf", "3.20.3")
    base.locked("addon", "1", "protobuf>=5")
    base.locked("protobuf", "6.0")
    done = base.add("--may-move", "Protobuf")
    assert done.returncode == 0, done.stderr
    assert "replaced protobuf 3.20.3 -> 6.0" in done.stdout


def test_an_addon_that_does_not_fit_the_base_fails_the_build(base: Base) -> None:
    base.has("protobuf", "3.20.3")
    base.locked("addon", "1", "protobuf>=5")
    base.locked("protobuf", "6.0")
    done = base.add()
    assert done.returncode != 0
    assert "addon 1 has requirement protobuf>=5, but you have protobuf 3.20.3" in done.stderr
    assert "`moves:`" in done.stderr


def test_moving_a_package_that_the_base_needs_as_it_is_fails_the_build(base: Base) -> None:
    base.has("smp", "1", "protobuf<4")
    base.has("protobuf", "3.20.3")
    base.locked("addon", "1", "protobuf>=5")
    base.locked("protobuf", "6.0")
    done = base.add("--may-move", "protobuf")
    assert done.returncode != 0
    assert "smp 1 has requirement protobuf<4, but you have protobuf 6.0" in done.stderr


def test_a_problem_that_the_base_had_before_is_not_held_against_the_addon(base: Base) -> None:
    base.has("aiobotocore", "1", "boto3<2", "absent")
    base.has("boto3", "2")
    base.has("addon", "1", "also-absent")
    base.locked("addon", "2", "also-absent")
    base.locked("boto3", "3")
    done = base.add("--replace", "addon", "--may-move", "boto3", asked=("addon==2",))
    assert done.returncode == 0, done.stderr
    assert base.installed()["boto3"] == "3"


def test_a_wheel_that_is_not_the_pinned_one_is_refused(base: Base) -> None:
    made = base.locked("addon", "1")
    made.write_bytes(wheel(base.context.parent / "other", "addon", "1", ["x"]).read_bytes())
    done = base.add()
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert base.installed() == {}


def test_a_second_run_changes_nothing(base: Base) -> None:
    base.locked("addon", "1")
    assert base.add().returncode == 0
    done = base.add()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["kept addon 1"]


def test_the_script_uses_nothing_newer_than_the_oldest_base() -> None:
    import ast

    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 9))
    modules = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert modules <= sys.stdlib_module_names
