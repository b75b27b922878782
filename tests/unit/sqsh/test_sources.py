"""Layouts and archives in the forms that programs write: found, exported, refused in words."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from slipway.core import Event, Project, SlipwayError, UsageError, anonymous
from slipway.engine import BoltFile, BoltFileError
from slipway.sqsh import export_stored, read_sidecar
from slipway.sqsh.source_image import machine_architecture
from slipway.sqsh.sources.containerd_store import chain_ids
from slipway.sqsh.stored_images import open_stored_image
from tests.support.squashfs_rig import facts_of_image
from tests.unit.squashfs.test_layers import archive, member

HERE = machine_architecture()
LAYERS = [
    archive([member("etc/os-release", data=b"here"), member("data/gone", data=b"x" * 9000)]),
    archive([member("data/.wh.gone"), member("data/new", data=os.urandom(5000))]),
]


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def config_of(**more: Any) -> bytes:
    config = {
        "architecture": HERE,
        "os": "linux",
        "created": "2024-01-02T03:04:05Z",
        "config": {"Env": ["A=1"], "Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in LAYERS]},
    }
    return json.dumps({**config, **more}).encode()


class Layout:
    """An OCI layout that is being written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs" / "sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def put(self, data: bytes, kind: str = "application/vnd.oci.image.x", **more: Any) -> Any:
        (self.folder / "blobs" / "sha256" / digest_of(data)[7:]).write_bytes(data)
        return {"mediaType": kind, "digest": digest_of(data), "size": len(data), **more}

    def image(
        self,
        pack: Callable[[bytes], bytes] = gzip.compress,
        config: bytes | None = None,
        **more: Any,
    ) -> Any:
        layers = [
            self.put(pack(layer), "application/vnd.oci.image.layer.v1.tar") for layer in LAYERS
        ]
        config_blob = self.put(config or config_of(), "application/vnd.oci.image.config.v1+json")
        raw = {"schemaVersion": 2, "config": config_blob, "layers": layers}
        kind = "application/vnd.oci.image.manifest.v1+json"
        return self.put(json.dumps(raw).encode(), kind, **more)

    def attestation(self, **more: Any) -> Any:
        statement = self.put(b"{}", "application/vnd.in-toto+json")
        config = self.put(b'{"architecture":"unknown"}', "application/vnd.oci.image.config.v1+json")
        raw = {"schemaVersion": 2, "config": config, "layers": [statement]}
        return self.put(
            json.dumps(raw).encode(), "application/vnd.oci.image.manifest.v1+json", **more
        )

    def nested(self, *entries: Any, **more: Any) -> Any:
        raw = {"schemaVersion": 2, "manifests": list(entries)}
        return self.put(json.dumps(raw).encode(), "application/vnd.oci.image.index.v1+json", **more)

    def index(self, *entries: Any) -> str:
        raw = {"schemaVersion": 2, "manifests": list(entries)}
        (self.folder / "index.json").write_text(json.dumps(raw))
        return f"oci:{self.folder}"


def platform(architecture: str) -> dict[str, Any]:
    return {"platform": {"os": "linux", "architecture": architecture}}


def tag(name: str) -> dict[str, Any]:
    return {"annotations": {"org.opencontainers.image.ref.name": name}}


ATTESTED = {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
OTHER = "s390x"

FORMS: dict[str, Callable[[Layout], list[Any]]] = {
    "one image": lambda it: [it.image()],
    "two tags": lambda it: [{**it.image(), **tag("1")}, {**it.image(), **tag("latest")}],
    "attestation beside": lambda it: [it.image(), it.attestation(**ATTESTED)],
    "attestation told by its platform": lambda it: [
        it.image(**platform(HERE)),
        it.attestation(platform={"os": "unknown", "architecture": "unknown"}),
    ],
    "attestation told by its layers": lambda it: [it.image(), it.attestation()],
    "nested": lambda it: [it.nested(it.image(**platform(HERE)), it.attestation(**ATTESTED))],
    "nested twice": lambda it: [it.nested(it.nested(it.image()))],
    "nested under two tags": lambda it: [
        {**it.nested(it.image()), **tag("1")},
        {**it.nested(it.image()), **tag("2")},
    ],
    "two platforms": lambda it: [
        it.image(**platform(HERE)),
        it.image(config=config_of(architecture=OTHER), **platform(OTHER)),
    ],
    "two platforms that are not told": lambda it: [
        it.image(),
        it.image(config=config_of(architecture=OTHER)),
    ],
    "a platform whose blobs are not there": lambda it: [
        it.nested(
            it.image(**platform(HERE)),
            {"mediaType": "x", "digest": "sha256:" + "1" * 64, "size": 9, **platform(OTHER)},
        )
    ],
    "uncompressed": lambda it: [it.image(pack=bytes)],
    "zstd": lambda it: [it.image(pack=zstandard.compress)],
}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.at(tmp_path / "project")


@pytest.fixture
def plain(tmp_path: Path) -> bytes:
    """The .sqsh of the image, from the simplest layout."""
    layout = Layout(tmp_path / "plain")
    project = Project.at(tmp_path / "plain-project")
    return export_stored(project, layout.index(layout.image()), anonymous).read_bytes()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_layout_gives_the_same_bytes(
    project: Project, tmp_path: Path, plain: bytes, form: str
) -> None:
    layout = Layout(tmp_path / "layout")
    uri = layout.index(*FORMS[form](layout))
    assert export_stored(project, uri, anonymous).read_bytes() == plain


def tar_of(files: dict[str, bytes | str]) -> bytes:
    """An archive; a string is the target of a symbolic link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def docker_form(**more: Any) -> dict[str, bytes | str]:
    """As docker before 25 writes it."""
    manifest = {"Config": "c.json", "RepoTags": ["me/image:1"], "Layers": ["1/layer.tar", "2/x"]}
    return {
        "1/VERSION": b"1.0",
        "1/layer.tar": LAYERS[0],
        "2/x": "../3/layer.tar",
        "3/layer.tar": LAYERS[1],
        "c.json": config_of(),
        "manifest.json": json.dumps([{**manifest, **more}]).encode(),
        "repositories": b"{}",
    }


def oci_form(folder: Path, both: bool) -> dict[str, bytes | str]:
    """As docker since 25 writes it: a layout, with a manifest.json or without."""
    layout = Layout(folder)
    layout.index({**layout.image(), **tag("1")})
    files: dict[str, bytes | str] = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    if both:
        names = [f"blobs/sha256/{digest_of(gzip.compress(x, mtime=0))[7:]}" for x in LAYERS]
        for name, layer in zip(names, LAYERS, strict=True):
            files[name] = gzip.compress(layer, mtime=0)
        config = f"blobs/sha256/{digest_of(config_of())[7:]}"
        entry = {"Config": config, "RepoTags": None, "Layers": names}
        files["manifest.json"] = json.dumps([entry]).encode()
    return files


ARCHIVES: dict[str, Callable[[Path], bytes]] = {
    "docker 20": lambda folder: tar_of(docker_form()),
    "docker 28": lambda folder: tar_of(oci_form(folder, True)),
    "skopeo": lambda folder: tar_of(oci_form(folder, False)),
    "gzip": lambda folder: gzip.compress(tar_of(docker_form())),
    "zstd": lambda folder: zstandard.compress(tar_of(oci_form(folder, False))),
    "dots": lambda folder: tar_of({f"./{k}": v for k, v in docker_form().items()}),
}


@pytest.mark.parametrize("form", ARCHIVES)
@pytest.mark.parametrize("scheme", ["docker-archive", "oci-archive"])
def test_every_form_of_an_archive_gives_the_same_bytes(
    project: Project, tmp_path: Path, plain: bytes, form: str, scheme: str
) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(ARCHIVES[form](tmp_path / "layout"))
    assert export_stored(project, f"{scheme}:{path}", anonymous).read_bytes() == plain
    assert {entry.name for entry in (project.sqsh / "layers").iterdir()} == {"layers", "locks"}


def flat(layout: Layout, manifest: Any, folder: Path) -> Path:
    """As `skopeo copy` writes dir:FOLDER."""
    blobs = layout.folder / "blobs" / "sha256"
    shutil.copytree(blobs, folder)
    (folder / manifest["digest"][7:]).rename(folder / "manifest.json")
    (folder / "version").write_text("Directory Transport Version: 1.1\n")
    return folder


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_a_folder_that_skopeo_wrote_gives_the_same_bytes(
    project: Project, tmp_path: Path, plain: bytes, pack: Callable[[bytes], bytes]
) -> None:
    layout = Layout(tmp_path / "layout")
    manifest = layout.image(pack)
    folder = flat(layout, manifest, tmp_path / "flat")
    path = export_stored(project, f"dir:{folder}", anonymous)
    assert path.read_bytes() == plain
    assert path.name == f"flat-{manifest['digest'][7:19]}.sqsh"
    again = export_stored(project, f"dir:{folder}@{manifest['digest']}", anonymous)
    assert again == path
    with pytest.raises(SlipwayError, match="no image 'other'"):
        export_stored(project, f"dir:{folder}:other", anonymous)
    (folder / layout.put(config_of())["digest"][7:]).unlink()
    with pytest.raises(SlipwayError, match="cannot be read"):
        export_stored(project, f"dir:{folder}", anonymous, force=True)


def test_a_folder_of_skopeo_with_several_platforms_gives_this_machines(
    project: Project, tmp_path: Path, plain: bytes
) -> None:
    layout = Layout(tmp_path / "layout")
    mine = layout.image(**platform(HERE))
    other = layout.image(config=config_of(architecture=OTHER), **platform(OTHER))
    folder = flat(layout, layout.nested(mine, other), tmp_path / "flat")
    for entry in (mine, other):
        name = entry["digest"][7:]
        (folder / name).rename(folder / f"{name}.manifest.json")
    assert export_stored(project, f"dir:{folder}", anonymous).read_bytes() == plain


def test_a_folder_of_another_kind_is_said_with_its_own_name(
    project: Project, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "layout")
    layout.index(layout.image())
    with pytest.raises(SlipwayError, match="skopeo copy") as raised:
        export_stored(project, f"dir:{layout.folder}", anonymous)
    assert "oci:FOLDER" in str(raised.value)


def test_an_image_without_layers_holds_what_enroot_adds(project: Project, tmp_path: Path) -> None:
    """`FROM scratch` with nothing but settings."""
    config = config_of(rootfs={"type": "layers", "diff_ids": []})
    entry = {"Config": "config.json", "RepoTags": ["me/empty:1"], "Layers": []}
    path = tmp_path / "image.tar"
    path.write_bytes(tar_of({"config.json": config, "manifest.json": json.dumps([entry]).encode()}))
    made = export_stored(project, f"docker-archive:{path}", anonymous)
    paths = set(facts_of_image(made))
    assert {b"etc/rc", b"etc/environment", b"etc/fstab", b"dev", b"proc", b"sys"} <= paths


@pytest.mark.parametrize(
    ("make", "scheme", "what", "cure"),
    [
        (lambda path: None, "docker-archive", "there is no such file", None),
        (lambda path: path.mkdir(), "docker-archive", "not a file", "dir:FOLDER"),
        (lambda path: path.mkdir(), "oci-archive", "not a file", "oci:FOLDER"),
        (lambda path: os.mkfifo(path), "docker-archive", "not a file", None),
        (lambda path: path.touch(), "oci", "not an OCI layout", "oci-archive:FILE"),
        (lambda path: path.touch(), "dir", "skopeo copy", "oci:FOLDER"),
    ],
)
def test_a_scheme_that_does_not_fit_is_said_with_the_one_that_does(
    project: Project,
    tmp_path: Path,
    make: Callable[[Path], object],
    scheme: str,
    what: str,
    cure: str | None,
) -> None:
    make(tmp_path / "it")
    with pytest.raises(SlipwayError, match=what) as raised:
        export_stored(project, f"{scheme}:{tmp_path / 'it'}", anonymous)
    assert (cure in (raised.value.cure or "")) if cure else raised.value.cure is None


def test_one_of_several_images_is_named(project: Project, tmp_path: Path, plain: bytes) -> None:
    layout = Layout(tmp_path / "layout")
    other = layout.image(config=config_of(created="2020-01-01T00:00:00Z"))
    uri = layout.index({**layout.image(), **tag("right")}, {**other, **tag("wrong")})
    with pytest.raises(SlipwayError, match="2 images") as raised:
        export_stored(project, uri, anonymous)
    assert "oci:FOLDER:TAG" in str(raised.value)
    assert export_stored(project, f"{uri}:right", anonymous).read_bytes() == plain
    with pytest.raises(SlipwayError, match="no image 'absent'"):
        export_stored(project, f"{uri}:absent", anonymous)
    digest = other["digest"]
    path = export_stored(project, f"{uri}@{digest}", anonymous)
    assert digest[7:19] in path.name


def test_an_image_of_another_architecture_is_exported_and_said(
    project: Project, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "layout")
    uri = layout.index(layout.image(config=config_of(architecture=OTHER), **platform(OTHER)))
    events: list[Event] = []
    export_stored(project, uri, anonymous, on_event=events.append)
    assert f"the image is for {OTHER}, this machine is {HERE}" in events[-1].text


def test_a_list_without_this_architecture_says_which_it_has(
    project: Project, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "layout")
    entries = [
        layout.image(config=config_of(architecture=name), **platform(name))
        for name in (OTHER, "riscv64")
    ]
    with pytest.raises(SlipwayError, match=f"no image for linux/{HERE}, only for linux/riscv64, "):
        export_stored(project, layout.index(*entries), anonymous)


def test_a_volume_that_enroot_cannot_mount_is_left_out_and_said(
    project: Project, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "layout")
    config = config_of(config={"Volumes": {"/a b": {}, "/ok": {}, "/c\x1b": {}}})
    events: list[Event] = []
    uri = layout.index(layout.image(config=config))
    path = export_stored(project, uri, anonymous, on_event=events.append)
    assert "'/a b'" in events[-1].text
    assert "\x1b" not in events[-1].text
    size = len("${ENROOT_ROOTFS}/ok /ok none x-create=dir,bind,rw,nosuid,nodev\n")
    assert facts_of_image(path)[b"etc/fstab"].size == size


@pytest.mark.parametrize("name", ["environment", "rc", "fstab", "rc.local"])
def test_a_folder_in_the_place_of_one_of_enroots_files_is_said_with_a_cure(
    project: Project, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = [archive([member(f"etc/{name}/inside", data=b"x")])]
    monkeypatch.setattr("tests.unit.sqsh.test_sources.LAYERS", layers)
    layout = Layout(tmp_path / "layout")
    with pytest.raises(SlipwayError, match=f"/etc/{name} is a directory") as raised:
        export_stored(project, layout.index(layout.image()), anonymous)
    assert f"rm -r /etc/{name}" in str(raised.value)


@pytest.mark.parametrize(
    ("folder", "problem"),
    [
        ("/etc/os-release", "is not a directory there"),
        ("/etc/os-release/x/y", "is not a directory there"),
        ("/loop/x", "is not a directory there"),
        ("/to-file/x", "is not a directory there"),
        ("/hard/x", "is not a directory there"),
        ("/" + "a" * 256, "a name of more than 255 bytes"),
        ("/new/" + "ü" * 128 + "/x", "a name of more than 255 bytes"),
    ],
)
def test_a_working_directory_that_cannot_be_made_is_refused(
    project: Project, tmp_path: Path, folder: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = [("loop", "/loop"), ("to-file", "etc/os-release")]
    upper = [member(name, tarfile.SYMTYPE, linkname=target) for name, target in links]
    upper.append(member("hard", tarfile.LNKTYPE, linkname="etc/os-release"))
    monkeypatch.setattr("tests.unit.sqsh.test_sources.LAYERS", [*LAYERS, archive(upper)])
    layout = Layout(tmp_path / "layout")
    uri = layout.index(layout.image(config=config_of(config={"WorkingDir": folder})))
    with pytest.raises(SlipwayError, match=problem) as raised:
        export_stored(project, uri, anonymous)
    assert "another WORKDIR" in str(raised.value)


@pytest.mark.parametrize("folder", ["app", "/a/../../b", "/etc/./new", "/to-data/x", "/data", ""])
def test_a_working_directory_is_made_where_a_process_would_find_it(
    project: Project, tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = archive([member("to-data", tarfile.SYMTYPE, linkname="/x/../data")])
    monkeypatch.setattr("tests.unit.sqsh.test_sources.LAYERS", [*LAYERS, link])
    layout = Layout(tmp_path / "layout")
    uri = layout.index(layout.image(config=config_of(config={"WorkingDir": folder})))
    made = facts_of_image(export_stored(project, uri, anonymous))
    place = {"app": "app", "/a/../../b": "b", "/etc/./new": "etc/new", "/to-data/x": "data/x"}
    assert stat.S_ISDIR(made[place.get(folder, "data").encode()].mode)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE])
def test_something_else_in_the_place_of_etc_is_refused(
    project: Project, tmp_path: Path, kind: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = [archive([member("etc", kind, linkname="data"), member("data/x")])]
    monkeypatch.setattr("tests.unit.sqsh.test_sources.LAYERS", layers)
    layout = Layout(tmp_path / "layout")
    with pytest.raises(SlipwayError, match="/etc is not a directory"):
        export_stored(project, layout.index(layout.image()), anonymous)


@pytest.mark.parametrize(
    "harm",
    [
        lambda it, image: it.nested(*[it.nested(image) for _ in range(2)]),
        lambda it, image: {**image, "size": "7"},
        lambda it, image: {**image, "digest": None},
        lambda it, image: {**image, "digest": "sha256:../../../etc/passwd"},
        lambda it, image: {**image, "platform": 7},
        lambda it, image: 7,
    ],
)
def test_damaged_indexes_are_refused_or_read(
    project: Project, tmp_path: Path, harm: Callable[[Layout, Any], Any]
) -> None:
    layout = Layout(tmp_path / "layout")
    uri = layout.index(harm(layout, layout.image()))
    try:
        export_stored(project, uri, anonymous)
    except SlipwayError as error:
        assert "layout" in str(error)  # noqa: PT017 - some are read


def test_an_index_that_leads_to_itself_or_to_too_much_ends(
    project: Project, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "layout")
    entry = layout.image()
    for _ in range(12):
        entry = layout.nested(entry)
    with pytest.raises(SlipwayError, match="indexes within indexes"):
        export_stored(project, layout.index(entry), anonymous)


@pytest.mark.parametrize("planted", ["pipe", "folder", "link"])
def test_a_blob_that_is_no_file_is_said_at_once(
    project: Project, tmp_path: Path, planted: str
) -> None:
    layout = Layout(tmp_path / "layout")
    uri = layout.index(layout.image())
    blob = layout.folder / "blobs" / "sha256" / digest_of(gzip.compress(LAYERS[0]))[7:]
    for path in (layout.folder / "blobs" / "sha256").iterdir():
        if path.read_bytes()[:2] == b"\x1f\x8b":
            blob = path
    blob.unlink()
    if planted == "pipe":
        os.mkfifo(blob)
    elif planted == "folder":
        blob.mkdir()
    else:
        blob.symlink_to(blob.name)
    with pytest.raises(SlipwayError, match="blob"):
        export_stored(project, uri, anonymous)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "neither index.json nor manifest.json"),
        (b"garbage" * 500, "not an image's archive"),
        (tar_of({"a": b"x"}), "neither index.json nor manifest.json"),
        (tar_of({"manifest.json": b"{}"}), "not a list of objects"),
        (tar_of({"manifest.json": b'[{"Config": 7}]'}), "is not a string"),
        (tar_of(docker_form(Layers=["1/layer.tar"])), "1 layers and its configuration 2"),
        (tar_of(docker_form(Layers=["1/layer.tar", "absent"])), "has no 'absent'"),
        (tar_of(docker_form(Layers=["3/layer.tar", "1/layer.tar"])), "digest"),
        (tar_of({**docker_form(), "2/x": "x", "x": "2/x"}), "has no"),
        (tar_of({**docker_form(), "2/x": "/etc/passwd"}), "has no"),
        (tar_of(docker_form())[:30000], "ends in the middle|has no|neither"),
    ],
)
def test_archives_that_are_none_are_refused_in_words(
    project: Project, tmp_path: Path, data: bytes, words: str
) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(data)
    with pytest.raises(SlipwayError, match=words):
        export_stored(project, f"docker-archive:{path}", anonymous)


def test_an_archive_that_is_not_there_is_said() -> None:
    with (
        pytest.raises(UsageError, match="no such file"),
        open_stored_image("docker-archive:/absent.tar", anonymous, Path("/tmp")),
    ):
        raise AssertionError("not reached")


def test_the_sidecar_says_which_image_it_was(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(tar_of(docker_form()))
    sidecar = read_sidecar(export_stored(project, f"docker-archive:{path}", anonymous))
    assert sidecar is not None
    assert sidecar.image_id == digest_of(config_of())
    assert sidecar.reference == "me/image:1"


def test_chain_ids_are_those_of_the_specification() -> None:
    ids = ["sha256:" + letter * 64 for letter in "abc"]
    first, second, third = chain_ids(ids)
    assert first == ids[0]
    assert second == digest_of(f"{ids[0]} {ids[1]}".encode())
    assert third == digest_of(f"{second} {ids[2]}".encode())


@pytest.mark.parametrize("data", [b"", b"x" * 9000, bytes(70_000)])
def test_what_is_no_bolt_database_is_said(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "meta.db"
    path.write_bytes(data)
    with pytest.raises(BoltFileError):
        BoltFile(path).look_up(b"v1")
