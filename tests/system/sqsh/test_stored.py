"""Exports from registries and OCI layouts, with no engine."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from slipway.core import Project, SlipwayError, UsageError, anonymous
from slipway.engine import Engine
from slipway.registry import (
    Manifest,
    NoCredentialsError,
    RegistryClient,
    credentials_for,
    digest_of,
)
from slipway.registry.ecr.ecr_client import connect_ecr
from slipway.registry.ecr.ecr_repository import ensure_repository
from slipway.registry.manifests import OCI_MANIFEST
from slipway.sqsh import (
    ExportRequest,
    export_image,
    export_stored,
    read_sidecar,
    verify_sqsh_file,
)
from slipway.sqsh.source_image import machine_architecture
from slipway.sqsh.sources import open_engine_image
from slipway.sqsh.stored_images import open_stored_image
from slipway.squashfs import DirectorySource, LayerCache
from tests.support.registry.ecr_front_door import REGION, Door
from tests.support.registry.faults import Fault
from tests.support.registry.images import put_blob, unique
from tests.support.squashfs_rig import facts_of_image
from tests.unit.squashfs.test_layers import Member, archive, member

pytest_plugins = ["tests.support.registry.fixtures"]

NOISE = os.urandom(3 << 20)
LAYERS: list[list[Member]] = [
    [
        member("etc/hosts", data=b"127.0.0.1 me\n"),
        member("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("data/noise", data=NOISE),
        member("data/gone", data=b"gone"),
    ],
    [member("data/.wh.gone"), member("data/link", tarfile.LNKTYPE, linkname="data/noise")],
]
CONFIG = {"Env": ["GREETING=hello"], "Cmd": ["/bin/true"], "WorkingDir": "/srv/dir"}


def parts() -> tuple[bytes, list[bytes]]:
    archives = [archive(members) for members in LAYERS]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-02T03:04:05Z",
        "config": CONFIG,
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in archives],
        },
    }
    return json.dumps(config).encode(), [gzip.compress(data, mtime=0) for data in archives]


def push(registry: RegistryClient, repository: str) -> str:
    """Store the image; its manifest's digest."""
    config, blobs = parts()
    kind = "application/vnd.oci.image"
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": f"{kind}.config.v1+json"}
            | put_blob(registry, repository, config),
            "layers": [
                {"mediaType": f"{kind}.layer.v1.tar+gzip"} | put_blob(registry, repository, blob)
                for blob in blobs
            ],
        }
    ).encode()
    manifest = Manifest(OCI_MANIFEST, digest_of(raw), raw)
    return registry.put_manifest(repository, manifest.digest, manifest)


def chain_id() -> str:
    first, second = (f"sha256:{hashlib.sha256(archive(layer)).hexdigest()}" for layer in LAYERS)
    return f"sha256:{hashlib.sha256(f'{first} {second}'.encode()).hexdigest()}"


def check(path: Path) -> None:
    facts = facts_of_image(path)
    assert facts.keys() == {
        b"data",
        b"data/link",
        b"data/noise",
        b"dev",
        b"etc",
        b"etc/environment",
        b"etc/fstab",
        b"etc/hostname",
        b"etc/hosts",
        b"etc/mtab",
        b"etc/resolv.conf",
        b"etc/rc",
        b"etc/rc.local",
        b"proc",
        b"srv",
        b"srv/dir",
        b"sys",
    }
    assert facts[b"data/link"].sha256 == hashlib.sha256(NOISE).hexdigest()
    assert facts[b"data/link"].names == (b"data/link", b"data/noise")
    assert facts[b"etc/hosts"].size == 0  # as an engine has it in every container
    verify_sqsh_file(path)
    listed = subprocess.run(
        ["unsquashfs", "-cat", str(path), "etc/rc"], check=True, capture_output=True, text=True
    )
    assert listed.stdout.startswith(f"# enroot-provenance: oci-chain-id:{chain_id()}\n")


def test_an_image_of_a_registry_is_exported_without_an_engine(
    plain: RegistryClient, project: Project
) -> None:
    repository = unique()
    digest = push(plain, repository)
    uri = f"registry://{plain.host}/{repository}@{digest}"
    path = export_stored(project, uri, anonymous)
    assert path.name == f"image-{digest[7:19]}.sqsh"
    check(path)
    sidecar = read_sidecar(path)
    assert sidecar is not None
    assert sidecar.build_id == digest[7:]


def test_a_registry_that_asks_for_a_login_gets_that_of_docker(
    door: Door,
    plain: RegistryClient,
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository = unique()
    ensure_repository(connect_ecr(REGION), repository)
    uri = f"registry://{door.host}/{repository}@{push(plain, repository)}"
    monkeypatch.delenv("AWS_REGION")  # a registry that is nobody's, as far as AWS goes
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(NoCredentialsError, match=f"docker login {door.host}"):
        export_stored(project, uri, credentials_for())
    secret, _ = door.issue()
    login = base64.b64encode(f"AWS:{secret}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {door.host: {"auth": login}}}))
    path = export_stored(project, uri, credentials_for())
    check(path)


def test_a_cut_connection_is_resumed_where_it_was_cut(
    public: Door, plain: RegistryClient, project: Project
) -> None:
    repository = unique()
    digest = push(plain, repository)
    rule = Fault("GET", "/blobs/", "reset", count=2, after_bytes=1 << 20)
    public.faults.add(rule)
    path = export_stored(project, f"registry://{public.host}/{repository}@{digest}", anonymous)
    check(path)
    assert rule.met == 2


def test_a_blob_altered_on_the_way_is_refused_and_nothing_is_kept(
    public: Door, plain: RegistryClient, project: Project
) -> None:
    repository = unique()
    digest = push(plain, repository)
    _, blobs = parts()
    layer = digest_of(blobs[0])
    public.faults.add(Fault("GET", f"/blobs/{layer}", "corrupt", count=9))
    with pytest.raises(SlipwayError, match=r"digest|damaged"):
        export_stored(project, f"registry://{public.host}/{repository}@{digest}", anonymous)
    assert not list(project.sqsh.glob("*.sqsh*"))


def layout(folder: Path) -> tuple[Path, str]:
    config, blobs = parts()
    (folder / "blobs" / "sha256").mkdir(parents=True)

    def put(data: bytes) -> dict[str, object]:
        (folder / "blobs" / "sha256" / digest_of(data)[7:]).write_bytes(data)
        return {"digest": digest_of(data), "size": len(data), "mediaType": "x"}

    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": put(config),
            "layers": [put(blob) for blob in blobs],
        }
    ).encode()
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [put(raw)]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder, digest_of(raw)


def test_an_oci_layout_is_exported(project: Project, tmp_path: Path) -> None:
    folder, digest = layout(tmp_path / "layout")
    path = export_stored(project, f"oci:{folder}", anonymous)
    assert path.name == f"layout-{digest[7:19]}.sqsh"
    check(path)


def test_a_layout_and_a_registry_give_the_same_bytes_and_share_the_cache(
    plain: RegistryClient, project: Project, tmp_path: Path
) -> None:
    folder, _ = layout(tmp_path / "layout")
    first = export_stored(project, f"oci:{folder}", anonymous)
    before = sorted((project.sqsh / "layers" / "layers").iterdir())
    repository = unique()
    second = export_stored(
        project, f"registry://{plain.host}/{repository}@{push(plain, repository)}", anonymous
    )
    assert sorted((project.sqsh / "layers" / "layers").iterdir()) == before
    assert first.read_bytes() == second.read_bytes()


def test_a_damaged_blob_of_a_layout_is_named(project: Project, tmp_path: Path) -> None:
    folder, _ = layout(tmp_path / "layout")
    _, blobs = parts()
    blob = folder / "blobs" / "sha256" / digest_of(blobs[1])[7:]
    blob.write_bytes(blobs[1] + b"\0")
    with pytest.raises(SlipwayError, match="does not have its digest"):
        export_stored(project, f"oci:{folder}", anonymous)


def test_folders_that_layers_leave_out_are_the_same_in_an_engine_and_in_an_archive(
    engine: Engine, project: Project, tmp_path: Path
) -> None:
    """An engine that unpacks such a layer makes these folders up."""
    layers = [
        archive([member("tmp", tarfile.DIRTYPE, mode=0o1777, mtime=8), member("opt/a/b")]),
        archive([member("tmp/file", data=NOISE, mtime=9), member("opt/a/c"), member("opt/.wh.x")]),
    ]
    files = {f"{number}.tar": layer for number, layer in enumerate(layers)}
    diff_ids = [digest_of(layer) for layer in layers]
    # Without its machine the image would be kept by containerd's store, and not unpacked.
    machine = {"architecture": machine_architecture(), "os": "linux"}
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    config = json.dumps({**machine, "rootfs": rootfs}).encode()
    entry = {"Config": "config.json", "RepoTags": ["left-out:1"], "Layers": list(files)}
    files |= {"config.json": config, "manifest.json": json.dumps([entry]).encode()}
    path = tmp_path / "image.tar"
    path.write_bytes(archive(member(name, data=data) for name, data in files.items()))
    with path.open("rb") as stream:
        engine.client.images.load(stream)
    plain = export_stored(project, f"docker-archive:{path}", anonymous)
    request = ExportRequest(tmp_path / "engine.sqsh", "b")
    try:
        with open_engine_image(engine, "left-out:1", tmp_path) as image:  # it is read in place
            assert {type(layer) for layer in image.layers} == {DirectorySource}
        export_image(engine, "left-out:1", request, cache=LayerCache(tmp_path / "cache"))
    finally:
        engine.client.images.remove("left-out:1", force=True)
    assert request.destination.read_bytes() == plain.read_bytes()


@pytest.mark.parametrize("uri", ["docker://x", "registry://host", "registry://host/repo", "x"])
def test_another_kind_of_uri_is_refused_with_the_forms_that_are_known(uri: str) -> None:
    with (
        pytest.raises(UsageError, match="not an image to read"),
        open_stored_image(uri, anonymous, Path("/tmp")),
    ):
        raise AssertionError("not reached")


def test_a_folder_that_is_no_layout_is_said(project: Project, tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match="not an OCI layout"):
        export_stored(project, f"oci:{tmp_path}", anonymous)
