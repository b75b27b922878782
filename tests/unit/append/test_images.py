"""A base and a Dockerfile -> an image: its files, its configuration, and what is refused."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from slipway.append import (
    AppendedBlobs,
    AppendedImage,
    AppendRequest,
    LayerStore,
    NeedsEngineError,
    append_image,
    packages_of_base,
    write_layout,
)
from slipway.core import SlipwayError, anonymous, silent
from slipway.engine import ContextFile
from slipway.inventory import LayerNotes, open_layered_image
from slipway.registry import RegistryError, write_gzip
from slipway.squashfs import decompressed_stream
from tests.support.oci_bases import Tree, apply_layer, base_tar, write_base
from tests.support.wheels import make_wheel

ROOT = Path(__file__).parents[3]
INSTALLER = ROOT / "images" / "context" / "install_addons.py"
SITE = "opt/venv/lib/python3.12/site-packages"
DOCKERFILE = """\
ARG BASE_REGISTRY=x
FROM ${BASE_REGISTRY}/base:1

# --- addon 2.0 ---
RUN --mount=type=bind,source=python/addon,target=/mnt \\
    ["/opt/venv/bin/python", "-B", "/mnt/install_addons.py", "addon"%s]
ENV ADDON="its $HOME" PATH=/addon:$PATH

# --- tool 1.0 ---
COPY tools/tool /usr/local/bin/tool

# --- launcher ---
COPY launcher/ /
ENTRYPOINT ["/opt/entrypoints/entrypoint.sh"]
CMD ["/bin/bash"]

# --- labels ---
LABEL \\
    a='{"b":"c"}'
"""


def old_distribution(name: str, files: tuple[str, ...], requires: str = "") -> dict[str, Any]:
    """A distribution of the base, as pip left it, with bytecode."""
    info = f"{SITE}/{name}-1.0.dist-info"
    recorded = [*files, *(f"{name}-1.0.dist-info/{note}" for note in ("METADATA", "RECORD"))]
    record = [f"{file},sha256=x,1" for file in recorded]
    metadata = f"Name: {name}\nVersion: 1.0\n{requires}\n\nText\n"
    tree: dict[str, Any] = {info: None, f"{info}/METADATA": metadata.encode()}
    tree[f"{info}/RECORD"] = "\n".join(record).encode()
    for file in files:
        path = Path(SITE, file)
        if not file.startswith(".."):
            tree.setdefault(str(path.parent), None)
            tree[str(path)] = b"old"
            if path.suffix == ".py":
                tree[f"{path.parent}/__pycache__"] = None
                tree[f"{path.parent}/__pycache__/{path.stem}.cpython-312.pyc"] = b"old"
    return tree


BASE_TREE: dict[str, Any] = {
    **dict.fromkeys(
        ["opt", "opt/venv", "opt/venv/bin", "opt/venv/lib", "opt/venv/lib/python3.12", SITE]
    ),
    "opt/venv/bin/python": b"",
    "opt/venv/bin/addon": b"old script",
    **old_distribution(
        "addon",
        ("addon/__init__.py", "addon/gone/deep/x.py", "shared/a.py", "../../../bin/addon"),
    ),
    **old_distribution("other", ("shared/b.py",), "Requires-Dist: addon>=1"),
    f"{SITE}/addon/left.txt": b"nobody's",
}


class Build:
    """A base in a folder, a context, and the image of both."""

    def __init__(self, folder: Path, tree: dict[str, Any] = BASE_TREE) -> None:
        self.folder = folder
        self.dockerfile = DOCKERFILE % ""
        self.wheels = [
            make_wheel(
                folder / "wheels",
                "addon",
                {"addon/__init__.py": b"new", "shared/a.py": b"new"},
                version="2.0",
                requires=["helper>=1", "absent; python_version < '3'"],
                entry_points="[console_scripts]\naddon-run = addon:main\n",
            ),
            make_wheel(folder / "wheels", "helper", {"helper.py": b"x" * 10}),
        ]
        write_base(folder / "base", [base_tar(tree)], {"of": "base"})

    def context(self) -> tuple[ContextFile, ...]:
        pins = ["# asked: addon==2.0"]
        for wheel in self.wheels:
            name, version = wheel.name.split("-")[:2]
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            pins.append(f"{name}=={version} --hash=sha256:{digest}")
        return (
            ContextFile("python/addon/install_addons.py", INSTALLER),
            ContextFile("python/addon/addon.txt", "\n".join(pins).encode()),
            *(ContextFile(f"python/addon/wheels/{wheel.name}", wheel) for wheel in self.wheels),
            ContextFile("tools/tool", b"tool", 0o755),
            ContextFile("launcher/opt/entrypoints/entrypoint.sh", b"#!/bin/sh\n", 0o755),
            ContextFile("launcher/usr/local/bin/launch", b"#!/bin/sh\n", 0o755),
        )

    def image(self, cache: str = "cache", **changes: Any) -> AppendedImage:
        request = AppendRequest(
            dockerfile=self.dockerfile,
            context=self.context(),
            labels={"build": "id"},
            python="3.12",
            cache=self.folder / cache,
        )
        with open_layered_image(f"oci:{self.folder / 'base'}", anonymous) as base:
            return append_image(base, dataclasses.replace(request, **changes), "test")

    def tree(self, image: AppendedImage) -> Tree:
        found: Tree = {}
        blobs = AppendedBlobs(image)
        for layer in image.manifest.json()["layers"]:
            plain = b"".join(decompressed_stream(blobs.blob_stream(layer["digest"])))
            with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
                apply_layer(found, tar)
        return found


def test_a_replaced_package_leaves_what_pip_would_leave(tmp_path: Path) -> None:
    build = Build(tmp_path)
    build.dockerfile = DOCKERFILE % ', "--replace", "addon"'
    image = build.image()
    tree = build.tree(image)
    below = {path.removeprefix(f"{SITE}/") for path in tree if path.startswith(f"{SITE}/")}
    assert below == {
        "addon",
        "addon/__init__.py",
        "addon/left.txt",
        "helper.py",
        "shared",
        "shared/a.py",
        "shared/b.py",
        "shared/__pycache__",
        "shared/__pycache__/b.cpython-312.pyc",
        "other-1.0.dist-info",
        "other-1.0.dist-info/METADATA",
        "other-1.0.dist-info/RECORD",
        *(f"{d}-{v}.dist-info" for d, v in (("addon", "2.0"), ("helper", "1.0"))),
        *(
            f"{info}.dist-info/{name}"
            for info in ("addon-2.0", "helper-1.0")
            for name in ("METADATA", "WHEEL", "RECORD", "INSTALLER", "REQUESTED")
        ),
        "addon-2.0.dist-info/entry_points.txt",
    }
    assert tree[f"{SITE}/addon/__init__.py"][4] == b"new"
    assert "opt/venv/bin/addon" not in tree
    assert tree["opt/venv/bin/addon-run"][1] == 0o755
    assert tree["opt/entrypoints"] == ("folder", 0o755, 0, 0, b"")
    assert tree["usr/local/bin/tool"] == ("file", 0o755, 0, 0, b"tool")


def test_what_the_base_has_is_kept_where_nothing_may_move(tmp_path: Path) -> None:
    build = Build(tmp_path)
    tree = build.tree(build.image())
    assert tree[f"{SITE}/addon/__init__.py"][4] == b"old"
    assert f"{SITE}/helper.py" in tree


def test_the_configuration_is_the_bases_with_what_the_dockerfile_says(tmp_path: Path) -> None:
    document = json.loads(Build(tmp_path).image().config)
    assert document["config"] == {
        "Env": ["PATH=/addon:/opt/venv/bin:/usr/bin", "LANG=C.UTF-8", "ADDON=its "],
        "Entrypoint": ["/opt/entrypoints/entrypoint.sh"],
        "Cmd": ["/bin/bash"],
        "Labels": {"of": "base", "a": '{"b":"c"}', "build": "id"},
    }
    assert document["created"] == "2026-01-02T03:04:05Z"
    with_layers = [entry for entry in document["history"] if not entry.get("empty_layer")]
    assert len(with_layers) == len(document["rootfs"]["diff_ids"])


def test_the_same_inputs_give_the_same_image_from_another_cache(tmp_path: Path) -> None:
    build = Build(tmp_path)
    first = build.image()
    assert build.image("elsewhere").manifest == first.manifest
    (tmp_path / "wheels").rename(tmp_path / "moved")
    build.wheels = [tmp_path / "moved" / wheel.name for wheel in build.wheels]
    assert build.image("third").manifest == first.manifest


def test_the_layout_names_the_bases_layers_and_holds_ours(tmp_path: Path) -> None:
    image = Build(tmp_path).image()
    for _ in range(2):  # a second build finds what the first left
        write_layout(image, tmp_path / "layout", "name:tag")
    (tmp_path / "layout/blobs/sha256/stale").write_bytes(b"")
    write_layout(image, tmp_path / "layout", "name:tag")
    held = {path.name for path in (tmp_path / "layout/blobs/sha256").iterdir()}
    ours = {image.manifest.digest, image.config_digest, *(layer.digest for layer in image.layers)}
    assert held == {digest.removeprefix("sha256:") for digest in ours}
    with open_layered_image(f"oci:{tmp_path / 'layout'}", anonymous) as again:
        assert again.manifest == image.manifest


def refuse(build: Build, match: str, kind: type[Exception] = SlipwayError, **more: Any) -> None:
    with pytest.raises(kind, match=match):
        build.image(**more)


def test_what_does_not_fit_is_refused_with_both_names(tmp_path: Path) -> None:
    build = Build(tmp_path)
    build.wheels = build.wheels[:1]
    build.dockerfile = DOCKERFILE % ', "--replace", "addon"'
    refuse(build, "addon requires helper, which is not there")


def test_a_version_that_the_base_needs_is_not_taken_away(tmp_path: Path) -> None:
    tree = BASE_TREE | old_distribution("third", (), "Requires-Dist: addon<2")
    build = Build(tmp_path, tree)
    build.dockerfile = DOCKERFILE % ', "--replace", "addon"'
    refuse(build, "third has requirement addon<2, there is 2.0")


def test_a_package_without_a_record_cannot_be_replaced(tmp_path: Path) -> None:
    tree = {path: content for path, content in BASE_TREE.items() if "addon-1.0" not in path}
    tree[f"{SITE}/addon-1.0.egg-info"] = b"Name: addon\nVersion: 1.0\n"
    build = Build(tmp_path, tree)
    build.dockerfile = DOCKERFILE % ', "--replace", "addon"'
    refuse(build, "addon of the base has no RECORD")


def test_a_link_on_the_way_is_not_replaced(tmp_path: Path) -> None:
    refuse(Build(tmp_path, BASE_TREE | {"usr/local/bin": "/bin"}), "/usr/local/bin is not a folder")


def test_an_environment_that_sees_others_packages_is_refused(tmp_path: Path) -> None:
    seen = {"opt/venv/pyvenv.cfg": b"home = /usr/bin\ninclude-system-site-packages = true\n"}
    refuse(Build(tmp_path, BASE_TREE | seen), "sees the packages of another")


def test_the_packages_of_a_base_are_read_once(tmp_path: Path) -> None:
    Build(tmp_path)
    words = ("/opt/venv/bin/python", "3.12", LayerNotes(tmp_path / "cache"), silent)
    with open_layered_image(f"oci:{tmp_path / 'base'}", anonymous) as base:
        assert packages_of_base(base, *words) == {"addon": "1.0", "other": "1.0"}
    for note in (tmp_path / "cache" / "bases").iterdir():
        if not note.name.startswith("packages-"):
            note.unlink()
    shutil.rmtree(tmp_path / "base" / "blobs")  # of its layers nothing is left to read
    assert packages_of_base(base, *words) == {"addon": "1.0", "other": "1.0"}
    other = Build(tmp_path / "other", {"opt": None})
    with open_layered_image(f"oci:{other.folder / 'base'}", anonymous) as base:
        assert packages_of_base(base, *words) == {}


def test_a_lock_that_tells_other_packages_is_said(tmp_path: Path) -> None:
    build = Build(tmp_path)
    build.dockerfile = DOCKERFILE % ', "--replace", "addon"'
    refuse(build, r"addon 1.0 \(locked: 1.5\)", packages={"addon": "1.5"})


def test_another_wheel_than_the_locked_one_is_refused(tmp_path: Path) -> None:
    build = Build(tmp_path)
    context = build.context()
    build.wheels[1].write_bytes(build.wheels[0].read_bytes())
    refuse(build, "helper", context=context)


def test_a_step_that_runs_something_is_named(tmp_path: Path) -> None:
    build = Build(tmp_path)
    build.dockerfile += "# --- apt-tools ---\nRUN apt-get install git\n"
    refuse(build, "apt-tools runs a command in the base", NeedsEngineError)


RAN = """\
# --- apt-tools ---
RUN apt-get install git

# --- launcher ---"""


def with_ran_step(folder: Path, entries: dict[str, Any]) -> tuple[Build, dict[str, Any]]:
    """A build with a step that an engine has run: it left `entries`."""
    build = Build(folder)
    build.dockerfile = build.dockerfile.replace("# --- launcher ---", RAN)
    store = LayerStore(folder / "elsewhere")
    layer = store.keep("tools", "1", lambda path: write_gzip(iter([base_tar(entries)]), path))
    return build, {"apt-tools": layer}


def test_the_layer_of_a_step_that_an_engine_ran_is_taken_as_it_is(tmp_path: Path) -> None:
    entries = {"opt/entrypoints": None, "usr/bin/git": b"git"}
    build, ran = with_ran_step(tmp_path, entries)
    image = build.image(ran=ran)
    history = [step["created_by"] for step in json.loads(image.config)["history"]]
    at = history.index("RUN apt-get install git")
    assert history[at - 1].startswith("COPY tools/tool")
    assert history[at + 1].startswith("COPY launcher/")
    assert image.layers[-2] == ran["apt-tools"]
    assert "usr/bin/git" in build.tree(image)
    # A folder that it has made is not made again, with another mode.
    with tarfile.open(image.layers[-1].path) as tar:
        assert "opt/entrypoints" not in tar.getnames()
    assert build.image("another", ran=ran).manifest == image.manifest


def test_layers_below_a_step_that_ran_are_the_same_without_it(tmp_path: Path) -> None:
    """What a step leaves in folders of add-ons, as bytecode does, lies above their layers."""
    folders = {f"{SITE}/{name}": None for name in ("addon", "addon/__pycache__", "shared")}
    build, ran = with_ran_step(tmp_path, {**folders, f"{SITE}/addon/__pycache__/x.pyc": b"x"})
    image = build.image(ran=ran)
    plain = Build(tmp_path / "plain").image()
    own = [layer for layer in image.layers if layer != ran["apt-tools"]]
    assert [layer.digest for layer in own] == [layer.digest for layer in plain.layers]
    assert build.tree(image)[f"{SITE}/addon/__pycache__/x.pyc"]


def test_a_link_of_a_step_is_not_hidden(tmp_path: Path) -> None:
    build, ran = with_ran_step(tmp_path, {"opt/entrypoints": "/srv"})
    refuse(build, "/opt/entrypoints is not a folder", NeedsEngineError, ran=ran)


def test_packages_of_a_step_beside_those_of_add_ons_are_for_an_engine(tmp_path: Path) -> None:
    left = {f"{SITE}/apex-1.dist-info/METADATA": b"Name: apex\nVersion: 1\n"}
    build, ran = with_ran_step(tmp_path, left)
    refuse(build, "leaves Python packages .*apex-1.dist-info", NeedsEngineError, ran=ran)


def test_a_damaged_layer_of_the_base_is_noticed(tmp_path: Path) -> None:
    build = Build(tmp_path)
    with open_layered_image(f"oci:{tmp_path / 'base'}", anonymous) as base:
        path = tmp_path / "base/blobs/sha256" / base.layers[0]["digest"].removeprefix("sha256:")
    path.write_bytes(gzip.compress(base_tar({"opt": None})))
    refuse(build, "does not have its digest", RegistryError)
    assert not list((tmp_path / "cache").glob("bases/*"))


def test_a_damaged_base_is_noticed(tmp_path: Path) -> None:
    build = Build(tmp_path)
    manifest = json.loads((tmp_path / "base/index.json").read_text())["manifests"][0]["digest"]
    path = tmp_path / "base/blobs/sha256" / manifest.removeprefix("sha256:")
    path.write_text(re.sub(r'"size": \d+', '"size": 7', path.read_text()))
    refuse(build, "does not have its digest", RegistryError)


@pytest.mark.parametrize(
    "part",
    [{"config": {"Env": [1]}}, {"config": {"Labels": ["x"]}}, {"history": "x"}, {"created": 5}],
)
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, part: dict[str, Any]) -> None:
    write_base(tmp_path, [base_tar({"opt": None})], more=part)
    with (
        pytest.raises(RegistryError, match="is not one"),
        open_layered_image(f"oci:{tmp_path}", anonymous),
    ):
        raise AssertionError("it was opened")
