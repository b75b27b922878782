"""An add-on that a script compiles on the base: built, checked, refused without an engine."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from slipway.core import Project
from slipway.engine import ContainerOptions, Engine, run_once
from slipway.records import load_record
from tests.support.clones import Clone
from tests.support.loopback_files import serve_files

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
        refused = clone.inv("build", "counted", "--no-engine", "--base-from", "oci:/x", code=1)
        assert "parts, count, built by a script of the repository" in refused.stderr
        clone.inv("build", "counted")
    built = load_record(shared_project, "counted").built
    assert built
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
