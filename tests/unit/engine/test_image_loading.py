"""What is given to an engine that has the base: never the base's layers."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, ImageNotFound

from slipway.engine import (
    Engine,
    EngineError,
    ImageArchive,
    TransferError,
    find_image_id,
    import_rootfs,
    load_on_base,
)
from slipway.registry import digest_of
from tests.support.overlay_images import engine_at

CONFIG = json.dumps({"rootfs": {"diff_ids": ["base 1", "base 2", "own"]}}).encode()
MANIFEST = b"{}"


class LoadingEngine:
    """An engine's API that keeps what it is given, and then has an image."""

    def __init__(self, root: Path, base: Sequence[str], image_id: str, layers: Sequence[str]):
        self.given: dict[str, bytes] = {}
        self.images = {
            "base": {"RootFS": {"Layers": list(base)}},
            "ours:1": {"Id": image_id, "RootFS": {"Layers": list(layers)}},
            image_id: {"RootFS": {"Layers": list(layers)}},
        }
        api = SimpleNamespace(load_image=self.load)
        found = SimpleNamespace(get=lambda name: SimpleNamespace(attrs=self.images[name]))
        self.engine: Engine = engine_at(root, client=SimpleNamespace(api=api, images=found))

    def load(self, data: Iterator[bytes]) -> Iterator[dict[str, Any]]:
        with tarfile.open(fileobj=io.BytesIO(b"".join(data))) as tar:
            for member in tar:
                if stream := tar.extractfile(member):
                    self.given[member.name] = stream.read()
        yield {"stream": "Loaded image: ours:1"}


def archive(tmp_path: Path, reference: str = "ours:1") -> ImageArchive:
    path = tmp_path / "layer"
    path.write_bytes(b"packed")
    own = digest_of(b"packed")
    below = (digest_of(b"1"), digest_of(b"2"))
    return ImageArchive(
        reference,
        (digest_of(CONFIG), CONFIG),
        (*below, own),
        {own: path},
        ("type", digest_of(MANIFEST), MANIFEST),
    )


@pytest.mark.parametrize("known_by", [CONFIG, MANIFEST], ids=["graph driver", "containerd"])
def test_an_engine_is_given_documents_and_the_layers_that_it_lacks(
    tmp_path: Path, known_by: bytes
) -> None:
    ids = ["base 1", "base 2", "own"]
    engine = LoadingEngine(tmp_path, ids[:2], digest_of(known_by), ids)
    wanted = archive(tmp_path)
    assert load_on_base(engine.engine, "base", wanted) == digest_of(known_by)
    blobs = {name.rpartition("/")[2]: data for name, data in engine.given.items() if "/" in name}
    assert {f"sha256:{name}": data for name, data in blobs.items()} == {
        digest_of(data): data for data in (CONFIG, MANIFEST, b"packed")
    }
    (described,) = json.loads(engine.given["manifest.json"])
    assert described["RepoTags"] == ["ours:1"]
    assert [f"sha256:{Path(name).name}" for name in described["Layers"]] == [*wanted.layer_digests]
    (entry,) = json.loads(engine.given["index.json"])["manifests"]
    assert entry["digest"] == digest_of(MANIFEST)
    assert entry["annotations"] == {"io.containerd.image.name": "docker.io/library/ours:1"}


@pytest.mark.parametrize(
    ("reference", "whole"),
    [
        ("a/b:1", "docker.io/a/b:1"),
        ("b:1", "docker.io/library/b:1"),
        ("host.example/b:1", "host.example/b:1"),
        ("localhost:5000/a/b:1", "localhost:5000/a/b:1"),
    ],
)
def test_containerd_is_told_the_whole_name(tmp_path: Path, reference: str, whole: str) -> None:
    files = {file.path: file.source for file in archive(tmp_path, reference).files()}
    index = files["index.json"]
    assert isinstance(index, bytes)
    (entry,) = json.loads(index)["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == whole


@pytest.mark.parametrize(
    "base", [["base 1", "another"], [], ["base 1", "base 2", "own", "more"]], ids=repr
)
def test_another_base_gets_nothing(tmp_path: Path, base: list[str]) -> None:
    engine = LoadingEngine(tmp_path, base, digest_of(CONFIG), ["base 1", "base 2", "own"])
    with pytest.raises(EngineError, match="does not have the layers"):
        load_on_base(engine.engine, "base", archive(tmp_path))
    assert engine.given == {}


@pytest.mark.parametrize(
    ("image_id", "layers"),
    [("sha256:another", ["base 1", "base 2", "own"]), (digest_of(CONFIG), ["base 1", "base 2"])],
)
def test_an_engine_that_makes_something_else_of_it_is_told(
    tmp_path: Path, image_id: str, layers: list[str]
) -> None:
    engine = LoadingEngine(tmp_path, ["base 1", "base 2"], image_id, layers)
    with pytest.raises(EngineError, match="is not ours"):
        load_on_base(engine.engine, "base", archive(tmp_path))


class NamingEngine:
    """An engine's API that names an image before it finds that it cannot be unpacked."""

    def __init__(self, root: Path, names: dict[str, str]) -> None:
        self.names = names
        api = SimpleNamespace(
            import_image_from_stream=self.fail, remove_image=self.remove, tag=self.tag
        )
        images = SimpleNamespace(get=self.get)
        self.engine: Engine = engine_at(root, client=SimpleNamespace(api=api, images=images))

    def fail(self, stream: Iterator[bytes], repository: str, tag: str, **more: Any) -> str:
        del more
        assert b"".join(stream) == b"no tar"
        self.names[f"{repository}:{tag}"] = "sha256:half"
        raise APIError("failed to unpack image: archive/tar: invalid tar header")

    def get(self, name: str) -> SimpleNamespace:
        if name not in self.names:
            raise ImageNotFound("no such image")
        return SimpleNamespace(attrs={"Id": self.names[name]})

    def remove(self, name: str, force: bool) -> None:
        assert force
        del self.names[name]

    def tag(self, image: str, repository: str, tag: str, force: bool) -> None:
        assert force
        self.names[f"{repository}:{tag}"] = image


@pytest.mark.parametrize("before", [None, "sha256:before"])
def test_an_import_that_fails_leaves_a_name_as_it_was(tmp_path: Path, before: str | None) -> None:
    names = {"a/b:1": before} if before else {}
    given = NamingEngine(tmp_path, names)
    with pytest.raises(TransferError, match="invalid tar header"):
        import_rootfs(given.engine, io.BytesIO(b"no tar"), "a/b:1")
    assert find_image_id(given.engine, "a/b:1") == before
