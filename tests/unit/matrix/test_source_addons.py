"""Add-ons that a script builds: their stages, what the build id counts of them, mistakes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from slipway.core import SlipwayError
from slipway.derive import layer_keys, render_dockerfile
from slipway.derive.source_stages import source_keys, source_stages
from slipway.matrix import Image, Matrix
from slipway.pipeline import Checkout
from slipway.records import Locks
from tests.support.matrix_samples import SMALL, errors_of, image_of, loaded

ROOT = Path(__file__).parents[3]
NOTHING = Locks({}, {}, {})
NAME = "pytorch-2.13-hyperpod-ds0.19.8"
BASE = "${BASE_REGISTRY}/pytorch:2.13.0-cu133-amzn2023"
SHA = "0" * 64
URL = "https://example.invalid/a-1.0.tar.gz"
SOURCE = f"""\
  upper:
    needs: [between]
    source:
      script: builds/upper
      folder: /opt/upper/
      inputs: {{a-1.0.tar.gz: {{url: "{URL}", sha256: "{SHA}"}}}}
      gives: [bin/upper]
    check: /opt/upper/bin/upper --version
    because: it is on top
  between:
    needs: [lower]
    env: {{BETWEEN: "1"}}
    because: what stands between is no build
  lower:
    source: {{script: builds/lower, folder: /opt/lower}}
    because: it is below
"""


def with_source(text: str = SOURCE) -> str:
    return SMALL.replace("\ntools:\n", f"{text}\ntools:\n")


def dockerfile(image: Image) -> str:
    return render_dockerfile(image, NOTHING, (), ROOT / "images" / "templates")


def stages(text: str) -> list[str]:
    return [f"FROM {stage}" for stage in text.split("\nFROM ")[1:]]


def matrix_with_source(folder: Path) -> Matrix:
    return loaded(folder, with_source())


def test_each_build_has_a_stage_on_the_base_and_only_its_folder_goes_on(tmp_path: Path) -> None:
    lower, upper, last = stages(dockerfile(image_of(matrix_with_source(tmp_path), NAME)))
    for stage, name in ((lower, "lower"), (upper, "upper")):
        assert stage.startswith(f"FROM {BASE} AS source-{name}\n")
        assert f"--mount=type=bind,source=source/{name},target=/mnt" in stage
        assert "SLIPWAY_PYTHON=/opt/venv/bin/python" in stage
        assert "CUDA_HOME=/usr/local/cuda" in stage
    assert "COPY" not in lower
    # It has what it needs, also through an add-on that is none of its kind.
    assert "COPY --from=source-lower --chown=0:0 /opt/lower/ /opt/lower/\n" in upper
    assert '"sh", "/mnt/build_source.sh", "/opt/upper", "bin/upper"]' in upper
    assert last.startswith(f"FROM {BASE}\n")
    assert [line for line in last.splitlines() if "--from" in line] == [
        "COPY --from=source-lower --chown=0:0 /opt/lower/ /opt/lower/",
        "COPY --from=source-upper --chown=0:0 /opt/upper/ /opt/upper/",
    ]
    assert "source=source/" not in last


def test_a_stage_of_a_base_with_a_user_runs_as_root_and_one_without_gpu_has_no_cuda(
    tmp_path: Path,
) -> None:
    text = with_source().replace("    user: root\n    cuda_home", "    user: me\n    cuda_home")
    text = text.replace("base: [pytorch-2.13-ec2-gpu]", "base: [pytorch-2.13-sagemaker-cpu]")
    lower, *_ = stages(dockerfile(image_of(loaded(tmp_path, text), NAME)))
    assert "\nUSER root\nRUN " in lower
    assert "CUDA_HOME" not in lower


def test_what_a_stage_does_is_in_the_key_of_its_layer_and_of_no_other(tmp_path: Path) -> None:
    text = dockerfile(image_of(matrix_with_source(tmp_path), NAME))
    before = layer_keys(text, "sha256:base", {"upper:/opt/upper": "one"})
    after = layer_keys(text, "sha256:base", {"upper:/opt/upper": "two"})
    assert {name for name in before if before[name] != after[name]} == {"upper:/opt/upper"}
    assert before.keys() == {"deepspeed", "lower:/opt/lower", "upper:/opt/upper", "launcher"}


def test_packages_that_a_build_needs_are_installed_in_its_stage_and_decide_its_key(
    tmp_path: Path,
) -> None:
    text = with_source().replace("    needs: [lower]\n", "    needs: [lower, deepspeed]\n")
    image = image_of(loaded(tmp_path, text), NAME)
    lower, upper, _ = stages(dockerfile(image))
    install = '"/mnt/install_addons.py", "deepspeed", "--replace", "deepspeed"]'
    assert install in upper
    assert install not in lower
    assert upper.index(install) < upper.index("COPY --from=source-lower") < upper.index("build_so")
    # What it was resolved on top of comes with it: without that, it would not fit.
    sagemaker = image_of(loaded(tmp_path, text), "pytorch-2.8-sagemaker-ds0.19.8")
    (stage,) = [s for s in source_stages(sagemaker) if s.addon.name == "upper"]
    assert [addon.name for addon in stage.packages] == ["sagemaker-training", "deepspeed"]
    keys = [
        source_keys(source_stages(image), {"upper": "1", "lower": "2"}, "driver", {"deepspeed": d})
        for d in ("one", "two")
    ]
    assert keys[0]["lower"] == keys[1]["lower"]
    assert keys[0]["upper"] != keys[1]["upper"]


def checkout(folder: Path) -> Checkout:
    """A repository of SMALL, with the scripts."""
    folder.mkdir(exist_ok=True)
    (folder / "versions.yaml").write_text(with_source())
    for name in ("images/templates", "images/context", "entrypoints"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
    (folder / "builds").mkdir(exist_ok=True)
    for name in ("upper", "lower"):
        (folder / "builds" / name).write_text("make\n")
    return Checkout.at(folder)


def build_ids(root: Path) -> dict[str, str]:
    found = Checkout.at(root)
    inputs = found.inputs(found.matrix.images)
    return {name: each.build_id for name, each in inputs.items()}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("builds/upper", "make", "make all"),
        ("builds/lower", "make", "make all"),  # what is built with it becomes another, too
        ("images/context/build_source.sh", "315532800", "315532801"),
        ("versions.yaml", SHA, "1" * 64),
        ("versions.yaml", "gives: [bin/upper]", "gives: [bin/upper, lib]"),
        ("versions.yaml", "folder: /opt/lower", "folder: /opt/lowest"),
    ],
)
def test_whatever_decides_a_build_decides_the_build_id(
    tmp_path: Path, name: str, old: str, new: str
) -> None:
    checkout(tmp_path)
    before = build_ids(tmp_path)
    path = tmp_path / name
    path.write_text(path.read_text().replace(old, new))
    after = build_ids(tmp_path)
    assert before.keys() == after.keys()
    assert [image for image in before if before[image] == after[image]] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (URL, "https://mirror.invalid/a-1.0.tar.gz"),
        ("because: it is on top", "because: of something else"),
        ("    check: /opt/upper/bin/upper --version\n", ""),
    ],
)
def test_what_does_not_decide_it_moves_nothing(tmp_path: Path, old: str, new: str) -> None:
    checkout(tmp_path)
    before = build_ids(tmp_path)
    path = tmp_path / "versions.yaml"
    path.write_text(path.read_text().replace(old, new))
    assert build_ids(tmp_path) == before


def test_a_script_that_is_not_there_is_named(tmp_path: Path) -> None:
    found = checkout(tmp_path)
    (tmp_path / "builds" / "upper").unlink()
    with pytest.raises(SlipwayError, match="upper is built by builds/upper, and there is no file"):
        found.inputs(found.matrix.images)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("/opt/upper/", "/usr/local/", "/usr/local/ is a folder of the base"),
        ("/opt/upper/", "/opt/../etc/", "is a folder of the base"),
        ("/opt/upper/", "opt", "addons.upper.source.folder"),
        ("bin/upper]", "../upper]", "'../upper' is no path below `folder`"),
        ("bin/upper]", "/bin/upper]", "'/bin/upper' is no path below `folder`"),
        (URL, "ftp://example.invalid/a", "is no address of a file"),
        (URL, "https://me:secret@example.invalid/a", "has a name or password in it"),
        (SHA, "0" * 63, "addons.upper.source.inputs.a-1.0.tar.gz.sha256"),
        ("a-1.0.tar.gz:", "../a:", "addons.upper.source.inputs"),
        ("script: builds/upper", "script: ../upper", "is no path of the repository"),
        ("needs: [between]", "needs: [betwen]", "no add-on 'betwen' (did you mean between"),
        ("  upper:\n", "  Upper one:\n", "'Upper one' cannot name a stage of a build"),
        ("    check: /opt/upper/bin/upper --version", '    check: "a\\nb"', "more than a line"),
        ("    needs: [between]", "    version: 1.0.0", "has both `version` and `source`"),
    ],
)
def test_a_mistake_is_said(tmp_path: Path, old: str, new: str, what: str) -> None:
    assert with_source().count(old) >= 1
    said = [said for _, said, _ in errors_of(tmp_path, with_source().replace(old, new, 1))]
    assert any(what in one for one in said), said
