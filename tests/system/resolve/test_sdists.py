"""Every sdist of every committed lock: its build requirements are locked, and it builds with them.

Needs the package index that pip knows. What is built here is built by the machine's own Pythons,
each in an environment of its own, from the locked wheels alone.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from slipway.core import Project
from slipway.matrix import load_matrix
from slipway.records import (
    BUILD_ENVIRONMENT,
    SdistBuild,
    build_requirements,
    build_script,
    load_locks,
)
from slipway.resolve.build_requirements import applies_to, read_build_requires, sdists_of
from slipway.resolve.uv import uv_binary
from slipway.wheels import fetch_wheels

ROOT = Path(__file__).parents[3]
COMMITTED = load_locks(Project.at(ROOT))
SDISTS = sorted(
    sdists_of(load_matrix(ROOT / "versions.yaml").images, COMMITTED.bases, COMMITTED.python),
    key=str,
)
ids = [build.key for build in SDISTS]


def interpreter(python: str) -> str | None:
    """A Python of this version on the machine."""
    done = subprocess.run(
        [str(uv_binary()), "python", "find", "--no-python-downloads", python],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


@pytest.mark.parametrize("build", SDISTS, ids=ids)
def test_the_lock_has_what_an_sdist_builds_with(build: SdistBuild, shared_project: Project) -> None:
    pin, python, architecture = build
    recipe = build_requirements(build, COMMITTED.python)
    assert recipe is not None
    assert not any(tool.source for tool in recipe.pins)
    locked = {tool.name: tool.version for tool in recipe.pins}
    assert "pip" in locked
    for text in read_build_requires(shared_project, pin, python):
        wanted = Requirement(text)
        if applies_to(wanted, python, architecture):
            assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)]), text


BUILT_HERE = [
    build for build in SDISTS if build.architecture == "amd64" and interpreter(build.python)
]


def test_some_python_of_the_locks_is_on_this_machine() -> None:
    assert BUILT_HERE


@pytest.mark.parametrize("wanted", BUILT_HERE, ids=[build.key for build in BUILT_HERE])
def test_an_sdist_builds_from_its_lock_alone(
    wanted: SdistBuild, shared_project: Project, tmp_path: Path
) -> None:
    pin, python, _ = wanted
    recipe = build_requirements(wanted, COMMITTED.python)
    assert recipe is not None
    tools, out, build = tmp_path / "tools", tmp_path / "out", tmp_path / "build"
    tools.mkdir()
    out.mkdir()
    for wheel in fetch_wheels(shared_project, recipe.pins, python):
        (tools / wheel.name).symlink_to(wheel)
    (sdist,) = fetch_wheels(shared_project, [pin], python)
    script = build_script(shared_project)
    run = f"import runpy, sys; from pathlib import Path; m = runpy.run_path({str(script)!r})"
    run += f"; m['main'].__globals__['BUILD'] = Path({str(build)!r}); m['main']()"
    done = subprocess.run(
        [str(interpreter(python)), "-I", "-c", run, str(sdist), str(tools), str(out)],
        env={**BUILD_ENVIRONMENT, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert len(list(out.glob("*.whl"))) == 1
