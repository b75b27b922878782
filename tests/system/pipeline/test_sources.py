"""An add-on that a script compiles on the base: built, checked, taken where no engine is."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from slipway.core import Project
from slipway.engine import (
    ContainerOptions,
    Engine,
    find_image_id,
    find_layer_tars,
    run_once,
)
from slipway.local_base.base_image import local_base_reference
from slipway.matrix import load_matrix
from slipway.records import load_record
from slipway.registry import digest_of, schema2_manifest
from tests.support.clones import ROOT, Clone
from tests.support.loopback_files import serve_files
from tests.support.oci_bases import put

PROGRAM = """\
#include <stdio.h>
#include "parts.h"
int main(void) { printf("%d parts\\n", PARTS); return 0; }
"""
SCRIPT = """\
#!/bin/sh
set -eu
tar xf "$SLIPWAY_INPUTS/count-1.0.tar.gz"
mkdir -p "$SLIPWAY_FOLDER/bin"
cc -O2 -I/opt/parts/include count-1.0/count.c \\
    -o "$SLIPWAY_FOLDER/bin/count"
"""
HEADER = """\
mkdir -p "$SLIPWAY_FOLDER/include"
echo '#define PARTS 42' > "$SLIPWAY_FOLDER/include/parts.h"
"""
VERSIONS = """\
addons:
  count:
    needs: [parts]
    source:
      script: builds/count
      folder: /opt/count
      inputs:
        count-1.0.tar.gz: {url: "%(url)s/count-1.0.tar.gz", sha256: %(sha256)s}
      gives: [bin/count]
    check: test "$(/opt/count/bin/count)" = "42 parts"
    only: {groups: [counted]}
    because: it counts
  parts:
    source: {script: builds/parts, folder: /opt/parts}
    only: {groups: [counted]}
    because: what count is compiled with

images:
  counted:
    repository: local
    axes: {base: [local-sagemaker-cpu], platform: [hyperpod]}
    name: counted
    size_budget_mb: 50
"""


def release() -> bytes:
    """What the project that count comes from has published."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo("count-1.0/count.c")
        member.size = len(PROGRAM)
        tar.addfile(member, io.BytesIO(PROGRAM.encode()))
    return buffer.getvalue()


def base_documents(engine: Engine, folder: Path) -> Path:
    """The base as an OCI layout that has its configuration, and no layer."""
    bases = load_matrix(ROOT / "versions.yaml").bases
    (base,) = (each for each in bases if each.name == "local-sagemaker-cpu")
    stored = find_layer_tars(engine, find_image_id(engine, local_base_reference(base)) or "")
    assert stored
    layers = [(layer.diff_id, layer.size) for layer in stored.layers]
    manifest = schema2_manifest((digest_of(stored.config), len(stored.config)), layers)
    for blob in (stored.config, manifest.raw):
        put(folder, blob)
    entry = {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": len(manifest.raw),
    }
    index = {"schemaVersion": 2, "manifests": [entry]}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def clone(shared_project: Project, tmp_path: Path) -> Clone:
    made = Clone.make(tmp_path / "clone", shared_project.state)
    (made.root / "builds").mkdir()
    (made.root / "builds" / "count").write_text(SCRIPT)
    (made.root / "builds" / "parts").write_text(HEADER)
    (made.root / "versions.d").mkdir(exist_ok=True)
    return made


def test_a_c_program_is_compiled_on_the_base_and_only_its_folder_is_in_the_image(
    clone: Clone, engine: Engine, shared_project: Project, tmp_path: Path
) -> None:
    archive = release()
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "count-1.0.tar.gz").write_bytes(archive)
    with serve_files(folder) as url:
        facts = {"url": url, "sha256": hashlib.sha256(archive).hexdigest()}
        (clone.root / "versions.d" / "counted.yaml").write_text(VERSIONS % facts)
        clone.inv("build", "counted")
    built = load_record(shared_project, "counted").built
    assert built
    # What the scripts have left is kept: without an engine the image is the same one, of layers
    # of the base that need not be here.
    base = base_documents(engine, tmp_path / "base")
    clone.inv("build", "counted", "--no-engine", "--base-from", f"oci:{base}")
    again = load_record(shared_project, "counted").built
    assert again
    assert (again.build_id, again.image_id) == (built.build_id, built.image_id)
    for note in (shared_project.cache / "layers" / "keys").glob("kept-*"):
        note.unlink()
    arguments = ("counted", "--no-engine", "--base-from", f"oci:{base}")
    refused = clone.inv("build", *arguments, code=1).stderr
    assert "parts, count, built by a script of the repository" in refused
    assert "a layer that one has made is not here" in refused
    code = "find /opt/count/* -newermt 1980-01-02; ls /opt; stat -c %U /opt/count/bin/count"
    options = ContainerOptions(entrypoint=())
    done = run_once(engine, built.reference, ["sh", "-c", code], options, timeout_s=60)
    assert done.stdout.decode().split() == ["count", "entrypoints", "ml", "parts", "venv", "root"]
    clone.inv("verify", "counted", "--only", "built or own_check")

    (clone.root / "builds" / "parts").write_text(HEADER.replace("42", "41"))
    (step,) = clone.json("plan", "counted")["include"]
    assert step["because"] == [f"script or inputs of {name} changed" for name in ("count", "parts")]
    clone.inv("build", "counted")  # what was fetched is not asked for again
    wrong = clone.inv("verify", "counted", "--only", "built or own_check", code=1)
    assert "42 parts" in wrong.stdout + wrong.stderr

    (clone.root / "builds" / "count").write_text("true\n")
    broken = clone.inv("build", "counted", code=1)
    assert "left nothing in /opt/count" in broken.stdout + broken.stderr
