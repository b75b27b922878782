"""Every file of the repository is changed in turn: which images are built again, and why.

A class of files that no image holds is changed all at once: where that moves nothing, no file of
the class moves anything.
"""

from __future__ import annotations

import ast
import contextlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path

import pytest

from slipway.core import Project
from slipway.derive import BuildInputs, launcher_files, plan_steps
from slipway.derive.launcher_layer import READ_OUTSIDE
from slipway.matrix import Image
from slipway.pipeline import Checkout
from slipway.records import BuildRecord, ImageRecord, base_lock_key, python_lock_keys

ROOT = Path(__file__).parents[3]
Moved = dict[str, tuple[str, ...]]


def repository_files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


FILES = repository_files()


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as it is, to be changed one file at a time."""
    root = tmp_path_factory.mktemp("repository")
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, root / name)
    return root


@pytest.fixture(scope="module")
def start(copy: Path) -> tuple[Checkout, dict[str, BuildInputs]]:
    """The checkout before any change, and what decides each image."""
    checkout = Checkout.at(copy)
    return checkout, checkout.inputs(checkout.matrix.images)


def moved_images(copy: Path, before: Mapping[str, BuildInputs]) -> Moved:
    """Image -> why `plan` builds it again."""
    checkout = Checkout.at(copy)
    inputs = checkout.inputs(checkout.matrix.images)
    records = {
        name: ImageRecord(
            built=BuildRecord(was.build_id, json.loads(json.dumps(was.as_json())), "r", "i", 1, 1.0)
        )
        for name, was in before.items()
    }
    images = [image for image in checkout.matrix.images if image.name in before]
    steps = plan_steps(images, inputs, records, checkout.locks.bases, date(2026, 1, 1))
    return {
        step.image.name: tuple(text.partition(" -> ")[0] for text in step.because)
        for step in steps
        if step.action != "up to date"
    }


@contextlib.contextmanager
def changed_text(path: Path, change: Callable[[str], str]) -> Iterator[None]:
    text = path.read_text()
    path.write_text(change(text))
    try:
        yield
    finally:
        path.write_text(text)


def append(path: Path) -> Callable[[str], str]:
    """A change that the file's form allows and that says nothing new."""
    comment = {".md": "\nword\n", ".j2": "{# word #}\n", ".json": " \n", ".c": "/* word */\n"}
    return lambda text: text + comment.get(path.suffix, "# word\n")


IN_IMAGES = ("entrypoints/", "images/context/", "images/local/", "images/lock/")
"""Folders whose files an image may hold; `versions.yaml` and the templates are seen through the
Dockerfiles that come of them."""


def holds_nothing(name: str) -> bool:
    return name.endswith(".md") or not name.startswith(IN_IMAGES)


@pytest.mark.parametrize(
    "kind",
    [
        "README.md", "versions", ".ci", ".git", "bench", "docs", "entrypoints", "examples",
        "images/generated", "images/templates", "inv", "pyproject", "requirements", "slipway",
        "tasks", "tests", "CONTRIBUTING", "LICENSE", ".hadolint", ".github", "schema", "CHANGELOG",
        "SECURITY", ".editorconfig", ".pre-commit",
    ],
)  # fmt: skip
def test_a_word_in_what_no_image_holds_moves_no_image(
    copy: Path, start: tuple[Checkout, dict[str, BuildInputs]], kind: str
) -> None:
    contents = {
        copy / name: (ROOT / name).read_bytes()
        for name in FILES
        if name.startswith(kind) and holds_nothing(name)
    }
    for path, content in contents.items():
        path.write_bytes(content + append(path)("").encode())
    try:
        assert moved_images(copy, start[1]) == {}
    finally:
        for path, content in contents.items():
            path.write_bytes(content)


def test_every_file_is_of_a_class_that_is_tested() -> None:
    kinds = next(mark.args[1] for mark in _kinds())
    assert [n for n in FILES if holds_nothing(n) and not n.startswith(tuple(kinds))] == []


def _kinds() -> list[pytest.Mark]:
    function = test_a_word_in_what_no_image_holds_moves_no_image
    return [mark for mark in function.pytestmark if mark.name == "parametrize"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [n for n in FILES if not holds_nothing(n)])
def test_a_changed_file_moves_the_images_that_hold_it_and_the_plan_says_why(
    copy: Path, start: tuple[Checkout, dict[str, BuildInputs]], name: str
) -> None:
    checkout, before = start
    with changed_text(copy / name, change_of(name)):
        moved = moved_images(copy, before)
    assert moved == expected(checkout, before, name)


def change_of(name: str) -> Callable[[str], str]:
    """Another content: another hash in a lock, a comment elsewhere."""
    if name.startswith("images/lock/python/"):
        return _other_hash
    if name.startswith("images/lock/tools/"):
        return lambda text: text.replace('"binary_sha256": "', '"binary_sha256": "f')
    if name.startswith("images/lock/bases/") and "local-" not in name:  # our own have no digest
        return lambda text: json.dumps({**json.loads(text), "digest": f"sha256:{'f' * 64}"})
    return append(Path(name))


def _other_hash(text: str) -> str:
    head, mark, tail = text.partition("--hash=sha256:")
    return f"{head}{mark}{'f' * 64}{tail[64:]}"


def expected(checkout: Checkout, before: Mapping[str, BuildInputs], name: str) -> Moved:
    """What a change of this file has to move, by what the matrix says of each image."""
    moved: Moved = {}
    for image in checkout.matrix.images:
        if because := reason(checkout, before[image.name], image, name):
            moved[image.name] = (because,)
    return moved


def reason(checkout: Checkout, inputs: BuildInputs, image: Image, name: str) -> str | None:
    path = Path(name)
    own = image.base.registry is None
    keys = python_lock_keys(image, checkout.locks.bases)
    closures = [checkout.locks.python[key] for _, key in keys]
    key = path.name.removesuffix(".txt")
    of_the_base = name.startswith("images/local/") and path.name != "packages.txt"
    if own and (of_the_base or key == base_lock_key(image.base)):
        return f"base digest moved {inputs.base.removeprefix('sha256:')[:12]}"
    if name.startswith("entrypoints/"):
        return "launcher changed"
    if path.name == "install_addons.py":
        return "installer changed" if keys else None
    if path.name in ("build_wheel.py", "build.txt"):
        built = any(pin.source for closure in closures for pin in closure.pins)
        return "how wheels are built of sdists changed" if built else None
    if name.startswith("images/lock/bases/") and not own and image.base.name == path.stem:
        return "base digest moved unlocked"
    if name.startswith("images/lock/tools/") and image.addon(path.stem):
        return f"binary of {path.stem} changed"
    return next((f"locked requirements of {a.name} changed" for a, k in keys if k == key), None)


def test_a_change_of_the_launcher_makes_one_layer_anew(
    copy: Path, start: tuple[Checkout, dict[str, BuildInputs]]
) -> None:
    checkout, before = start
    with changed_text(copy / "entrypoints/launcher/cli.py", lambda text: text + "# word\n"):
        after = Checkout.at(copy).inputs(checkout.matrix.images)
    for name, was in before.items():
        changed = [layer for layer, key in after[name].layers.items() if was.layers[layer] != key]
        assert changed == ["launcher"]


def test_images_that_begin_alike_share_the_keys_of_their_layers(
    start: tuple[Checkout, dict[str, BuildInputs]],
) -> None:
    older, newer = start[1]["local-ds0.19.2"].layers, start[1]["local-ds0.19.8"].layers
    assert older["sagemaker-training"] == newer["sagemaker-training"]
    assert older["deepspeed"] != newer["deepspeed"]
    assert older["s5cmd"] == newer["s5cmd"]
    assert older["launcher"] == newer["launcher"]


def test_every_layer_of_a_dockerfile_has_a_key(
    start: tuple[Checkout, dict[str, BuildInputs]],
) -> None:
    checkout, inputs = start
    for image in checkout.matrix.images:
        text = (checkout.project.generated / image.name / "Dockerfile").read_text()
        steps = [line for line in text.splitlines() if line.startswith(("RUN ", "COPY "))]
        assert len(inputs[image.name].layers) == len(steps)


def test_every_module_of_the_launcher_that_is_copied_is_read_in_an_image() -> None:
    """A module that no other imports is a program of its own, or stands in READ_OUTSIDE."""
    project = Project.at(ROOT)
    sources = [Path(str(file.source)) for file in launcher_files(project, "")]
    modules = [path for path in sources if path.suffix == ".py"]
    imported = {name for path in modules for name in imports_of(path)}
    programs = {path for path in modules if "__main__" in path.read_text() or path.stem[:2] == "__"}
    lonely = [
        path.relative_to(project.launcher).as_posix()
        for path in modules
        if path not in programs
        and ".".join(path.relative_to(project.launcher).with_suffix("").parts) not in imported
        and "user_python" not in path.parts  # run by the Python of the image
    ]
    assert lonely == []
    assert all((project.launcher / name).is_file() for name in READ_OUTSIDE)


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a module may name: `import a.b`, `from a.b import c` (c may be one)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_document_is_copied() -> None:
    files = launcher_files(Project.at(ROOT), "")
    assert [f.target for f in files if f.target.endswith(".md")] == []


def test_images_with_one_interpreter_share_the_launchers_layer_and_others_do_not() -> None:
    """What the layer records of the interpreter is in its key, and in nothing else of it."""
    project = Project.at(ROOT)
    one, other = (
        {f.target: f.sha256 for f in launcher_files(project, python)}
        for python in ("/opt/venv/bin/python", "/opt/conda/bin/python")
    )
    assert {name for name in one if one[name] != other[name]} == {"opt/entrypoints/image.env"}
