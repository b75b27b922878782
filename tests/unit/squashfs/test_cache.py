"""The layer cache: bounded, shared, healed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.squashfs import (
    CompressionOptions,
    DirectorySource,
    LayerCache,
    TarSource,
    compile_layers,
)
from slipway.squashfs.compile import compiler as compiling
from slipway.squashfs.compile import worker_pool
from slipway.squashfs.compile.pack_job import PackJob
from slipway.squashfs.format.errors import CacheError, LayerError
from tests.unit.squashfs.test_layers import archive, member, source

OPTIONS = CompressionOptions("zstd", 1, 4096)
NOISE = os.urandom(50_000)


class Counted:
    """A layer source that counts how often it is read."""

    def __init__(self, name: str = "a", size: int = 50_000) -> None:
        self.data = archive([member(name, data=NOISE[:size])])
        self.reads = 0
        plain = source(self.data)
        self.source = TarSource(plain.digest, self._open)

    def _open(self) -> Iterator[bytes]:
        self.reads += 1
        yield self.data

    def compile(self, cache: LayerCache) -> Path:
        with compile_layers(cache, [self.source], OPTIONS):
            return cache.entry(OPTIONS.key(self.source.digest, self.source.kind))


def test_a_layer_is_compiled_once(tmp_path: Path) -> None:
    counted = Counted()
    counted.compile(LayerCache(tmp_path))
    counted.compile(LayerCache(tmp_path))
    assert counted.reads == 1


@pytest.mark.parametrize("name", ["index", "00000.data", "seal"])
@pytest.mark.parametrize("harm", ["truncate", "flip", "remove"])
def test_a_damaged_entry_is_compiled_again(tmp_path: Path, name: str, harm: str) -> None:
    counted = Counted()
    entry = counted.compile(LayerCache(tmp_path))
    whole = (entry / "00000.data").read_bytes()
    file = entry / name
    info = file.stat()
    if harm == "remove":
        file.unlink()
    else:
        data = bytearray(file.read_bytes())
        if harm == "flip":
            data[len(data) // 2] ^= 1
        else:
            del data[len(data) // 2 :]
        file.write_bytes(data)
        os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    counted.compile(LayerCache(tmp_path))
    assert (entry / "00000.data").read_bytes() == whole
    # Without its seal an entry is not taken at its word, but its content may be right.
    assert counted.reads == (1 if name == "seal" and harm != "remove" else 2)
    assert LayerCache(tmp_path).read(entry.name) is not None


def test_an_entry_that_was_only_copied_is_hashed_and_kept(tmp_path: Path) -> None:
    counted = Counted()
    entry = counted.compile(LayerCache(tmp_path))
    before = (entry / "00000.data").stat().st_ino
    os.utime(entry / "00000.data")
    seal = (entry / "seal").read_text()
    counted.compile(LayerCache(tmp_path))
    assert counted.reads == 1
    assert (entry / "00000.data").stat().st_ino == before
    assert (entry / "seal").read_text() != seal


def test_the_entry_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = LayerCache(tmp_path)
    entries = {name: Counted(name).compile(cache) for name in ("a", "b", "c")}
    for age, name in enumerate(["b", "c"]):
        os.utime(entries[name], (1000 + age, 1000 + age))
    Counted("b").compile(cache)  # used now
    removed = cache.trim(limit=130_000)
    assert removed == [entries["c"].name]
    assert entries["a"].exists()
    assert entries["b"].exists()


def test_entries_in_use_are_not_removed(tmp_path: Path) -> None:
    cache = LayerCache(tmp_path)
    counted = Counted()
    with compile_layers(cache, [counted.source], OPTIONS) as layers:
        assert cache.trim(limit=0) == []
        assert isinstance(layers[0].parts[0].source, Path)
        assert layers[0].parts[0].source.exists()
    assert len(cache.trim(limit=0)) == 1


def test_what_a_killed_run_left_half_made_is_removed(tmp_path: Path) -> None:
    cache = LayerCache(tmp_path)
    half = cache.entry("0" * 40 + ".partial")
    half.mkdir()
    (half / "00000.data").write_bytes(b"half")
    assert cache.trim() == [half.name]
    assert not half.exists()


def test_two_at_once_compile_a_layer_once_and_both_get_it(tmp_path: Path) -> None:
    counted = Counted()
    release = threading.Event()

    def slowly() -> Iterator[bytes]:
        counted.reads += 1
        release.wait(10)
        yield counted.data

    slow = TarSource(counted.source.digest, slowly)
    got: list[int] = []

    def work() -> None:
        with compile_layers(LayerCache(tmp_path), [slow], OPTIONS) as layers:
            got.append(layers[0].rows)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    release.set()
    for thread in threads:
        thread.join()
    assert got == [2, 2, 2]
    assert counted.reads == 1


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CacheError, match="cannot be made"):
        LayerCache(tmp_path / "file" / "cache")


def test_a_directory_layer_larger_than_one_part_is_the_same_from_any_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "layer"
    folder.mkdir()
    for number in range(40):
        (folder / f"file-{number}").write_bytes(os.urandom(300_000) + bytes(300_000))
    os.utime(folder, (1, 1))
    monkeypatch.setattr(compiling, "PART_BYTES", 4 << 20)
    monkeypatch.setattr(compiling, "_SMALL_BYTES", 1 << 20)
    parts = []
    for count in (1, 3):
        monkeypatch.setattr(worker_pool, "cpu_count", lambda count=count: count)
        with compile_layers(
            LayerCache(tmp_path / f"cache-{count}"), [DirectorySource("sha256:1", folder)], OPTIONS
        ) as layers:
            parts.append([part.pieces for part in layers[0].parts])
    assert len(parts[0]) == 6
    assert parts[0] == parts[1]


def test_a_process_that_has_ended_fails_its_job_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(self: worker_pool.PackPool) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        process = subprocess.Popen([sys.executable, "-c", ""], stdin=pipe, stdout=pipe)
        process.wait()
        return process

    monkeypatch.setattr(worker_pool.PackPool, "_start", ended)
    job = PackJob(b"/", [], 0, "zstd", 1, 4096, tmp_path / "00000.data")
    with worker_pool.PackPool(1) as workers:
        future = workers.submit(job, lambda future: None)
    with pytest.raises(CacheError, match="ended early"):
        future.result()


def test_a_file_that_vanishes_while_its_layer_is_packed_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "absent"
    with (
        pytest.raises(LayerError, match="cannot be read") as raised,
        compile_layers(
            LayerCache(tmp_path / "cache"), [DirectorySource("sha256:1", folder)], OPTIONS
        ),
    ):
        raise AssertionError("not reached")
    assert str(folder) in str(raised.value)
    assert list((tmp_path / "cache" / "layers").iterdir()) == []
