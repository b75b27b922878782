"""The embedded default base: made here, from Debian packages and wheels, without a registry."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.core import Event, Project, SlipwayError, anonymous, silent
from slipway.engine import (
    BuildAttempt,
    ContainerOptions,
    ContextFile,
    Engine,
    build_image,
    find_image_id,
    inspect_image,
    run_once,
)
from slipway.local_base import ensure_local_base, local_base_id
from slipway.local_base.apt import ca_bundle
from slipway.local_base.base_image import DEBIAN_REGISTRY, local_base_request
from slipway.local_base.rootfs import make_rootfs, remove_stale_rootfs
from slipway.matrix import Base, load_matrix
from slipway.records import base_lock_key, load_locks
from tests.system.conftest import CHECKOUT


@pytest.fixture(scope="module")
def base() -> Base:
    (own,) = (
        base for base in load_matrix(CHECKOUT / "versions.yaml").bases if base.registry is None
    )
    return own


@pytest.fixture(scope="module")
def local_base(engine: Engine, shared_project: Project, base: Base) -> str:
    lock = load_locks(shared_project).python[base_lock_key(base)]
    return ensure_local_base(shared_project, engine, base, lock, silent)


def sh(engine: Engine, image: str, script: str) -> str:
    done = run_once(
        engine, image, ["-euc", script], ContainerOptions(entrypoint=["/bin/sh"]), timeout_s=120
    )
    assert done.exit_code == 0, done.stderr.decode()
    return done.stdout.decode()


def test_it_has_the_shape_of_a_deep_learning_container(
    engine: Engine, local_base: str, base: Base
) -> None:
    config = inspect_image(engine, local_base)["Config"]
    assert config["Entrypoint"] == ["bash", "-m", "start_with_right_hostname.sh"]
    assert config["Cmd"] == ["/bin/bash"]
    assert config["User"] in ("", "root")
    assert config["WorkingDir"] == base.family.workdir
    assert sh(engine, local_base, "command -v python").strip() == base.family.python
    assert sh(engine, local_base, "ls /opt/ml").split() == ["code", "input", "model", "output"]
    assert not any(entry.startswith(("NCCL_", "FI_")) for entry in config["Env"])


def test_it_has_exactly_the_locked_torch(engine: Engine, local_base: str, base: Base) -> None:
    said = sh(
        engine,
        local_base,
        "python -c 'import importlib.metadata as m, json, platform, torch;"
        " print(json.dumps([platform.python_version(), torch.__version__,"
        ' {d.name.lower().replace("_", "-"): d.version for d in m.distributions()}]))\';'
        " python -m pip check >&2",
    )
    python, torch, packages = json.loads(said)
    assert python.startswith(f"{base.facts.python}.")
    assert torch == f"{base.facts.torch}+cpu"
    locked = load_locks(Project.at(CHECKOUT)).python[base_lock_key(base)]
    assert {pin.name: pin.version for pin in locked.pins}.items() <= packages.items()


def test_arguments_survive_its_entrypoint(engine: Engine, local_base: str) -> None:
    words = ["a  b", "$(id)", "", "'"]
    command = ["python", "-c", "import sys, json; print(json.dumps(sys.argv[1:]))", *words]
    done = run_once(engine, local_base, command, timeout_s=60)
    assert json.loads(done.stdout) == words


def test_it_compiles_what_torch_compiles_at_first_use(engine: Engine, local_base: str) -> None:
    script = (
        "cat > /tmp/x.cc <<'E'\n#include <Python.h>\n#include <omp.h>\n"
        "int main() { Py_Initialize(); return omp_get_max_threads() < 1; }\nE\n"
        "include=$(python -c 'import sysconfig; print(sysconfig.get_path(\"include\"))')\n"
        "g++ -fopenmp -I$include /tmp/x.cc -o /tmp/x -lpython3.11 && /tmp/x && echo built"
    )
    assert sh(engine, local_base, script).strip() == "built"


def test_nothing_of_the_building_host_and_no_cache_is_in_it(
    engine: Engine, local_base: str
) -> None:
    script = (
        "grep -rhE '^[^#]' /etc/apt/sources.list /etc/apt/sources.list.d || true;"
        "find /etc/apt/apt.conf.d -name '*mmdebstrap*';"
        "find /var/lib/apt/lists /var/cache/apt /var/log /root/.cache -type f -size +0 || true;"
        "find /run/secrets /mnt /tmp -type f 2>/dev/null || true;"
        "cat /etc/resolv.conf.orig 2>/dev/null || true"
    )
    assert sh(engine, local_base, script) == ""


def test_the_second_time_nothing_is_done(
    engine: Engine, shared_project: Project, local_base: str, base: Base
) -> None:
    before = find_image_id(engine, local_base)
    events: list[Event] = []
    log = shared_project.logs / f"base-{base.name}.log"
    log.unlink(missing_ok=True)
    lock = load_locks(shared_project).python[base_lock_key(base)]
    assert ensure_local_base(shared_project, engine, base, lock, events.append) == local_base
    assert find_image_id(engine, local_base) == before
    assert [event.kind for event in events] == ["cached"]
    assert not log.exists()


def test_its_id_is_that_of_the_recipe_and_of_the_pins(
    local_base: str, engine: Engine, base: Base, tmp_path: Path
) -> None:
    recipe = Project.at(CHECKOUT)
    lock = load_locks(recipe).python[base_lock_key(base)]
    first = local_base_id(recipe, base, lock)
    assert inspect_image(engine, local_base)["Config"]["Labels"]["io.slipway.local-base"] == first

    copy = Project(tmp_path, tmp_path / "state")
    subprocess.run(["cp", "-a", str(recipe.root / "images"), str(tmp_path)], check=True)
    assert local_base_id(copy, base, lock) == first
    assert local_base_id(copy, base, replace(lock, pins=lock.pins[1:])) != first
    dockerfile = copy.local_base / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text() + "\nENV A=b\n")
    assert local_base_id(copy, base, lock) != first


def test_a_mirror_behind_a_dead_proxy_fails_with_the_log_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    project = Project(CHECKOUT, tmp_path / "state")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    of_a_killed_run = project.cache / "rootfs" / f".{ended.pid}.partial"
    of_a_killed_run.mkdir(parents=True)
    (of_a_killed_run / "rootfs.tar").touch()
    log = project.logs / "rootfs.log"
    with pytest.raises(SlipwayError, match="could not make the root file system") as caught:
        make_rootfs(project, silent, log)
    assert caught.value.where == str(log)
    assert "127.0.0.1" in log.read_text()
    assert "proxy" in str(caught.value.cure)
    assert list((project.cache / "rootfs").iterdir()) == []


def test_what_is_mounted_in_the_remains_of_a_killed_run_is_never_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    hosts = tmp_path / "hosts"
    hosts.mkdir()
    (hosts / "file").touch()
    mounted = tmp_path / f".{ended.pid}.partial" / "unpacked" / "sys"
    mounted.mkdir(parents=True)
    subprocess.run(["mount", "--bind", str(hosts), str(mounted)], check=True)
    try:
        remove_stale_rootfs(tmp_path)
        assert (hosts / "file").exists()
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
    remove_stale_rootfs(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["hosts"]


KILLED = """
import sys
from pathlib import Path
from slipway.local_base.rootfs import make_rootfs
from slipway.core.paths import Project
from slipway.core.events import silent
project = Project(Path(sys.argv[1]), Path(sys.argv[2]))
make_rootfs(project, silent, project.logs / "rootfs.log")
"""


def test_a_killed_run_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    project = Project(tmp_path, tmp_path / "state")
    subprocess.run(["cp", "-a", str(CHECKOUT / "images"), str(tmp_path)], check=True)
    place = project.cache / "rootfs"
    # A session of its own, so that mmdebstrap's children end with it.
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), str(project.state)],
        cwd=CHECKOUT,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    ) as running:
        while not list(place.glob(".*.partial/unpacked-*/*")):
            assert running.poll() is None
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGKILL)
    assert list(place.glob("*.tar")) == []
    (left,) = place.iterdir()
    assert re.fullmatch(rf"\.[0-9a-f]+\.{running.pid}\.\d+\.partial", left.name)


def test_without_mmdebstrap_the_same_packages_go_on_an_ordinary_debian_image(
    engine: Engine,
    shared_project: Project,
    local_base: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rootfs = next(
        tag
        for image in engine.client.images.list()
        for tag in image.tags
        if tag.startswith("slipway.local/slipway/rootfs:mmdebstrap-")
    )
    engine.client.images.get(rootfs).tag("slipway.local/test/debian", "bookworm-slim")
    settings, bundle = tmp_path / "apt.conf", tmp_path / "ca.pem"
    settings.write_text('Acquire::http::User-Agent "secret-of-the-proxy";\n')
    authorities = ca_bundle({})
    assert authorities is not None
    bundle.write_text(f"# secret-of-the-bundle\n{authorities.read_text()}")
    monkeypatch.setenv("APT_CONFIG", str(settings))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv(DEBIAN_REGISTRY, "slipway.local/test")
    request = local_base_request(shared_project, "slipway.local/test/rootfs:debian")
    uncached = ContextFile("debian/nonce", os.urandom(8))
    made = build_image(
        engine,
        replace(request, context=(*request.context, uncached)),
        BuildAttempt("root file system", anonymous, silent, tmp_path / "debian.log"),
    )
    monkeypatch.undo()
    assert "g++ is already the newest version" in (tmp_path / "debian.log").read_text()

    saved = b"".join(engine.client.images.get(made).save())
    assert b"path-exclude=/usr/share/doc" in saved
    assert b"secret-of-the-" not in saved
    assert sh(engine, made, "find /var/lib/apt/lists -type f") == ""
    # Whether the folder stays, empty, depends on the engine.
    assert sh(engine, made, "[ ! -e /run/secrets ] || find /run/secrets -type f") == ""
