"""Built wheels: the same files make the same wheel, whatever packed them."""

from __future__ import annotations

import os
import random
import stat
import zipfile
from pathlib import Path

import pytest

from slipway.core import SlipwayError
from slipway.wheels.wheel_builder import _keep

FILES = {
    "pkg/__init__.py": b"x = 1\n" * 20_000,
    "pkg/tool.sh": b"#!/bin/sh\n",
    "pkg/data/": b"",
    "a-1.0.dist-info/RECORD": b"",
    "a-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\n",
    "a-1.0.data/scripts/run": b"#!python\n",
}


def build(folder: Path, seed: int) -> Path:
    """A wheel of FILES as some build tool on some machine packs it."""
    folder.mkdir()
    chance, wheel = random.Random(seed), folder / "a-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in chance.sample(sorted(FILES), len(FILES)):
            entry = zipfile.ZipInfo(name, (2000 + chance.randrange(30), 1, 1, 0, 0, 0))
            entry.external_attr = (0o100755 if name.endswith(("sh", "run")) else 0o100644) << 16
            kind = chance.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2])
            archive.writestr(entry, FILES[name], kind, chance.randrange(1, 10))
    return wheel


def test_who_packed_a_wheel_has_no_part_in_it(tmp_path: Path) -> None:
    kept = [
        _keep(build(tmp_path / f"{seed}", seed), tmp_path / f"cache{seed}") for seed in range(12)
    ]
    assert len({wheel.read_bytes() for wheel in kept}) == 1
    with zipfile.ZipFile(kept[0]) as wheel:
        assert {name: wheel.read(name) for name in wheel.namelist()} == FILES
        modes = {m.filename: stat.S_IMODE(m.external_attr >> 16) for m in wheel.infolist()}
        assert {name for name, mode in modes.items() if mode == 0o755} == {
            "pkg/tool.sh",
            "a-1.0.data/scripts/run",
        }
        assert {member.compress_type for member in wheel.infolist()} == {zipfile.ZIP_STORED}
        assert wheel.namelist()[-1] == "a-1.0.dist-info/WHEEL"


def test_others_read_a_built_wheel_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        kept = _keep(build(tmp_path / "built", 1), tmp_path / "cache")
    finally:
        os.umask(before)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o644


@pytest.mark.parametrize("end", [0, 10, 900])
def test_what_is_no_wheel_is_not_kept(tmp_path: Path, end: int) -> None:
    wheel = build(tmp_path / "built", 1)
    wheel.write_bytes(wheel.read_bytes()[:end])
    with pytest.raises(SlipwayError, match="is not a wheel"):
        _keep(wheel, tmp_path / "cache")
    assert [*(tmp_path / "cache").iterdir()] == []
