"""Sources that are asked over a connection: a registry on loopback, an engine that can only save.

The engine is a stand-in that answers an inspection and `docker save`: what real engines answer is
held by the system tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slipway.core import Project, SlipwayError, anonymous
from slipway.sqsh import ExportRequest, export_image, export_stored
from slipway.sqsh.sources import engine_source
from slipway.squashfs import LayerCache
from tests.support.loopback_files import serve_requests
from tests.unit.sqsh.test_sources import (
    HERE,
    LAYERS,
    Layout,
    config_of,
    digest_of,
    docker_form,
    tar_of,
)


@pytest.fixture
def plain(tmp_path: Path) -> bytes:
    """The .sqsh of the image, from the simplest layout."""
    layout = Layout(tmp_path / "plain")
    project = Project.at(tmp_path / "plain-project")
    return export_stored(project, layout.index(layout.image()), anonymous).read_bytes()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[tuple[Layout, str]]:
    """A layout, and the host of a registry that serves its blobs."""
    layout = Layout(tmp_path / "served")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            digest = self.path.rpartition("/")[2].removeprefix("sha256:")
            data = (layout.folder / "blobs" / "sha256" / digest).read_bytes()
            self.send_response(200)
            if "/manifests/" in self.path:
                kind = "index" if b'"manifests"' in data else "manifest"
                self.send_header("Content-Type", f"application/vnd.oci.image.{kind}.v1+json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serve_requests(Handler) as host:
        yield layout, host


@pytest.mark.parametrize("nested", [False, True])
def test_a_registry_gives_the_same_bytes_as_a_layout(
    registry: tuple[Layout, str], tmp_path: Path, plain: bytes, nested: bool
) -> None:
    layout, host = registry
    entry = layout.image(platform={"os": "linux", "architecture": HERE})
    if nested:
        entry = layout.nested(entry)
    path = export_stored(
        Project.at(tmp_path / "project"), f"registry://{host}/me/x@{entry['digest']}", anonymous
    )
    assert path.read_bytes() == plain


class SavingEngine:
    """Has one image, and counts how often it is saved."""

    url = "tcp://elsewhere:2375"
    containerd_store = False
    data_root = "/absent"

    def __init__(self, archive: bytes) -> None:
        self.archive = archive
        self.saves = 0
        self.client = SimpleNamespace(
            api=SimpleNamespace(base_url="http://x", api_version="1.40", get=self._get)
        )

    def _get(self, url: str, **_: Any) -> Any:
        assert url.endswith("/get")
        self.saves += 1
        middle = len(self.archive) // 2
        return SimpleNamespace(
            raise_for_status=lambda: None,
            iter_content=lambda _: iter([self.archive[:middle], self.archive[middle:]]),
            close=lambda: None,
        )


INSPECTION = {
    "Id": digest_of(config_of()),
    "RepoDigests": None,
    "Size": 20_000,
    "Architecture": HERE,
    "Created": "2024-01-02T03:04:05Z",
    "Config": {"Env": ["A=1"], "Cmd": ["/bin/true"]},
    "RootFS": {"Type": "layers", "Layers": [digest_of(layer) for layer in LAYERS]},
}


def engine_of(
    monkeypatch: pytest.MonkeyPatch, archive: bytes, inspection: dict[str, Any]
) -> SavingEngine:
    monkeypatch.setattr(engine_source, "find_image_id", lambda *_: "x")
    monkeypatch.setattr(engine_source, "inspect_image", lambda *_: inspection)
    monkeypatch.setattr("slipway.sqsh.export.remove_stale_containers", lambda _: 0)
    return SavingEngine(archive)


def test_what_an_engine_saves_gives_the_same_bytes_and_is_asked_for_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plain: bytes
) -> None:
    engine = engine_of(monkeypatch, tar_of(docker_form()), INSPECTION)
    cache = LayerCache(tmp_path / "cache")
    for name in ("a", "b"):  # the second finds its layers in the cache
        path = tmp_path / f"{name}.sqsh"
        export_image(engine, "me/image:1", ExportRequest(path, "b"), cache=cache)  # type: ignore[arg-type]
        assert path.read_bytes() == plain
    assert engine.saves == 1
    assert {entry.name for entry in cache.folder.iterdir()} == {"layers", "locks"}


@pytest.mark.parametrize(
    ("archive", "inspection", "words"),
    [
        (b"", INSPECTION, "neither index.json nor manifest.json"),
        (tar_of(docker_form())[:30_000], INSPECTION, "ends in the middle|has no|neither"),
        (tar_of({"manifest.json": b"[]"}), INSPECTION, "the archive has no image"),
        (b"", {**INSPECTION, "Id": 7}, "'Id' is not a string"),
        (b"", {**INSPECTION, "RootFS": {"Layers": [None]}}, "'RootFS.Layers' is not a list"),
        (b"", {**INSPECTION, "Created": "soon"}, "'Created' is not a time"),
    ],
)
def test_an_engine_that_answers_wrongly_is_said(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    archive: bytes,
    inspection: dict[str, Any],
    words: str,
) -> None:
    engine = engine_of(monkeypatch, archive, inspection)
    cache = LayerCache(tmp_path / "cache")
    with pytest.raises(SlipwayError, match=words):
        export_image(engine, "x", ExportRequest(tmp_path / "a.sqsh", "b"), cache=cache)  # type: ignore[arg-type]
    assert not (tmp_path / "a.sqsh").exists()
    assert list((cache.folder / "layers").iterdir()) == []
