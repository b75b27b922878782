"""What a plan without an engine says of the disk, of a base in a folder."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slipway.core import UsageError
from slipway.pipeline import Settings, plan_images, ship
from tests.support.clones import Clone
from tests.support.fanout_samples import noise, write_matrix
from tests.support.oci_bases import base_tar, write_base


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    root = tmp_path_factory.mktemp("planned")
    made = Clone.make(root / "clone", root / "state")
    write_matrix(made, "registry.invalid", "base", bases=2, groups=2)
    layers = [base_tar({f"layer{n}": noise(f"l{n}", size)}) for n, size in enumerate((3, 5, 2))]
    write_base(root / "base", layers)
    return made


def settings() -> Settings:
    values = {
        "engine": "embedded",
        "region": "",
        "target": "local",
        "jobs": 1,
        "sqsh_dir": "",
        "sqsh_compression": "zstd-1",
        "sqsh_cache_gb": 50,
        "registry_port": 5055,
        "soci": "no",
        "consumers": "",
        "sagemaker_pulls": "no",
    }
    return Settings.of(SimpleNamespace(slipway=values))


def test_layers_count_once_a_base_and_a_file_for_each_image(
    clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_STATE", str(tmp_path))
    where = f"oci:{clone.root.parent / 'base'}"

    def planned(*names: str) -> tuple[int, int, int, int]:
        report = plan_images(
            clone.root, settings(), names, date(2026, 1, 1), no_engine=True, base_from=where
        )
        assert report.appended
        disk = report.appended
        return disk.own, disk.compiled, disk.files, disk.fullest

    own, compiled, files, fullest = planned("g0-b0")
    assert fullest >= own + compiled + files
    two = planned("g0-b0", "g1-b0")
    budget = 9_000_000  # of each image, in the matrix
    assert two[0] == 2 * own
    assert two[1] - compiled == int(0.45 * budget)  # the base's are there by then
    assert two[2] == 2 * files


def test_a_base_that_nobody_tells_the_size_of_is_named(
    clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_STATE", str(tmp_path))
    missing = plan_images(
        clone.root, settings(), ["g0-b1"], date(2026, 1, 1), no_engine=True,
        base_from=f"oci:{tmp_path}/none",
    )  # fmt: skip
    assert missing.appended
    assert missing.appended.unknown == ("b1-plain-cpu",)
    assert any("b1-plain-cpu" in line for line in missing.notes())


def test_a_base_from_somewhere_is_one_base_and_for_no_engine(clone: Clone) -> None:
    today = date(2026, 1, 1)
    with pytest.raises(UsageError, match="several"):
        plan_images(clone.root, settings(), [], today, no_engine=True, base_from="oci:/x")
    with pytest.raises(UsageError, match="--no-engine"):
        plan_images(clone.root, settings(), ["g0-b0"], today, base_from="oci:/x")


@pytest.mark.parametrize(("action", "asked"), [("up to date", 0), ("build", 1)])
def test_the_engines_disk_is_asked_for_only_where_something_is_built(
    monkeypatch: pytest.MonkeyPatch, action: str, asked: int
) -> None:
    disks: list[str] = []
    monkeypatch.setattr(ship, "free_bytes", lambda disk: disks.append(disk))
    monkeypatch.setattr(ship, "disk_need", lambda *_: SimpleNamespace(needed=1))
    context: Any = SimpleNamespace(
        engine=SimpleNamespace(data_root="/data"), locks=SimpleNamespace(bases={})
    )
    steps: Any = [SimpleNamespace(action="up to date"), SimpleNamespace(action=action)]
    ship.check_disk(context, steps)
    assert disks == ["/data"] * asked
