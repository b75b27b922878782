from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.core import Project, SlipwayError
from slipway.matrix import Image, load_matrix
from slipway.records import Locks, Pin, PythonLock, python_lock_keys
from slipway.verify import capabilities_of, suite_hash
from slipway.verify.capabilities import Capability
from slipway.verify.expectations import (
    CheckedImage,
    FileFact,
    ToolFact,
    may_come,
    may_move,
    private_files,
)
from slipway.verify.image_checks import check_folders

CHECKOUT = Path(__file__).parents[3]
LOCKS = Locks({}, {}, {})
IMAGES = {image.name: image for image in load_matrix(CHECKOUT / "versions.yaml").images}


def names(image: str) -> list[str]:
    return [capability.name for capability in capabilities_of(IMAGES[image])]


def test_every_claim_of_every_image_has_checks() -> None:
    project = Project.at(CHECKOUT)
    for image in IMAGES.values():
        assert check_folders(project, image)


def test_every_folder_of_checks_is_chosen_by_some_image() -> None:
    used = {capability.folder for image in IMAGES.values() for capability in capabilities_of(image)}
    there = {path.parent.name for path in (CHECKOUT / "tests" / "image").glob("*/test_*.py")}
    assert there <= used


def test_an_image_is_checked_for_its_platform_its_device_and_what_is_in_it() -> None:
    assert names("local-ds0.19.8") == [
        "common",
        "sagemaker",
        "cpu",
        "torch",
        "sagemaker-training",
        "deepspeed",
        "s5cmd",
    ]
    assert "hyperpod" in names("local-hyperpod-ds0.19.8")
    assert "deepspeed" not in names("local")
    assert {"gpu", "transformers"} <= set(names("huggingface-2.9-sagemaker-ds0.19.8"))
    assert "smp" in names("smp-2.5-hyperpod")


def test_a_cuda_mismatch_asks_for_an_operator_to_be_compiled() -> None:
    assert "deepspeed-cuda-mismatch" in names("pytorch-2.13-sagemaker-ds0.19.8")
    assert "deepspeed-cuda-mismatch" not in names("pytorch-2.12-sagemaker-ds0.19.8")


def test_a_toolkit_asks_for_a_kernel_to_be_compiled() -> None:
    assert "deepspeed-gpu" in names("pytorch-2.12-sagemaker-ds0.19.8")
    assert "deepspeed-gpu" not in names("pytorch-2.12-cpu-sagemaker-ds0.19.8")
    assert "deepspeed-gpu" not in names("smp-2.5-hyperpod")


def test_every_choice_says_the_fact_behind_it() -> None:
    because = {
        c.name: c.because for c in capabilities_of(IMAGES["pytorch-2.13-sagemaker-ds0.19.8"])
    }
    assert because["deepspeed"] == "add-on deepspeed 0.19.8: replace"
    assert because["sagemaker"] == "platform: sagemaker"
    assert "13.3" in because["deepspeed-cuda-mismatch"]
    assert "13.0" in because["deepspeed-cuda-mismatch"]


def test_a_folder_is_a_name_that_python_can_import() -> None:
    assert Capability("sagemaker-training", "").folder == "sagemaker_training"


def suite(folder: Path) -> Project:
    """A project with one small check for each claim of the image."""
    for capability in capabilities_of(IMAGES["local"]):
        place = folder / "tests" / "image" / capability.folder
        place.mkdir(parents=True)
        (place / f"test_{capability.folder}_x.py").write_text("def test(): pass\n")
    (folder / "slipway" / "verify").mkdir(parents=True)
    (folder / "slipway" / "verify" / "plugin.py").write_text("# 1\n")
    (folder / "tests" / "image" / "allowed.yaml").write_text("[]\n")
    return Project(folder, folder / "state")


def test_a_claim_without_a_check_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    project = suite(tmp_path)
    (tmp_path / "tests" / "image" / "sagemaker" / "test_sagemaker_x.py").unlink()
    with pytest.raises(SlipwayError, match=r"image/sagemaker: local has sagemaker .*no check"):
        check_folders(project, IMAGES["local"])


def test_an_addon_without_checks_of_its_own_is_checked_as_any_other(tmp_path: Path) -> None:
    project = suite(tmp_path)
    (tmp_path / "tests" / "image" / "s5cmd" / "test_s5cmd_x.py").unlink()
    assert [path.name for path in check_folders(project, IMAGES["local"])] == [
        "common",
        "sagemaker",
        "cpu",
        "torch",
        "sagemaker_training",
    ]


@pytest.mark.parametrize(
    "changed", ["tests/image/common/test_common_x.py", "slipway/verify/plugin.py"]
)
def test_the_suites_hash_follows_the_checks_and_what_runs_them(
    tmp_path: Path, changed: str
) -> None:
    project = suite(tmp_path)
    before = suite_hash(project, IMAGES["local"], LOCKS)
    assert suite_hash(project, IMAGES["local"], LOCKS) == before
    (tmp_path / changed).write_text("def test(): assert False\n")
    assert suite_hash(project, IMAGES["local"], LOCKS) != before


def test_the_suites_hash_follows_what_the_image_must_be_and_what_is_allowed(
    tmp_path: Path,
) -> None:
    project, image = suite(tmp_path), IMAGES["local"]
    before = suite_hash(project, image, LOCKS)
    assert suite_hash(project, replace(image, size_budget_mb=1), LOCKS) != before
    moved = replace(image, base=replace(image.base, moves={"protobuf": "because"}))
    assert suite_hash(project, moved, LOCKS) != before
    (tmp_path / "tests" / "image" / "allowed.yaml").write_text("- {pattern: x}\n")
    assert suite_hash(project, image, LOCKS) != before


def test_checks_of_other_capabilities_do_not_change_the_suites_hash(tmp_path: Path) -> None:
    project = suite(tmp_path)
    before = suite_hash(project, IMAGES["local"], LOCKS)
    (tmp_path / "tests" / "image" / "gpu").mkdir()
    (tmp_path / "tests" / "image" / "gpu" / "test_gpu_x.py").write_text("")
    assert suite_hash(project, IMAGES["local"], LOCKS) == before


def locks_of(image: Image, *more: str) -> Locks:
    python = {
        key: PythonLock(key, addon.name, tuple(Pin(name, "1", ()) for name in more))
        for addon, key in python_lock_keys(image, {})
    }
    return Locks({}, python, {})


def test_what_may_be_new_is_what_the_locks_name() -> None:
    image = IMAGES["local-ds0.19.8"]
    assert may_come(image, locks_of(image, "Ninja", "gevent")) == (
        "deepspeed",
        "gevent",
        "ninja",
        "sagemaker-pytorch-training",
        "sagemaker-training",
    )


def test_without_a_lock_nothing_is_said_about_what_may_be_new() -> None:
    assert may_come(IMAGES["local-ds0.19.8"], Locks({}, {}, {})) is None


def test_what_may_move_is_what_is_replaced_and_what_the_base_lists() -> None:
    image = IMAGES["pytorch-2.13-sagemaker-ds0.19.8"]
    assert set(may_move(image)) == {"sagemaker-training", "deepspeed"}
    base = replace(image.base, moves={"Proto_Buf": "a reason"})
    assert may_move(replace(image, base=base))["proto-buf"] == "a reason"
    assert may_move(IMAGES["local-ds0.19.8"]) == {}


def test_private_files_of_the_host_are_known_by_their_hash(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine x")
    (tmp_path / "ca.pem").write_text("certificate")
    found = private_files(tmp_path, {"PIP_CERT": str(tmp_path / "ca.pem"), "SSL_CERT_FILE": ""})
    assert sorted(found.values()) == ["PIP_CERT of the build host", "~/.netrc of the build host"]
    assert all(len(digest) == 64 for digest in found)


@pytest.mark.parametrize("come", [None, ("deepspeed", "ninja")])
def test_a_subject_is_read_back_as_it_was_handed_over(come: tuple[str, ...] | None) -> None:
    subject = CheckedImage(
        engine="unix:///x",
        reference="a:1",
        image_id="sha256:1",
        base_reference="b:1",
        base_id="sha256:2",
        cell={"base": {"family": {"python": "/opt/venv/bin/python"}, "facts": {"torch": "2"}}},
        labels={"l": "v"},
        environment={"E": "v"},
        tools={"s5cmd": ToolFact("2.3.0", "/usr/local/bin/s5cmd", None)},
        files={"/opt/a": FileFact("0" * 64, "0644", "0:0")},
        built={"/opt/b": ["bin/b"]},
        system={"jq:amd64": "1.6-2.1"},
        removed=("jo",),
        checks={"b": "b --version"},
        workdir="/",
        user="root",
        may_move={},
        may_come=come,
        size_budget=5,
        private={},
    )
    text = subject.to_json()
    assert CheckedImage.from_json(text) == subject
    assert json.loads(text)["tools"]["s5cmd"]["path"] == "/usr/local/bin/s5cmd"
    assert subject.python == "/opt/venv/bin/python"
    assert subject.facts["torch"] == "2"
