"""Pruning a real engine: what is used or pinned stays, what goes is what was announced."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.core import EntryFaults, Project, anonymous, silent
from slipway.engine import BuildAttempt, BuildRequest, Engine, build_image, import_rootfs
from slipway.prune import removals
from slipway.records import BaseLock, ExportRecord, ImageRecord, Locks, save_record
from tests.support.storage.box import Box, box
from tests.support.tiny import rootfs_tar

NONE = Locks({}, {}, {})


@pytest.fixture(scope="module")
def host() -> Iterator[Box]:
    with box() as made:
        made.start()
        yield made


@pytest.fixture
def engine(host: Box) -> Iterator[Engine]:
    """An engine without images."""
    with host.engine() as connected:
        api = connected.client.api
        for container in api.containers(all=True):
            api.remove_container(container["Id"], force=True)
        for image in api.images():
            api.remove_image(image["Id"], force=True)
        yield connected


def image(engine: Engine, name: str, salt: str) -> str:
    return import_rootfs(
        engine, io.BytesIO(rootfs_tar()), name, changes=[f"LABEL salt={salt}", "CMD /bin/sh"]
    )


def going(project: Project, engine: Engine, locks: Locks = NONE, older_than: int = 0) -> set[str]:
    steps = removals.plan_removals(project, engine, locks, older_than, EntryFaults())
    return {item.name for step in steps for item in step.items if "image" in step.what}


def there(engine: Engine) -> set[str]:
    return {tag for found in engine.client.images.list() for tag in found.tags}


def test_unused_and_dangling_images_go_and_used_ones_stay(project: Project, engine: Engine) -> None:
    image(engine, "slip.test/unused:1", "a")
    used = image(engine, "slip.test/used:1", "b")
    dangling = image(engine, "slip.test/moved:1", "c")
    image(engine, "slip.test/moved:1", "d")
    host = engine.client.api.create_host_config(network_mode="none", init=False)
    running = engine.client.api.create_container(
        used, ["/bin/sleep", "100"], host_config=host, stop_timeout=0
    )
    engine.client.api.start(running["Id"])
    time.sleep(0.01)  # "before now" is meant, not "at this very moment"
    assert going(project, engine) == {"slip.test/unused:1", "slip.test/moved:1", dangling}
    removals.remove_steps(removals.plan_removals(project, engine, NONE, 0, EntryFaults()), print)
    assert there(engine) == {"slip.test/used:1"}
    assert engine.client.containers.get(running["Id"]).status == "running"


def test_a_recent_image_stays(project: Project, engine: Engine) -> None:
    image(engine, "slip.test/recent:1", "a")
    assert going(project, engine, older_than=3600) == set()


def test_an_image_that_a_lock_pins_stays(
    project: Project, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RepoDigests come from a registry: here they are put into the daemon's answer."""
    image(engine, "slip.test/base:1", "a")
    image(engine, "slip.test/other:1", "b")
    digest = f"sha256:{'ab' * 32}"
    answer = engine.client.api.df

    def with_digest() -> object:
        usage = answer()
        for found in usage["Images"]:
            if found["RepoTags"] == ["slip.test/base:1"]:
                found["RepoDigests"] = [f"registry.example/base@{digest}"]
        return usage

    monkeypatch.setattr(engine.client.api, "df", with_digest)
    locks = Locks({"base": BaseLock("base", digest=digest)}, {}, {})
    assert going(project, engine, locks) == {"slip.test/other:1"}


def test_an_image_goes_only_after_the_images_built_on_it(
    project: Project, engine: Engine, tmp_path: Path
) -> None:
    image(engine, "slip.test/below:1", "a")
    build_image(
        engine,
        BuildRequest(
            dockerfile="FROM slip.test/below:1\nRUN echo made > /opt/made\n",
            context=(),
            tags=("slip.test/above:1",),
            build_args={},
            labels={},
            secrets={},
        ),
        BuildAttempt("above", anonymous, silent, tmp_path / "log"),
    )
    planned = removals.plan_removals(project, engine, NONE, 0, EntryFaults())
    steps = {step.what: step for step in planned}
    assert steps["build cache"].size > 0
    removals.remove_steps(tuple(steps.values()), print)
    assert there(engine) == set()
    left = engine.client.api.df()["BuildCache"] or []
    assert [record for record in left if record["Type"] == "regular"] == []


def test_old_files_of_slipway_go_and_the_newest_export_stays(tmp_path: Path) -> None:
    project = Project(tmp_path, tmp_path / "state")
    project.sqsh.mkdir(parents=True)
    wheels = project.cache / "wheels"
    wheels.mkdir(parents=True)
    old = [project.sqsh / "a-1.sqsh", project.sqsh / "a-2.sqsh", wheels / "old.whl"]
    for path in (*old, project.sqsh / "a-1.sqsh.json", wheels / "new.whl"):
        path.write_bytes(b"x" * 1000)
    for path in old:
        os.utime(path, (1, 1))
    exported = ExportRecord("id", str(old[1]), "sha", 1000, 1.0)
    save_record(project, "a", ImageRecord(exported=exported))
    steps = removals.plan_removals(project, None, NONE, 30 * 86400, EntryFaults())
    assert {step.what: step.size for step in steps} == {".sqsh files": 1000, "cached files": 1000}
    removals.remove_steps(steps, print)
    assert sorted(p.name for p in project.sqsh.iterdir()) == ["a-2.sqsh"]
    assert [p.name for p in wheels.iterdir()] == ["new.whl"]
