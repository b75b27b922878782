"""`inv promote`, `rollback`, `registry.list`, `show` and `mirror` as run by a user; no engine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from slipway.core import Project
from slipway.matrix import image_tag, repository_name, select_images
from slipway.pipeline import Checkout
from slipway.registry import (
    Manifest,
    RegistryClient,
    credentials_for,
    digest_of,
    referrers_tag,
    start_local_registry,
    stop_local_registry,
)
from slipway.registry.manifests import OCI_INDEX, OCI_MANIFEST
from tests.support.clones import Clone
from tests.support.oci_bases import base_tar
from tests.support.registry.ecr_front_door import REGION, Door
from tests.support.registry.images import layer_tar, put_blob, put_oci_image

pytest_plugins = ["tests.support.registry.fixtures"]

NAME = "local-ds0.19.8"


@dataclass(frozen=True)
class Shelf:
    """A clone, its local registry, and one image of it."""

    clone: Clone
    client: RegistryClient
    path: str
    aliases: tuple[str, ...]

    def push(self, seed: str, layer: bytes = b"") -> tuple[str, str]:
        """Put something under the tag of the current build; gives tag and digest."""
        checkout = Checkout.at(self.clone.root)
        (image,) = select_images(checkout.matrix, [NAME])
        tag = image_tag(image, checkout.inputs([image])[NAME].build_id)
        return tag, put_oci_image(self.client, self.path, tag, seed=seed, layer=layer).digest


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    root: Path = tmp_path_factory.mktemp("shelf")
    clone = Clone.make(root / "clone", root / "state")
    project = Project(clone.root, clone.state)
    host = start_local_registry(project, 5855).host
    matrix = Checkout.at(clone.root).matrix
    (image,) = select_images(matrix, [NAME])
    with RegistryClient(host, credentials_for(project=project)) as client:
        yield Shelf(clone, client, repository_name(image, matrix.repository_prefix), image.aliases)
    stop_local_registry(project)


def test_an_alias_is_promoted_shown_listed_and_rolled_back(shelf: Shelf) -> None:
    alias = shelf.aliases[-1]
    clone = shelf.clone
    missing = clone.inv("promote", NAME, alias, code=1)
    assert f"./inv push {NAME}" in missing.stderr
    first_tag, first = shelf.push("one")
    planned = clone.json("promote", NAME, alias, "--plan")
    assert planned == [{"alias": alias, "before": None, "after": first, "moved": True}]
    assert shelf.client.head(shelf.path, alias) is None
    clone.inv("promote", NAME, alias)
    assert "already" in clone.inv("promote", NAME, alias).stdout
    clone.change_launcher("the second build")
    second_tag, second = shelf.push("two")
    clone.inv("promote", NAME, alias)
    shown = clone.json("registry.show", NAME)
    assert (shown["digest"], shown["aliases"][alias]) == (second, second)
    assert [move["after"] for move in shown["journal"][alias]] == [first, second]
    assert clone.json("registry.show", f"{NAME}@{first}")["digest"] == first
    listed = {row["tag"]: row["kind"] for row in clone.json("registry.list", NAME)}
    assert listed == {first_tag: "build", second_tag: "build", alias: "alias"}
    clone.inv("rollback", f"local:{alias}")
    assert shelf.client.head(shelf.path, alias) == first
    assert "nothing before" in clone.inv("rollback", f"local:{alias}", code=1).stderr
    assert alias in clone.inv("registry.show", NAME).stdout


def refer_to(shelf: Shelf, digest: str) -> str:
    """Put an artefact whose subject is an image, and the index that older registries list it by."""
    client, path = shelf.client, shelf.path
    empty = put_blob(client, path, b"{}")
    part = {"mediaType": "application/vnd.oci.empty.v1+json", **empty}
    subject = {"mediaType": OCI_MANIFEST, "digest": digest, "size": 1}
    content = {"config": part, "layers": [part], "subject": subject}
    artefact = manifest_of(OCI_MANIFEST, content)
    client.put_manifest(path, artefact.digest, artefact)
    entry = {"mediaType": OCI_MANIFEST, "digest": artefact.digest, "size": len(artefact.raw)}
    client.put_manifest(
        path, digest.replace(":", "-"), manifest_of(OCI_INDEX, {"manifests": [entry]})
    )
    return artefact.digest


def manifest_of(kind: str, content: Mapping[str, object]) -> Manifest:
    raw = json.dumps({"schemaVersion": 2, "mediaType": kind, **content}).encode()
    return Manifest(kind, digest_of(raw), raw)


def test_prune_takes_builds_that_nothing_needs_with_what_refers_to_them(shelf: Shelf) -> None:
    clone, client, path, alias = shelf.clone, shelf.client, shelf.path, shelf.aliases[0]
    digests = {}
    for seed in ("rolled back to", "promoted", "tagged by a person", "old", "current"):
        clone.change_launcher(seed)
        tag, digests[seed] = shelf.push(f"prune {seed}")
        if seed in ("rolled back to", "promoted"):
            clone.inv("promote", NAME, alias)
    client.put_manifest(path, "for-the-paper", client.manifest(path, digests["tagged by a person"]))
    artefact = refer_to(shelf, digests["old"])
    old = digests.pop("old")
    planned = {build["digest"]: build for build in clone.json("registry.prune", NAME)}
    assert planned[old]["referrers"] == [artefact]
    assert planned.keys().isdisjoint(digests.values())
    assert all(client.head(path, digest) for digest in [*planned, artefact])
    assert f"removed {old}" in clone.inv("registry.prune", NAME, "--yes").stderr
    assert clone.json("registry.prune", NAME) == []
    assert not any(client.head(path, digest) for digest in [*planned, artefact])
    assert client.head(path, referrers_tag(old)) is None
    assert all(client.head(path, digest) for digest in digests.values())
    assert client.head(path, tag) == digests["current"]


def test_a_tag_that_the_registry_cannot_read_hides_no_other(shelf: Shelf) -> None:
    """Distribution before 3.0 that is killed while it writes a tag has an empty file of it."""
    clone, path, alias = shelf.clone, shelf.path, shelf.aliases[0]
    clone.change_launcher("readable")
    tag, digest = shelf.push("readable")
    clone.inv("promote", NAME, alias)
    whole = {row["tag"]: row["digest"] for row in clone.json("registry.list", NAME)}
    assert whole[tag] == whole[alias] == digest
    repository = clone.state / f"registry/storage/docker/registry/v2/repositories/{path}"
    link = repository / f"_manifests/tags/{alias}/current/link"
    content = link.read_bytes()
    link.write_bytes(b"")
    try:
        listed = clone.inv("registry.list", NAME, "--json", code=1)
        shown = clone.inv("registry.show", NAME, "--json", code=1)
        kept = clone.inv("registry.prune", NAME, "--yes", code=1)
    finally:
        link.write_bytes(content)
    found = {row["tag"]: row["digest"] for row in json.loads(listed.stdout)}
    assert found == {**whole, alias: "unreadable"}
    assert json.loads(shown.stdout)["aliases"][alias] == "unreadable"
    assert json.loads(shown.stdout)["digest"] == digest
    assert f"nothing is removed here: what {alias} names" in kept.stderr
    for ended in (listed, shown, kept):
        assert f"{path}:{alias}" in ended.stderr
        assert "500" in ended.stderr
    assert {row["tag"] for row in clone.json("registry.list", NAME)} == whole.keys()


def test_a_push_with_soci_puts_a_second_tag_that_goes_with_its_build(shelf: Shelf) -> None:
    clone, client, path = shelf.clone, shelf.client, shelf.path
    clone.change_launcher("indexed")
    tag, digest = shelf.push("indexed", layer_tar("indexed", 11 << 20))
    words = ("push", NAME, "--no-engine")
    assert "soci" not in clone.inv(*words).stdout
    assert "1 layers indexed, 1 of them read now" in clone.inv(*words, "--soci").stdout
    index = client.manifest(path, f"{tag}-soci")
    assert index.media_type == OCI_INDEX
    assert client.head(path, tag) == digest
    again = clone.inv(*words, "--soci").stdout
    assert "done before" in again
    assert "indexed" not in again
    clone.change_launcher("the next one")
    old = {build["digest"] for build in clone.json("registry.prune", NAME)}
    assert {digest, index.digest} <= old
    clone.inv("registry.prune", NAME, "--yes")
    assert not any(client.head(path, one) for one in (digest, index.digest))


@pytest.mark.parametrize("base", ["not kept", "missing", "another", "cut off"])
def test_a_base_that_cannot_be_used_leaves_no_empty_repository(
    shelf: Shelf, door: Door, base: str
) -> None:
    host, path = shelf.client.host, "team/base"
    put_oci_image(shelf.client, path, "another")
    source = {"missing": f"{host}/{path}:none", "cut off": f"127.0.0.1:9/{path}:none"}
    words = [f"--base-from=registry://{source.get(base, f'{host}/{path}:another')}"]
    shelf.clone.change_launcher(base)
    ended = shelf.clone.inv(
        *("push", NAME, "--no-engine", "--target", "ecr", "--region", REGION),
        *(words if base != "not kept" else []),
        code=1,
    )
    assert "1 of 1 images failed" in ended.stderr
    assert boto3.client("ecr", region_name=REGION).describe_repositories()["repositories"] == []


def test_two_builds_are_compared_by_their_layers_and_a_downgrade_fails(shelf: Shelf) -> None:
    site = "opt/venv/lib/python3.11/site-packages"
    digests = []
    for version in ("2.13.0", "2.12.0"):
        shelf.clone.change_launcher(f"with torch {version}")
        metadata = f"Name: torch\nVersion: {version}\n".encode()
        files = {
            "opt/venv/bin/python": b"",
            f"{site}/torch-{version}.dist-info/METADATA": metadata,
        }
        digests.append(shelf.push("", base_tar(files))[1])
    first = f"{NAME}@{digests[0]}"
    refused = shelf.clone.inv("diff", first, NAME, code=1)
    assert "python torch 2.13.0 -> 2.12.0 (down)" in refused.stdout
    assert "--allow-down" in refused.stderr
    taken = shelf.clone.json("diff", first, NAME, "--allow-down")["difference"]
    assert [change["direction"] for change in taken["packages"]] == ["down"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["promote", NAME, "latest"], "has no alias 'latest'"),
        (["promote", "local-ds0.19.9", "x"], "no image"),
        (["promote", "local*", "x"], "Name one"),
        (["rollback", "nothing"], "0 repositories"),
        (["registry.show", "nothing"], "no image"),
        (["registry.mirror", NAME], "nothing has it to copy"),
    ],
)
def test_wrong_names_are_exit_code_3(shelf: Shelf, arguments: list[str], told: str) -> None:
    assert told in shelf.clone.inv(*arguments, code=3).stderr
