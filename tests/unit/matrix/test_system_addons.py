"""Add-ons with packages of the distribution: layers, what decides their build id, mistakes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from slipway.core import Project
from slipway.derive import BuildInputs, layer_keys, plan_steps, render_dockerfile
from slipway.matrix import archives_of
from slipway.pipeline import Checkout
from slipway.records import (
    BuildRecord,
    ImageRecord,
    Locks,
    PackageFile,
    SystemLock,
    system_lock_keys,
    write_system_lock,
)
from tests.support.matrix_samples import SMALL, errors_of, image_of, loaded

ROOT = Path(__file__).parents[3]
TEMPLATES = ROOT / "images" / "templates"
NOTHING = Locks({}, {}, {})
RPM = "pytorch-2.13-hyperpod-ds0.19.8"
DEB = "pytorch-2.8-sagemaker-ds0.19.8"
ADDONS = """\
  top:
    needs: [headers]
    system: {apt: [jq=1.6-2.1], dnf: [jq], moves: {libonig: it is older there}}
    requires: [rich]
    because: reads JSON
  headers:
    system: {apt: [libhwloc-dev], dnf: [hwloc-devel], archives: [extra]}
    because: programs are compiled against them
  program:
    needs: [headers]
    source: {script: builds/program, folder: /opt/program}
    because: is compiled against them
"""
ARCHIVES = """
archives:
  amazon:
    package_manager: dnf
    distribution: true
    key: amazon.asc
    suites: {amzn2023: ["."]}
  ubuntu:
    package_manager: apt
    distribution: true
    key: ubuntu.gpg
    suites: {ubuntu22.04: [jammy, jammy-updates]}
    components: [main]
  extra:
    package_manager: apt
    key: extra.gpg
    suites: {ubuntu22.04: [ubuntu2204/]}
"""
TEXT = SMALL.replace("\ntools:\n", f"{ADDONS}\ntools:\n") + ARCHIVES
LAST_KEY = "    size_budget_mb: 150\n"
"""Of the group hyperpod."""
LOCK = SystemLock(
    "",
    "headers",
    ("hwloc-devel",),
    "given",
    (
        PackageFile("hwloc", "2-1", "x86_64", "hwloc", "2-1", "amazon", "p/a.rpm", "1" * 64, 5),
        PackageFile("hwloc-devel", "2-1", "x86_64", "hwloc", "2-1", "amazon", "b.rpm", "2" * 64, 5),
    ),
)


def dockerfile(folder: Path, name: str) -> str:
    image = image_of(loaded(folder, TEXT), name)
    return render_dockerfile(image, NOTHING, (), TEMPLATES)


def test_an_addon_has_a_layer_of_packages_below_its_python_packages(tmp_path: Path) -> None:
    whole = dockerfile(tmp_path, RPM)
    text = whole.split("\nFROM ")[-1]
    places = [text.index(f"source={folder},") for folder in ("system/headers", "system/top")]
    assert places == sorted(places)
    assert text.index("source=system/top,") < text.index("source=python/top,")
    assert text.count('["sh", "/mnt/install_packages.sh"]') == 2
    keys = layer_keys(whole, "sha256:base", {})
    assert [name for name in keys if name.endswith(":system")] == ["headers:system", "top:system"]


def test_a_build_from_source_has_the_packages_that_it_needs_and_no_others(tmp_path: Path) -> None:
    stage, last = dockerfile(tmp_path, RPM).split("\nFROM ")[1:]
    assert "AS source-program" in stage
    assert "source=system/headers," in stage
    assert "source=system/top," not in stage
    assert stage.index("source=system/headers,") < stage.index("build_source.sh")
    assert "source=system/top," in last


def test_packages_are_those_of_the_bases_package_manager(tmp_path: Path) -> None:
    matrix = loaded(tmp_path, TEXT)
    asked = {
        name: [addon.system.names for addon in image_of(matrix, name).addons if addon.system]
        for name in (RPM, DEB)
    }
    assert asked == {RPM: [("hwloc-devel",), ("jq",)], DEB: [("libhwloc-dev",), ("jq=1.6-2.1",)]}


def test_a_distributions_own_archives_are_asked_and_others_by_name(tmp_path: Path) -> None:
    matrix = loaded(tmp_path, TEXT)
    archives = matrix.archives.values()
    deb, rpm = (image_of(matrix, name).base for name in (DEB, RPM))
    assert [a.name for a in archives_of(archives, deb, [])] == ["ubuntu"]
    assert [a.name for a in archives_of(archives, deb, ["extra"])] == ["ubuntu", "extra"]
    assert [a.name for a in archives_of(archives, rpm, ["extra"])] == ["amazon"]
    arm = replace(deb, facts=replace(deb.facts, architecture="arm64"))
    narrowed = [replace(archive, architectures=("amd64",)) for archive in archives]
    assert archives_of(narrowed, arm, ["extra"]) == []


def test_a_lock_is_of_one_base_and_of_what_is_below(tmp_path: Path) -> None:
    matrix = loaded(tmp_path, TEXT)
    keys = {name: [k for _, k in system_lock_keys(image_of(matrix, name))] for name in (RPM, DEB)}
    assert set(keys[RPM]).isdisjoint(keys[DEB])
    for name, (lower, upper) in keys.items():
        assert lower.startswith(f"{image_of(matrix, name).base.name}_")
        assert upper.startswith(f"{lower}_")
    # What is asked for, where, and what may move are in it; the reason is not.
    changed = TEXT.replace("it is older there", "of another reason")
    assert [k for _, k in system_lock_keys(image_of(loaded(tmp_path, changed), RPM))] == keys[RPM]
    for old, new in [("dnf: [jq]", "dnf: [jo]"), ("libonig:", "libjq:"), ("[extra]", "[]")]:
        other = loaded(tmp_path, TEXT.replace(old, new))
        assert [k for _, k in system_lock_keys(image_of(other, RPM))] != keys[RPM]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of the sample with a lock for one image."""
    for name in ("images/templates", "images/context", "entrypoints"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "builds").mkdir()
    (tmp_path / "builds" / "program").write_text("make\n")
    (tmp_path / "versions.yaml").write_text(TEXT)
    lock(tmp_path, LOCK)
    return tmp_path


def lock(root: Path, packages: SystemLock) -> None:
    """Lock the headers of the image with rpms."""
    (_, key), _ = system_lock_keys(image_of(Checkout.at(root).matrix, RPM))
    write_system_lock(Project.at(root), replace(packages, key=key))


def inputs(root: Path) -> dict[str, BuildInputs]:
    checkout = Checkout.at(root)
    return dict(checkout.inputs(checkout.matrix.images))


def reasons(root: Path, before: dict[str, BuildInputs]) -> dict[str, tuple[str, ...]]:
    """Image -> why `plan` builds it again."""
    checkout = Checkout.at(root)
    records = {
        name: ImageRecord(built=BuildRecord(was.build_id, was.as_json(), "r", "i", 1, 1.0))
        for name, was in before.items()
    }
    images, today = checkout.matrix.images, date(2026, 1, 1)
    steps = plan_steps(images, inputs(root), records, {}, today)
    return {step.image.name: step.because for step in steps if step.action == "rebuild"}


def with_package(**changes: object) -> SystemLock:
    first, *others = LOCK.packages
    return replace(LOCK, packages=(replace(first, **changes), *others))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "packages",
    [
        with_package(sha256="3" * 64),
        with_package(version="2-2"),
        replace(LOCK, packages=LOCK.packages[::-1]),  # the order decides what scripts find
        replace(LOCK, removed=("old",)),
    ],
)
def test_other_packages_move_the_images_that_have_them_with_a_reason(
    root: Path, packages: SystemLock
) -> None:
    before = inputs(root)
    lock(root, packages)
    assert reasons(root, before) == {
        RPM: ("locked packages of headers changed", "script or inputs of program changed")
    }
    after = inputs(root)[RPM].layers
    moved = [layer for layer, key in before[RPM].layers.items() if after[layer] != key]
    # What is installed on top of packages may find them; what is copied is the same on any base.
    assert moved[0] == "headers:system"
    assert "launcher" not in moved


@pytest.mark.parametrize(
    "packages", [with_package(path="elsewhere/a.rpm"), with_package(archive="mirror")]
)
def test_where_packages_are_had_moves_nothing(root: Path, packages: SystemLock) -> None:
    before = inputs(root)
    lock(root, packages)
    assert reasons(root, before) == {}


def test_the_installer_moves_the_images_with_packages_and_no_others(root: Path) -> None:
    (root / "versions.yaml").write_text(TEXT.replace("  top:\n", "  top:\n    on_request: true\n"))
    text = (root / "versions.yaml").read_text()
    only = "    only: {images: [pytorch-2.13-hyperpod-ds0.19.8]}\n    because: programs"
    (root / "versions.yaml").write_text(text.replace("    because: programs", only))
    text = (root / "versions.yaml").read_text()
    only = "    only: {images: [pytorch-2.13-hyperpod-ds0.19.8]}\n    because: is compiled"
    (root / "versions.yaml").write_text(text.replace("    because: is compiled", only))
    before = inputs(root)
    script = root / "images" / "context" / "install_packages.sh"
    script.write_text(script.read_text() + "# word\n")
    assert reasons(root, before) == {RPM: ("installer of system packages changed",)}


def test_what_is_on_request_is_in_the_groups_that_request_it(tmp_path: Path) -> None:
    text = TEXT.replace("  top:\n", "  top:\n    on_request: true\n")
    assert [i.name for i in loaded(tmp_path, text).images if i.addon("top")] == []
    asked = text.replace(LAST_KEY, f"{LAST_KEY}    requests: [top]\n")
    assert {i.group for i in loaded(tmp_path, asked).images if i.addon("top")} == {"hyperpod"}


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("dnf: [jq], ", "", "has top, which names no packages for dnf"),
        ("[jq=1.6-2.1]", "[jq >= 1.6]", "addons.top.system.apt.0"),
        ("[jq=1.6-2.1]", "[../jq]", "addons.top.system.apt.0"),
        ("[jq=1.6-2.1]", "[JQ]", "addons.top.system.apt.0"),
        ("[jq=1.6-2.1]", "[--force-yes]", "addons.top.system.apt.0"),
        ("archives: [extra]", "archives: [extar]", "no archive 'extar' (did you mean extra"),
        ("{amzn2023: [", "{amzn2022: [", "no archive is for amzn2023 amd64"),
        ("    components: [main]\n", "", "has components and flat suites, or neither"),
        ("key: amazon.asc", "key: ../amazon.asc", "archives.amazon.key"),
        ('["."]}\n', '["."]}\n    components: [main]\n', "repositories of rpms have no components"),
        ("    needs: [headers]\n    system", "    version: 1.0.0\n    system", "and `system`"),
    ],
)
def test_a_mistake_is_said(tmp_path: Path, old: str, new: str, what: str) -> None:
    assert TEXT.count(old) >= 1
    said = [said for _, said, _ in errors_of(tmp_path, TEXT.replace(old, new, 1))]
    assert any(what in one for one in said), said


@pytest.mark.parametrize(
    ("request_", "what"),
    [("topp", "no add-on 'topp' (did you mean top"), ("headers", "headers is in every image")],
)
def test_a_request_of_what_is_not_on_request_is_said(
    tmp_path: Path, request_: str, what: str
) -> None:
    said = errors_of(tmp_path, TEXT.replace(LAST_KEY, f"{LAST_KEY}    requests: [{request_}]\n"))
    assert any(what in text for _, text, _ in said), said
