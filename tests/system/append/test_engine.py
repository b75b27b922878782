"""An image without an engine against the one that an engine builds of the same Dockerfile.

Compared are all paths with kind, mode, owner and content, and the configuration. What may differ:
times, the cut into layers, and in the configuration what tells how it was made (history, created).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from slipway.append import (
    AppendedBlobs,
    AppendRequest,
    LayerStore,
    append_image,
    bytecode_tar,
    deliver_appended,
)
from slipway.append.layer_files import ContentReader
from slipway.append.python_layout import PythonLayout
from slipway.append.wheel_files import install_wheel
from slipway.core import Project, anonymous, silent
from slipway.engine import ContextFile, Engine, import_rootfs, pull_image, run_once
from slipway.inventory import open_layered_image
from slipway.records import BUILD, load_locks
from slipway.registry import RegistryClient, Repository, write_gzip
from slipway.squashfs import decompressed_stream
from slipway.wheels import fetch_wheels
from tests.support.engine_builds import request, run_build
from tests.support.oci_bases import CONFIG, Tree, apply_layer, write_base
from tests.support.verify_rootfs import INTERPRETER, python_files, tar_of
from tests.support.wheels import make_wheel

pytest_plugins = ["tests.support.registry.fixtures"]

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
SCRIPTS = Path(__file__).parents[3] / "images" / "context"
FAMILIES = {
    "venv": "/opt/venv/bin/python",
    "conda": "/opt/conda/bin/python",
    "built": "/usr/local/bin/python",
}
DOCKERFILE = """\
ARG BASE_REGISTRY
FROM ${BASE_REGISTRY}/append-base:%(family)s

# --- pkg 2.0 ---
RUN --mount=type=bind,source=python/pkg,target=/mnt \\
    ["%(python)s", "-B", "/mnt/install_addons.py", "pkg", "--replace", "pkg"]
ENV PKG="a b" PATH=/pkg:$PATH

# --- pkg:bytecode ---
RUN --mount=type=bind,source=python/pkg,target=/mnt \\
    ["%(python)s", "-B", "/mnt/compile_bytecode.py", "pkg"]

# --- second 1.0 ---
RUN --mount=type=bind,source=python/second,target=/mnt \\
    ["%(python)s", "-B", "/mnt/install_addons.py", "second"]

# --- second:bytecode ---
RUN --mount=type=bind,source=python/second,target=/mnt \\
    ["%(python)s", "-B", "/mnt/compile_bytecode.py", "second"]

# --- tool 1.0 ---
COPY tools/tool /usr/local/bin/tool

# --- launcher ---
COPY launcher/ /
ENTRYPOINT ["/opt/entrypoints/entrypoint.sh"]
CMD ["/bin/bash"]

# --- labels ---
LABEL \\
    io.slipway.matrix='{"name":"x"}' \\
    title="it's"
"""


@dataclass(frozen=True)
class Base:
    """A family's base as a tar, and what is installed on it."""

    family: str
    tar: bytes
    context: tuple[ContextFile, ...]

    @property
    def python(self) -> str:
        return FAMILIES[self.family]

    @property
    def dockerfile(self) -> str:
        return DOCKERFILE % {"family": self.family, "python": self.python}


def base_files(family: str, folder: Path) -> tuple[dict[str, bytes | Path], dict[str, str]]:
    """A root file system with this machine's Python in the family's place, and an old package."""
    layout = PythonLayout(FAMILIES[family], PYTHON)
    files: dict[str, bytes | Path] = {}
    links = {}
    here, prefix = str(Path(sys.base_prefix).resolve()), str(layout.prefix)
    for path, source in python_files().items():
        if path.endswith(".pyc"):
            continue
        moved = "/" + path.lstrip("/")
        shared = "libpython" in moved  # found by its whole path
        if family != "venv" and moved.startswith(f"{here}/") and not shared:
            moved = prefix + moved.removeprefix(here)
        files[moved] = source
    if family == "venv":
        files["/opt/venv/pyvenv.cfg"] = f"home = {INTERPRETER.parent}\n".encode()
        links["/opt/venv/bin/python"] = str(INTERPRETER)
    else:
        links[layout.interpreter] = f"python{PYTHON}"
    old = make_wheel(
        folder,
        "pkg",
        {
            "pkg/__init__.py": b"old = 1\n",
            "pkg/gone/x.py": b"",
            "space/pkg.py": b"",
            "pkg-1.0.data/data/share/pkg.txt": b"old",
        },
        entry_points="[console_scripts]\nold-pkg = pkg:main\n",
    )
    kept = make_wheel(folder, "kept", {"kept.py": b"", "space/kept.py": b""}, requires=["pkg>=1"])
    with ContentReader() as contents:
        for name, wheel in (("pkg", old), ("kept", kept)):
            for file in install_wheel(wheel, name, layout).files:
                files[f"/{file.path}"] = b"".join(contents.pieces(file))
    for place in ("tmp", "mnt", "etc", "dev", "proc", "sys", "opt", "usr/local/bin"):
        files[f"/{place}/.keep"] = b""
    return files, links


def add_on(name: str, wheels: dict[str, Path], pip: Path) -> Iterator[ContextFile]:
    folder = f"python/{name}"
    pins = [f"# asked: {name}"]
    for distribution, wheel in wheels.items():
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        version = wheel.name.split("-")[1]
        pins.append(f"{distribution}=={version} --hash=sha256:{digest}")
        yield ContextFile(f"{folder}/wheels/{wheel.name}", wheel)
    for script in ("install_addons.py", "compile_bytecode.py"):
        yield ContextFile(f"{folder}/{script}", SCRIPTS / script)
    yield ContextFile(f"{folder}/bootstrap/{pip.name}", pip)
    yield ContextFile(f"{folder}/{name}.txt", "\n".join([*pins, ""]).encode())


@pytest.fixture(params=sorted(FAMILIES))
def base(request: pytest.FixtureRequest, shared_project: Project, tmp_path: Path) -> Base:
    pins = load_locks(shared_project).python[BUILD].pins
    (pip,) = fetch_wheels(shared_project, [pin for pin in pins if pin.name == "pip"], PYTHON)
    new = make_wheel(
        tmp_path / "new",
        "pkg",
        {
            "pkg/__init__.py": b"new = 1\ndef main(): print('made')\n",
            "pkg/data, and more/ä.txt": b"text",
            "pkg-2.0.data/scripts/tool.py": b"#!python\nprint('tool')\n",
            "pkg-2.0.data/headers/pkg.h": b"",
            "tests/conflict.py": b"pkg",
        },
        version="2.0",
        requires=["helper"],
        entry_points="[console_scripts]\npkg-run = pkg:main\n",
        executable=["pkg-2.0.data/scripts/tool.py"],
    )
    helper = make_wheel(tmp_path / "new", "helper", {"helper/" + "h" * 130 + ".py": b""})
    large = make_wheel(
        tmp_path / "new", "large", {"large.bin": os.urandom(200_000), "tests/conflict.py": b"l"}
    )
    second = make_wheel(tmp_path / "new", "second", {"second.py": b"", "space/second.py": b""})
    files, links = base_files(request.param, tmp_path / "old")
    context = [
        *add_on("pkg", {"pkg": new, "helper": helper, "large": large}, pip),
        *add_on("second", {"second": second, "kept": helper}, pip),
        ContextFile("tools/tool", b"#!/bin/sh\n", 0o755),
        ContextFile("launcher/opt/entrypoints/entrypoint.sh", b'#!/bin/sh\nexec "$@"\n', 0o755),
        ContextFile("launcher/opt/entrypoints/data/table.json", b"{}"),
        ContextFile("launcher/usr/local/bin/launch", b"#!/bin/sh\n", 0o755),
    ]
    return Base(request.param, root_tar(files, links), tuple(context))


def root_tar(files: dict[str, bytes | Path], links: dict[str, str]) -> bytes:
    """As `tar_of`, with every folder."""
    folders = {str(parent) for path in [*files, *links] for parent in Path(path).parents} - {"/"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in sorted(folders):
            entry = tarfile.TarInfo(folder.lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        with tarfile.open(fileobj=io.BytesIO(tar_of(files, links))) as plain:
            for member in plain:
                tar.addfile(member, plain.extractfile(member) if member.isreg() else None)
    return buffer.getvalue()


@dataclass(frozen=True)
class EngineImage:
    """What the engine builds, read from what it saves.

    `ran`: of steps that compile, what is kept of their layers. `raw`: those as the engine has them.
    """

    tree: Tree
    config: dict[str, Any]
    ran: dict[str, bytes]
    raw: dict[str, bytes]


def engine_image(engine: Engine, base: Base, log: Path) -> EngineImage:
    changes = [f"ENV {entry}" for entry in CONFIG["Env"]]
    import_rootfs(engine, io.BytesIO(base.tar), f"slipway.test/append-base:{base.family}", changes)
    tag = f"slipway.test/append:{base.family}"
    arguments = {"BASE_REGISTRY": "slipway.test"}
    run_build(
        engine,
        request(
            base.dockerfile,
            context=base.context,
            tags=(tag,),
            build_args=arguments,
            labels={"build": "id"},
        ),
        log,
    )
    archive = io.BytesIO(b"".join(engine.client.api.get_image(tag)))
    tree: Tree = {}
    raw = {}
    with tarfile.open(fileobj=archive) as outer:

        def member(name: str) -> bytes:
            stream = outer.extractfile(name)
            assert stream
            return stream.read()

        (described,) = json.loads(member("manifest.json"))
        document = json.loads(member(described["Config"]))
        steps = [step for step in document["history"] if not step.get("empty_layer")]
        for step, layer in zip(steps, described["Layers"], strict=True):
            plain = b"".join(decompressed_stream(iter([member(layer)])))
            with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
                apply_layer(tree, tar)
            if match := re.search(r"compile_bytecode\.py (\w+)", step.get("created_by", "")):
                raw[f"{match[1]}:bytecode"] = plain
    ran = {name: b"".join(bytecode_tar(iter([tar]), log.parent)) for name, tar in raw.items()}
    return EngineImage(tree, document["config"], ran, raw)


def test_an_engine_builds_the_same_files(
    engine: Engine, base: Base, data_registry: str, tmp_path: Path
) -> None:
    built = engine_image(engine, base, tmp_path / "log")
    theirs = built.tree
    store = LayerStore(tmp_path / "ran")
    write_base(tmp_path / "base", [base.tar])
    wanted = AppendRequest(
        dockerfile=base.dockerfile,
        context=base.context,
        labels={"build": "id"},
        python=PYTHON,
        cache=tmp_path / "cache",
        ran={
            section: store.keep(section, section, partial(write_gzip, iter([tar])))
            for section, tar in built.ran.items()
        },
    )
    with (
        open_layered_image(f"oci:{tmp_path / 'base'}", anonymous) as opened,
        RegistryClient(data_registry, anonymous) as client,
    ):
        image = append_image(opened, wanted, "test")
        target = Repository(client, f"append/{base.family}-{image.manifest.digest[7:19]}")
        first = deliver_appended(image, target, "1")
        again = deliver_appended(image, target, "1")
    ours: Tree = {}
    blobs = AppendedBlobs(image)
    for layer in image.manifest.json()["layers"]:
        plain = b"".join(decompressed_stream(blobs.blob_stream(layer["digest"])))
        with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
            apply_layer(ours, tar)
    assert sorted(ours) == sorted(theirs)
    assert {path for path in ours if ours[path] != theirs[path]} == set()
    made = json.loads(image.config)["config"]
    for key in ("Env", "Entrypoint", "Cmd", "Labels"):
        assert made[key] == built.config[key]
    compiled = {path.rpartition("/")[2].partition(".")[0] for path in ours if path[-4:] == ".pyc"}
    assert compiled == {"__init__", "conflict", "h" * 130, "kept", "second"}

    # The registry has it whole, a second push sends nothing, and it runs.
    assert (first.already, again.already, again.sent) == (False, True, 0)
    assert first.digest == again.digest == image.manifest.digest
    where = target.name(first.digest)
    pulled = pull_image(engine, where, credentials=anonymous, on_event=silent)
    done = run_once(engine, pulled, [f"{Path(base.python).parent}/pkg-run"], timeout_s=60)
    assert done.stdout.split() == [b"made"], done.stderr
    script = run_once(engine, pulled, [f"{Path(base.python).parent}/tool.py"], timeout_s=60)
    assert script.stdout.split() == [b"tool"], script.stderr


@pytest.mark.parametrize("base", ["venv"], indirect=True)
def test_steps_that_compile_leave_the_same_layer_whenever_an_engine_runs_them(
    engine: Engine, base: Base, tmp_path: Path
) -> None:
    first = engine_image(engine, base, tmp_path / "log")
    tar = io.BytesIO(base.tar)
    with tarfile.open(fileobj=tar, mode="a") as changed:  # nothing of the first is taken again
        changed.addfile(tarfile.TarInfo("etc/another"))
    again = engine_image(engine, replace(base, tar=tar.getvalue()), tmp_path / "log")
    assert "etc/another" in again.tree
    assert first.raw != again.raw  # an engine's own tar tells when it was made
    assert sorted(first.ran) == ["pkg:bytecode", "second:bytecode"]
    assert again.ran == first.ran
