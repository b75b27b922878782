"""`./inv ship` as a user runs it: the whole way, again, interrupted, twice at once, broken.

In the order of this file the first test does the work from nothing; the others build on its base.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from packaging.utils import canonicalize_name

from slipway.core import Project, exclusive, silent
from slipway.engine import (
    BARE,
    Engine,
    find_image_id,
    inspect_image,
    run_once,
)
from slipway.records import load_image_layers, read_run_log
from slipway.registry import (
    ImagePacker,
    RegistryClient,
    Target,
    credentials_for,
    push_image,
    stop_local_registry,
)
from slipway.wheels import read_packages
from tests.support.clones import Clone
from tests.support.registry.ecr_front_door import REGION, Door

pytest_plugins = ["tests.support.registry.fixtures"]

SCHEMA2 = "application/vnd.docker.distribution.manifest.v2+json"
STEPS = ["build", "verify", "sqsh", "push", "bill"]


@pytest.fixture(scope="module")
def clone(
    engine: Engine, shared_project: Project, tmp_path_factory: pytest.TempPathFactory
) -> Clone:
    """A clone whose embedded engine runs."""
    assert engine.embedded
    made = Clone.make(tmp_path_factory.mktemp("ship") / "clone", shared_project.state)
    made.change_launcher("for the first ship")
    # Of an earlier session:
    for left in (*shared_project.records.glob("*.json"), *shared_project.sqsh.glob("*.sqsh*")):
        left.unlink()
    return made


@pytest.fixture(scope="module")
def shipped(clone: Clone) -> dict[str, Any]:
    """What the first `ship` of the clone says."""
    (made,) = clone.json("ship")
    return made  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def _no_leftovers(engine: Engine, shared_project: Project) -> object:
    """Whatever a test did: no container stays, and nothing half-made."""
    yield
    assert engine.client.containers.list(all=True) == []
    assert [p for p in shared_project.state.rglob("*.partial*") if "/engine/" not in str(p)] == []
    return None


def test_ship_builds_verifies_exports_and_pushes_the_default_image(
    clone: Clone, engine: Engine, shared_project: Project, shipped: dict[str, Any]
) -> None:
    steps = [(step["name"], step["fresh"]) for step in shipped["steps"]]
    assert steps == [(name, True) for name in STEPS]
    record = shipped["record"]
    built, exported, pushed = record["built"], record["exported"], record["pushed"]["local"]

    assert find_image_id(engine, built["reference"]) == built["image_id"]
    labels = inspect_image(engine, built["image_id"])["Config"]["Labels"]
    assert labels["io.slipway.build-id"] == built["build_id"]
    assert json.loads(labels["io.slipway.matrix"])["name"] == shipped["image"]

    sqsh = Path(exported["path"])
    listed = subprocess.run(
        ["unsquashfs", "-ll", "-d", "", str(sqsh)], check=True, capture_output=True, text=True
    ).stdout
    assert " /etc/rc\n" in listed
    assert " /opt/entrypoints/entrypoint.sh\n" in listed
    sidecar = json.loads(Path(f"{sqsh}.json").read_text())
    assert (sidecar["build_id"], sidecar["size"]) == (built["build_id"], sqsh.stat().st_size)
    assert sidecar["digest"] == exported["digest"]
    clone.inv("sqsh.verify", str(sqsh))

    host, _, name = pushed["uri"].partition("/")
    repository, _, tag = name.rpartition(":")
    with RegistryClient(host, credentials_for(project=shared_project)) as registry:
        manifest = registry.manifest(repository, tag)
    assert (manifest.digest, manifest.media_type) == (pushed["digest"], SCHEMA2)
    assert manifest.json()["config"]["digest"] == built["image_id"]
    assert tag.endswith(built["build_id"][:12])


def test_a_ship_records_how_it_went_and_what_the_image_is_made_of(
    shared_project: Project, engine: Engine, shipped: dict[str, Any]
) -> None:
    built = shipped["record"]["built"]
    *_, run = [  # sessions before this one have built the same
        run
        for run in map(read_run_log, sorted(shared_project.runs.glob("*.jsonl")))
        if any(note.get("build_id") == built["build_id"] for note in run.notes)
    ]
    assert run.ended is not None
    assert run.unread == ()
    noted = [(note["image"], note["name"]) for note in run.notes if note["what"] == "stage"]
    assert noted == [(shipped["image"], name) for name in STEPS]
    done = {step.task for step in run.steps if step.state == "done" and not step.step}
    assert {f"{task} {shipped['image']}" for task in ("build", "verify")} <= done
    layers = load_image_layers(shared_project, shipped["image"])
    assert layers is not None
    facts = inspect_image(engine, built["image_id"])
    assert [layer.diff_id for layer in layers.layers] == facts["RootFS"]["Layers"]
    assert sum(layer.size for layer in layers.layers) == pytest.approx(facts["Size"], rel=0.01)
    base = [layer.of_base for layer in layers.layers]
    assert base == sorted(base, reverse=True)
    assert 0 < sum(base) < len(base)


def documents(clone: Clone, folder: Path, image: str) -> dict[str, Path]:
    """The files beside an image in the target, by name."""
    clone.inv("registry.show", image, "--output", str(folder))
    return {path.name: path for path in folder.glob("*/*")}


def billed_packages(bill: Path) -> dict[str, set[str]]:
    """Names with versions of a bill, by kind."""
    entries = json.loads(bill.read_text())["packages"]
    return {
        kind: {
            f"{entry['name']} {entry['versionInfo']}"
            for entry in entries
            if entry["SPDXID"].startswith(f"SPDXRef-{kind}-")
        }
        for kind in ("python", "dpkg", "tool")
    }


def test_the_bill_beside_the_image_has_exactly_what_is_in_a_container_of_it(
    clone: Clone, engine: Engine, shipped: dict[str, Any], tmp_path: Path
) -> None:
    files = documents(clone, tmp_path, shipped["image"])
    assert set(files) == {"bill.spdx.json", "build.log", "cell.json", "verify.json"}
    reference = shipped["record"]["built"]["reference"]
    listed = billed_packages(files["bill.spdx.json"])
    python = read_packages(engine, reference, "/opt/venv/bin/python")
    assert python is not None
    assert listed["python"] == {f"{canonicalize_name(n)} {v}" for n, v in python.items()}
    query = ["dpkg-query", "-W", "-f", "${Package} ${Version}\\n"]
    done = run_once(engine, reference, query, BARE, timeout_s=60)
    assert listed["dpkg"] == set(done.stdout.decode().splitlines())
    cell = json.loads(files["cell.json"].read_text())
    assert cell["build_id"] == shipped["record"]["built"]["build_id"]
    assert json.loads(files["verify.json"].read_text())["passed"] > 0
    assert "install_addons.py" in files["build.log"].read_text()


@pytest.mark.usefixtures("shipped")
def test_a_second_ship_does_nothing(clone: Clone, engine: Engine) -> None:
    before = {image.id for image in engine.client.images.list(all=True)}
    (made,) = clone.json("ship")
    assert [(step["name"], step["fresh"]) for step in made["steps"]] == [(s, False) for s in STEPS]
    assert {image.id for image in engine.client.images.list(all=True)} == before


@pytest.mark.usefixtures("shipped")
def test_a_second_ship_imports_nothing_that_only_work_needs(clone: Clone) -> None:
    """It asks the engine by docker and the registry by requests, and renders by jinja2."""
    timed = replace(clone, env={**clone.env, "PYTHONPROFILEIMPORTTIME": "1"})
    lines = [line.split("|") for line in timed.inv("ship").stderr.splitlines()]
    imported = {words[2].strip() for words in lines if words[0].startswith("import time:")}
    assert {"docker", "requests", "jinja2"} <= imported
    heavy = {"boto3", "botocore", "h2", "pydantic", "pytest", "rich", "ruamel.yaml"}
    assert imported & heavy == set()


def test_the_compression_is_chosen_and_another_one_does_not_overwrite_it(
    clone: Clone, tmp_path: Path
) -> None:
    clone.inv("sqsh", "local", "--compression", "lz4", "--output", str(tmp_path))
    (path,) = tmp_path.glob("*.sqsh")
    told = subprocess.run(
        ["unsquashfs", "-s", str(path)], check=True, capture_output=True, text=True
    ).stdout
    assert "Compression lz4\n" in told
    again = clone.inv("sqsh", "local", "--output", str(tmp_path), code=1)
    assert "made with other options" in again.stderr
    assert "--force" in again.stderr


@pytest.mark.usefixtures("shipped")
def test_the_plan_then_says_up_to_date_and_needs_no_engine(clone: Clone) -> None:
    elsewhere = Clone(clone.root, clone.state, {"DOCKER_HOST": "unix:///nowhere/docker.sock"})
    planned = elsewhere.json("plan", "local-ds0.19.8", "pytorch-2.13-sagemaker-ds0.19.8")
    assert {row["image"]: row["action"] for row in planned["include"]} == {
        "local-ds0.19.8": "up to date",
        "pytorch-2.13-sagemaker-ds0.19.8": "build",
    }


def test_an_image_that_was_removed_from_the_engine_is_built_again(
    clone: Clone, engine: Engine
) -> None:
    (made,) = clone.json("ship")
    engine.client.images.remove(made["record"]["built"]["reference"], force=True)
    (again,) = clone.json("ship")
    fresh = {step["name"]: step["fresh"] for step in again["steps"]}
    assert fresh["build"]


def test_a_second_run_at_the_same_time_is_refused_with_the_pid_of_the_first(clone: Clone) -> None:
    with exclusive(clone.state / "lock", "ship something"):
        done = clone.inv("ship", code=1)
    assert f"inv ship something (pid {os.getpid()}) is at work" in done.stderr


@pytest.mark.parametrize(
    ("task", "at", "signals"),
    [
        ("build", "build local ...", [signal.SIGINT]),
        ("verify", "verify local ...", [signal.SIGTERM, signal.SIGINT]),
        ("sqsh", "sqsh local-", [signal.SIGINT]),
        ("push", "push 127.0.0.1", [signal.SIGINT]),
    ],
)
def test_an_interrupted_run_keeps_nothing_half_made_and_the_next_one_goes_on(
    clone: Clone, engine: Engine, task: str, at: str, signals: list[signal.Signals]
) -> None:
    clone.change_launcher(f"changed for {task}")
    for sent in signals:
        with clone.start(task, "local") as process:
            assert process.stderr is not None
            seen = ""
            for line in process.stderr:
                seen += line
                if line.startswith(at):
                    break
            if sent == signal.SIGINT:
                os.killpg(process.pid, sent)  # as a terminal does
            else:
                process.send_signal(sent)  # as a CI system does
            _, rest = process.communicate()
        assert process.returncode == 128 + sent, seen + rest
        assert "interrupted" in rest
        assert "Traceback" not in rest
        assert engine.client.containers.list(all=True) == []
    clone.inv(task, "local")


def test_one_broken_image_does_not_stop_the_other_and_is_told_again_at_the_end(
    clone: Clone, engine: Engine
) -> None:
    clone.change_launcher("for a broken image and a good one")
    clone.edit(
        "images/templates/launcher.j2",
        r"\Z",
        '{% if image.platform == "hyperpod" %}\n'
        'RUN ["/bin/sh", "-c", "echo oh no; exit 9"]\n'
        "{% endif %}\n",
    )
    try:
        done = clone.inv("build", "local", "local-hyperpod-ds0.19.8", "--jobs", "2", code=1)
    finally:
        clone.edit("images/templates/launcher.j2", r"\{% if image.platform.*", "")
    assert "build local: done" in done.stderr
    last = done.stderr.rstrip().split("inv build: ")[-1]
    assert last.startswith("1 of 2 images failed")
    assert "oh no" in last
    assert "build-local-hyperpod-ds0.19.8.log" in last


def test_a_check_that_fails_keeps_the_image_from_being_exported_and_pushed(clone: Clone) -> None:
    clone.edit("images/templates/runtime.j2", r"ENV ", "ENV NCCL_DEBUG=INFO ")
    try:
        (made,) = json.loads(clone.inv("ship", "local", "--json", code=1).stdout)
    finally:
        clone.edit("images/templates/runtime.j2", r"ENV NCCL_DEBUG=INFO ", "ENV ")
    assert [step["name"] for step in made["steps"]] == ["build"]
    assert "NCCL" in made["failure"]
    assert made["record"]["exported"] is None
    assert made["record"]["pushed"] == {}


def test_ship_to_ecr_makes_the_repository_and_pushes_there(clone: Clone, door: Door) -> None:
    for _ in range(2):
        (made,) = clone.json("ship", "local", "--target", "ecr", "--region", REGION)
        (pushed,) = (p for name, p in made["record"]["pushed"].items() if name.startswith("ecr"))
        assert pushed["media_type"] == SCHEMA2
    assert not made["steps"][-1]["fresh"]
    client = boto3.client("ecr", region_name=REGION)
    (repository,) = client.describe_repositories()["repositories"]
    assert repository["repositoryName"] == "sagemaker-slipway/local"
    assert repository["imageTagMutability"].startswith("IMMUTABLE")
    found = client.describe_images(repositoryName=repository["repositoryName"])["imageDetails"]
    # The first push keeps the base there as well, unless it is another builder's.
    (image,) = (one for one in found if not one["imageTags"][0].startswith("base-"))
    assert image["imageDigest"] == pushed["digest"]


def test_no_aws_credentials_are_an_error_before_anything_is_built(
    clone: Clone, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nonexistent")
    before = {image.id for image in engine.client.images.list(all=True)}
    clone.change_launcher("not to be built")
    done = clone.inv("ship", "local", "--target", "ecr", "--region", REGION, code=1)
    assert "credentials" in done.stderr
    assert {image.id for image in engine.client.images.list(all=True)} == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ship", "pytorch-2.13-sagemakr-ds0.19.8"], "pytorch-2.13-sagemaker-ds0.19.8"),
        (["ship", "pytorch-2.13-sagemaker-ds0.19.8"], "--unlocked"),
        (["ship", "--target", "docker-hub"], "local or ecr"),
        (["push", "local", "--target", "ecr"], "--region"),
        (["sqsh", "local", "--compression", "zstd-23"], "zstd takes 1 to 22"),
        (["ship", "--compression", "brotli"], "zstd, gzip, lzo, lz4, xz, none"),
        (["plan", "pytorch-2.13-sagemaker-ds0.19.8", "--region", "us-wset-2"], "us-west-2"),
    ],
)
def test_wrong_input_is_exit_code_3_with_the_cure(
    clone: Clone, arguments: list[str], told: str
) -> None:
    assert told in clone.inv(*arguments, code=3).stderr


def test_a_mistake_in_versions_yaml_is_told_with_its_line(clone: Clone) -> None:
    text = (clone.root / "versions.yaml").read_text()
    (clone.root / "versions.yaml").write_text(
        text.replace("package_manager: apt", "pakage: apt", 1)
    )
    try:
        done = clone.inv("ship", code=3)
    finally:
        (clone.root / "versions.yaml").write_text(text)
    line = text[: text.index("package_manager: apt")].count("\n") + 1
    assert f"versions.yaml:{line}: " in done.stderr


@pytest.fixture(scope="module", autouse=True)
def _registry_down(shared_project: Project) -> object:
    """The registry that `ship` started ends with these tests."""
    yield
    stop_local_registry(shared_project)
    return None


def test_the_bill_without_an_engine_is_the_same_but_for_what_an_engine_says(
    clone: Clone,
    engine: Engine,
    shared_project: Project,
    shipped: dict[str, Any],
    tmp_path: Path,
) -> None:
    name, pushed = shipped["image"], shipped["record"]["pushed"]["local"]
    with_engine = documents(clone, tmp_path / "one", f"{name}@{pushed['digest']}")
    (base,) = (
        tag
        for image in engine.client.images.list(name="slipway.local/slipway/local")
        for tag in image.tags
    )
    host = pushed["uri"].partition("/")[0]
    reference = f"{host}/base:1"
    push_image(
        engine, base, Target("local", "local", host), "base", "1",
        credentials=credentials_for(project=shared_project), on_event=silent,
        packer=ImagePacker(shared_project.packed, dict),
    )  # fmt: skip
    launcher = clone.root / "entrypoints" / "mark.txt"
    before = launcher.read_text()
    clone.change_launcher("without an engine")
    clone.inv("push", name, "--no-engine", "--base-from", f"registry://{reference}")
    without = documents(clone, tmp_path / "other", name)
    assert set(without) == {"bill.spdx.json", "cell.json"}
    bills = [billed_packages(each["bill.spdx.json"]) for each in (with_engine, without)]
    assert bills[0] == bills[1]
    difference = clone.json("diff", f"{name}@{pushed['digest']}", name)
    assert difference["difference"]["packages"] == []
    launcher.write_text(before)
