"""Bases that come from a registry: images with the names, tags and shape of AWS's, on loopback.

They are made of the local base: python where the family says it is, and the add-ons that AWS's
images carry as distributions of the right name and version. Their Python is 3.11, which is what
Debian 12 has; the clone's versions.yaml says so.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slipway.core import Project, anonymous, silent
from slipway.engine import (
    BuildAttempt,
    BuildRequest,
    ContainerOptions,
    ContextFile,
    Engine,
    build_image,
    inspect_image,
    push_image_layers,
    run_once,
)
from slipway.local_base import ensure_local_base
from slipway.matrix import load_matrix
from slipway.records import base_lock_key, load_locks
from tests.support.clones import Clone

pytest_plugins = ["tests.support.registry.fixtures"]

DLC = ("deep-learning-containers/pytorch", "2.13.0-cpu-amzn2023-sagemaker")
SMP = ("smdistributed-modelparallel", "2.5.1-gpu-py311-cu124")
DLC_IMAGE = "pytorch-2.13-cpu-sagemaker-ds0.19.8"
SMP_IMAGE = "smp-2.5-sagemaker"

CARRY = """
import importlib.metadata, pathlib, sys
site = pathlib.Path(importlib.metadata.distribution("pip").locate_file(""))
for name, version in (word.split("==") for word in sys.argv[1:]):
    module = name.replace("-", "_")
    info = site / f"{module}-{version}.dist-info"
    (site / module).mkdir()
    (site / module / "__init__.py").write_text("carried = True\\n")
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    (info / "INSTALLER").write_text("pip\\n")
    names = [f"{info.name}/{file}" for file in ("METADATA", "INSTALLER", "RECORD")]
    (info / "RECORD").write_text("".join(f"{n},,\\n" for n in [f"{module}/__init__.py", *names]))
"""

PACKAGES = """
import importlib.metadata, json
print(json.dumps({d.name.lower().replace("_", "-"): d.version
                  for d in importlib.metadata.distributions()}))
"""


def packages(engine: Engine, image: str, python: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(
        run_once(
            engine, image, ["-c", PACKAGES], ContainerOptions(entrypoint=[python]), timeout_s=120
        ).stdout
    )
    return found


@pytest.fixture(scope="module")
def local_base(engine: Engine, shared_project: Project) -> str:
    """The embedded default base, in the engine."""
    (base,) = (b for b in load_matrix(shared_project.versions).bases if b.registry is None)
    lock = load_locks(shared_project).python[base_lock_key(base)]
    return ensure_local_base(shared_project, engine, base, lock, silent)


def publish(
    engine: Engine, host: str, base: str, name: tuple[str, str], carried: list[str], mark: str
) -> str:
    """Build a base of this shape, push it under AWS's name and tag, and give its digest."""
    reference = f"{host}/{name[0]}:{name[1]}"
    words = ", ".join(f'"{word}"' for word in ["/opt/venv/bin/python", "/mnt/carry.py", *carried])
    build_image(
        engine,
        BuildRequest(
            dockerfile=f"FROM {base}\nRUN --mount=type=bind,target=/mnt [{words}]\n"
            'RUN ["ln", "-s", "/opt/venv", "/opt/conda"]\n'
            f"LABEL mark={mark}\nWORKDIR /workspace\n",
            context=(ContextFile("carry.py", CARRY.encode()),),
            tags=(reference,),
            build_args={},
            labels={},
            secrets={},
        ),
        BuildAttempt(f"publish {name[1]}", anonymous, silent, Path("/dev/null")),
    )
    digest = push_image_layers(engine, reference, credentials=anonymous, on_event=silent)
    engine.client.images.remove(reference)  # a builder does not have it yet
    return digest


@pytest.fixture(scope="module")
def digests(engine: Engine, data_registry: str, local_base: str) -> dict[str, str]:
    """What was published: image name -> digest of its base."""
    carried = ["sagemaker-training==5.1.1", "deepspeed==0.19.2"]
    return {
        DLC_IMAGE: publish(engine, data_registry, local_base, DLC, carried, "first"),
        SMP_IMAGE: publish(
            engine, data_registry, local_base, SMP, ["sagemaker-training==4.8.4"], "first"
        ),
    }


@pytest.fixture(scope="module")
def clone(
    shared_project: Project, data_registry: str, tmp_path_factory: pytest.TempPathFactory
) -> Clone:
    """A clone whose registries are on loopback."""
    made = Clone.make(tmp_path_factory.mktemp("upstream") / "clone", shared_project.state)
    made.edit(
        "versions.yaml",
        r"prefix: public.ecr.aws/deep-learning-containers",
        f"prefix: {data_registry}/deep-learning-containers",
    )
    made.edit(
        "versions.yaml",
        r"\n  smp:\n",
        f"\n  smp:\n    public: {{prefix: {data_registry}, repositories: [{SMP[0]}]}}\n",
    )
    made.edit("versions.yaml", r'(torch: 2.13.0, python: )"3.12"', r'\1"3.11"')
    return made


def base_lock(clone: Clone, base: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(
        (clone.root / "images" / "lock" / "bases" / f"{base}.json").read_text()
    )
    return found


def test_lock_records_digest_media_type_and_config_of_bases_in_a_registry(
    clone: Clone, digests: dict[str, str]
) -> None:
    clone.inv("lock", DLC_IMAGE, SMP_IMAGE)
    for base, image in (
        ("pytorch-2.13-sagemaker-cpu", DLC_IMAGE),
        ("smp-2.5-sagemaker-gpu", SMP_IMAGE),
    ):
        lock = base_lock(clone, base)
        assert lock["digest"] == digests[image]
        assert lock["media_type"] == "application/vnd.docker.distribution.manifest.v2+json"
        config = lock["config"]
        assert isinstance(config, dict)
        assert config["WorkingDir"] == "/workspace"
        assert config["Entrypoint"] == ["bash", "-m", "start_with_right_hostname.sh"]
    clone.inv("generate")
    dockerfile = (clone.root / "images" / "generated" / DLC_IMAGE / "Dockerfile").read_text()
    assert f"{DLC[1]}@{digests[DLC_IMAGE]}" in dockerfile


def test_a_locked_base_is_built_on_and_only_what_is_listed_moves(
    clone: Clone, engine: Engine, local_base: str, digests: dict[str, str]
) -> None:
    clone.inv("build", DLC_IMAGE, SMP_IMAGE, "--jobs", "2")
    before = packages(engine, local_base, "/opt/venv/bin/python")
    for name, python, replaced in (
        (DLC_IMAGE, "/opt/venv/bin/python", {"sagemaker-training": "5.1.4", "deepspeed": "0.19.8"}),
        (SMP_IMAGE, "/opt/conda/bin/python", {"sagemaker-training": "5.1.4"}),
    ):
        record = json.loads((clone.state / "images" / f"{name}.json").read_text())["built"]
        after = packages(engine, record["image_id"], python)
        assert replaced.items() <= after.items()
        assert before.items() <= after.items()
        labels = inspect_image(engine, record["image_id"])["Config"]["Labels"]
        assert labels["org.opencontainers.image.base.digest"] == digests[name]


def test_a_moved_tag_changes_nothing_until_the_lock_says_so(
    clone: Clone, engine: Engine, data_registry: str, local_base: str, digests: dict[str, str]
) -> None:
    carried = ["sagemaker-training==5.1.1", "deepspeed==0.19.2"]
    moved = publish(engine, data_registry, local_base, DLC, carried, "second")
    assert moved != digests[DLC_IMAGE]

    (row,) = clone.json("plan", DLC_IMAGE)["include"]
    assert row["action"] == "up to date"
    assert clone.inv("lock", DLC_IMAGE, "--check", code=2).stdout.count(moved[7:19])
    (row,) = clone.json("plan", DLC_IMAGE)["include"]
    assert row["action"] == "up to date"

    clone.inv("lock", DLC_IMAGE)
    (row,) = clone.json("plan", DLC_IMAGE)["include"]
    assert row["action"] == "rebuild"
    assert row["because"] == [f"base digest moved {digests[DLC_IMAGE][7:19]} -> {moved[7:19]}"]


def test_a_base_that_no_lock_pins_is_built_on_only_when_asked_to(clone: Clone) -> None:
    lock = clone.root / "images" / "lock" / "bases" / "smp-2.5-sagemaker-gpu.json"
    kept = lock.read_text()
    lock.write_text(json.dumps({"base": "smp-2.5-sagemaker-gpu", "unresolved": "no network"}))
    try:
        refused = clone.inv("build", SMP_IMAGE, code=3)
        assert "--unlocked" in refused.stderr
        told = clone.inv("build", SMP_IMAGE, "--unlocked")
        assert "no recorded digest" in told.stderr
    finally:
        lock.write_text(kept)


def test_a_registry_that_does_not_answer_leaves_the_lock_as_it_was(
    clone: Clone, data_registry: str
) -> None:
    before = base_lock(clone, "smp-2.5-sagemaker-gpu")
    clone.edit("versions.yaml", rf"prefix: {data_registry}, repo", "prefix: 127.0.0.1:9, repo")
    try:
        done = clone.inv("lock", SMP_IMAGE)
    finally:
        clone.edit("versions.yaml", r"prefix: 127.0.0.1:9, repo", f"prefix: {data_registry}, repo")
    assert "smp-2.5-sagemaker-gpu" in done.stderr
    assert base_lock(clone, "smp-2.5-sagemaker-gpu")["digest"] == before["digest"]
