"""What a bill of materials is made of: the base's packages, less what goes, with what comes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from slipway.core import silent
from slipway.inventory import LayeredImage, LayerNotes, read_metadata_files
from slipway.pipeline.appended import described_by_engine
from slipway.pipeline.context import PipelineContext
from slipway.pipeline.targets.image_documents import _with_packages
from slipway.records import PackageFile, SystemLock, SystemPackage
from slipway.registry import digest_of, schema2_manifest
from tests.support.oci_bases import base_tar
from tests.support.overlay_images import engine_at, put_overlay_image


def package(name: str, version: str, architecture: str = "amd64") -> SystemPackage:
    return SystemPackage(name, version, architecture, name, version)


def file(name: str, version: str) -> PackageFile:
    return PackageFile(name, version, "amd64", name, version, "debian", "p", "0" * 64, 1)


BASE = (package("libc", "1"), package("libc", "1", "i386"), package("old", "1"))


def test_layers_bring_move_and_remove_packages_one_after_the_other() -> None:
    lower = SystemLock("k", "lower", (), "", (file("jq", "1"), file("libc", "2")))
    upper = SystemLock("l", "upper", (), "", (file("jq", "2"), file("rival", "1")), ("old",))
    assert _with_packages(BASE, [lower, upper]) == (
        package("jq", "2"),
        package("libc", "1", "i386"),
        package("libc", "2"),
        package("rival", "1"),
    )


def test_of_a_base_that_cannot_be_told_nothing_is_told() -> None:
    assert _with_packages(None, [SystemLock("k", "a", (), "", (file("jq", "1"),))]) is None
    assert _with_packages(BASE, []) == BASE


class Registry:
    """The layers of an image as a registry gives them; `asked` are those that were read."""

    def __init__(self, tars: list[bytes]) -> None:
        self.blobs = {digest_of(blob): blob for blob in map(gzip.compress, tars)}
        self.asked: list[str] = []

    def stream(self, digest: str, size: int) -> Iterator[bytes]:
        self.asked.append(digest)
        yield self.blobs[digest]

    def image(self, diff_ids: list[str]) -> LayeredImage:
        layers = [(digest, len(blob)) for digest, blob in self.blobs.items()]
        manifest = schema2_manifest((digest_of(b"{}"), 2), layers)
        config: dict[str, Any] = {"rootfs": {"diff_ids": diff_ids}}
        return LayeredImage("there", manifest, config, self)


def test_a_base_is_described_by_the_engines_disk_as_by_its_registry(tmp_path: Path) -> None:
    status = b"Package: jq\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\n\n"
    site = "opt/venv/lib/python3.12/site-packages"
    tars = [
        base_tar({"var/lib/dpkg/status": status, "usr/bin/jq": b"program" * 1000}),
        base_tar({f"{site}/a-1.dist-info/METADATA": b"Name: a\nVersion: 1\n\nText"}),
    ]
    image_id = put_overlay_image(tmp_path, tars)
    context = cast(PipelineContext, SimpleNamespace(engine=engine_at(tmp_path)))
    there = Registry(tars)
    pushed = there.image([digest_of(tar) for tar in tars])
    near = described_by_engine(context, image_id, pushed)
    read = read_metadata_files(near, LayerNotes(tmp_path / "near"), silent)
    assert there.asked == []
    assert read == read_metadata_files(pushed, LayerNotes(tmp_path / "far"), silent)
    assert json.dumps(read.texts).count("jq") == 1
    # What is under the tag may be another image than the engine's.
    other = there.image([digest_of(tar) for tar in reversed(tars)])
    assert described_by_engine(context, image_id, other) is other
