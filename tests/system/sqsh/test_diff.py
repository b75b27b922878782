"""`inv sqsh.diff` of files, and of images in an engine, in a registry and in an OCI layout."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from slipway.core import DriftError, Owner, Project, SlipwayError, anonymous, this_process
from slipway.engine import Engine, connect, import_rootfs
from slipway.registry import RegistryClient
from slipway.sqsh import ExportRequest, ImageExporter, export_image, export_stored
from slipway.squashfs import layer_cache
from slipway.tasks.sqsh import diff_and_report
from tests.support.registry.images import unique
from tests.system.sqsh.test_stored import layout, push
from tests.unit.squashfs.test_layers import archive, member

pytest_plugins = ["tests.support.registry.fixtures"]


@pytest.fixture
def exporter(engine: Engine, project: Project) -> ImageExporter:
    return ImageExporter(project, lambda: connect(project, engine.url), anonymous)


def image(engine: Engine, name: str, **files: bytes) -> str:
    members = [member(f"opt/{file}", data=content) for file, content in files.items()]
    import_rootfs(engine, io.BytesIO(archive(members)), f"slipway.test/diff-{name}:1")
    return f"slipway.test/diff-{name}:1"


def test_two_images_of_an_engine_differ_in_what_their_exports_do(
    engine: Engine, exporter: ImageExporter, capsys: pytest.CaptureFixture[str]
) -> None:
    old = image(engine, "old", same=b"1" * 5000, changed=b"a", gone=b"gone")
    new = image(engine, "new", same=b"1" * 5000, changed=b"bcd", new=b"")
    with pytest.raises(DriftError, match=r"4 paths differ"):
        diff_and_report(
            exporter, f"dockerd://{old}", f"dockerd://{new}", times=False, as_json=False
        )
    lines = capsys.readouterr().out.splitlines()
    # enroot writes the image's name into /etc/rc.
    assert lines.pop(0).startswith("~ /etc/rc ")
    assert lines == ["~ /opt/changed  1 B -> 3 B  (content)", "- /opt/gone  4 B", "+ /opt/new  0 B"]


def test_a_file_and_the_image_that_it_was_exported_from_do_not_differ(
    engine: Engine, exporter: ImageExporter, plain: RegistryClient, tmp_path: Path
) -> None:
    repository = unique()
    stored = f"registry://{plain.host}/{repository}@{push(plain, repository)}"
    folder, _ = layout(tmp_path / "layout")
    name = image(engine, "own", file=b"content")
    own = tmp_path / "own.sqsh"
    export_image(engine, name, ExportRequest(own, "b"), cache=layer_cache(exporter.project))
    pairs = [(str(own), f"dockerd://{name}")]
    for uri in (stored, f"oci:{folder}"):
        pairs.append((str(export_stored(exporter.project, uri, anonymous)), uri))
    for file, uri in pairs:
        diff_and_report(exporter, file, uri, times=True, as_json=False)
        diff_and_report(exporter, uri, uri, times=True, as_json=False)
    assert not list(exporter.project.sqsh.glob(".diff*"))


def test_what_a_killed_comparison_left_is_removed_by_the_next(
    exporter: ImageExporter, project: Project, tmp_path: Path
) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                           check=True, capture_output=True)  # fmt: skip
    gone = Owner(this_process().host, int(ended.stdout), 1)
    left = project.sqsh / f".diff.{gone}-0"
    left.mkdir(parents=True)
    (left / "image.sqsh").touch()
    folder, _ = layout(tmp_path / "layout")
    diff_and_report(exporter, f"oci:{folder}", f"oci:{folder}", times=False, as_json=False)
    assert not left.exists()


@pytest.mark.parametrize(
    ("side", "told"),
    [
        ("/no/such.sqsh", "there is no such file"),
        ("dockerd://slipway.test/no-such:1", "the engine has no image"),
        ("oci:/no/such", "not an OCI layout"),
    ],
)
def test_a_side_that_is_not_there_is_said(exporter: ImageExporter, side: str, told: str) -> None:
    with pytest.raises(SlipwayError, match=told):
        diff_and_report(exporter, side, side, times=False, as_json=False)
