"""A real containerd's store, read in place: the same bytes from its snapshots and its blobs."""

from __future__ import annotations

import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.core import anonymous
from slipway.sqsh.export import ExportRequest, export_source
from slipway.sqsh.source_image import SourceImage
from slipway.sqsh.sources import engine_source
from slipway.sqsh.sources.containerd_store import snapshot_folders
from slipway.sqsh.stored_images import open_stored_image
from slipway.squashfs import DirectorySource, LayerCache, TarSource
from tests.unit.sqsh import test_sources
from tests.unit.sqsh.test_sources import Layout, digest_of, tar_of
from tests.unit.squashfs.test_layers import archive, member

FOLDER = tarfile.DIRTYPE
LAYERS = [
    archive(
        [
            member("data", FOLDER, mtime=5),
            member("data/gone", data=b"x" * 9000),
            member("etc", FOLDER, mtime=6, mode=0o711),
            member("etc/os-release", data=b"here"),
            member("etc/second", tarfile.LNKTYPE, linkname="etc/os-release"),
            member("hidden", FOLDER),
            member("hidden/old", data=b"o"),
            member("tmp", FOLDER, mode=0o1777, mtime=8),
            member("opt/left/out", data=b"1"),
        ]
    ),
    archive(
        [
            member("data", FOLDER, mtime=7),
            member("data/.wh.gone"),
            member("data/new", data=bytes(range(256)) * 99, mtime=9),
            member("data/link", tarfile.SYMTYPE, linkname="new", mode=0o644),
            member("hidden", FOLDER),
            member("hidden/.wh..wh..opq"),
            member("hidden/new", data=b"n"),
            member("tmp/file", data=b"below a folder that is left out", mtime=9),
            member("opt/left/out-too", data=b"2"),
        ]
    ),
]
CONFIG = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{folder}/socket"
"""


@pytest.fixture
def containerd(tmp_path: Path) -> Iterator[Path]:
    """The folder of a running containerd: `socket` and `root` are in it."""
    folder = tmp_path / "containerd"
    folder.mkdir()
    (folder / "config.toml").write_text(CONFIG.format(folder=folder))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["containerd", "--config", str(folder / "config.toml")], stdout=log, stderr=log
        )
        try:
            deadline = time.monotonic() + 30
            while not (folder / "socket").exists():
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield folder
        finally:
            process.terminate()
            process.wait(30)


def exported(image: SourceImage, folder: Path, name: str) -> bytes:
    path = folder / f"{name}.sqsh"
    export_source(image, ExportRequest(path, "b"), cache=LayerCache(folder / f"{name}-cache"))
    return path.read_bytes()


def test_snapshots_blobs_and_a_layout_give_the_same_bytes(
    containerd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_sources, "LAYERS", LAYERS)
    layout = Layout(tmp_path / "layout")
    names = {"io.containerd.image.name": "docker.io/me/x:1"}
    entry = {**layout.image(pack=bytes), "annotations": names}
    uri = layout.index(entry)
    files = [path for path in sorted(layout.folder.rglob("*")) if path.is_file()]
    packed = tmp_path / "image.tar"
    packed.write_bytes(
        tar_of({str(path.relative_to(layout.folder)): path.read_bytes() for path in files})
    )
    control = ["ctr", "--address", str(containerd / "socket"), "--namespace", "moby"]
    subprocess.run([*control, "images", "import", str(packed)], check=True, capture_output=True)

    root = containerd / "root"
    diff_ids = [digest_of(layer) for layer in LAYERS]
    folders = snapshot_folders(root, diff_ids)
    assert folders is not None
    assert (folders[1] / "data" / "new").exists()
    assert snapshot_folders(root, [*diff_ids, digest_of(b"absent")]) is None
    with open_stored_image(uri, anonymous, tmp_path) as image:
        as_the_engine_says = replace(image, id=entry["digest"])
        in_place = engine_source.containerd_image([root], as_the_engine_says)
        assert in_place is not None
        assert all(isinstance(layer, DirectorySource) for layer in in_place.layers)
        assert in_place.id == image.id
        monkeypatch.setattr(engine_source, "snapshot_folders", lambda *_: None)
        blobs = engine_source.containerd_image([root], as_the_engine_says)
        assert blobs is not None
        assert all(isinstance(layer, TarSource) for layer in blobs.layers)
        plain = exported(image, tmp_path, "layout")
        assert exported(in_place, tmp_path, "snapshots") == plain
        assert exported(blobs, tmp_path, "blobs") == plain
