"""The layer cache: bounded, shared, healed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slipway.core import SharedParts
from slipway.squashfs import (
    DirectorySource,
    LayerCache,
    SqshOptions,
    TarSource,
    compile_layers,
)
from slipway.squashfs.compile import compiler as compiling
from slipway.squashfs.compile import worker_pool
from slipway.squashfs.compile.pack_job import PackJob
from slipway.squashfs.format.errors import CacheError, LayerError
from tests.unit.squashfs.test_layers import archive, member, source

OPTIONS = SqshOptions("zstd", 1, 4096)
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
            return cache.entry(OPTIONS.layer_key(self.source.digest))


def test_a_layer_is_compiled_once(tmp_path: Path) -> None:
    counted = Counted()
    counted.compile(LayerCache(tmp_path))
    counted.compile(LayerCache(tmp_path))
    assert counted.reads == 1


def test_a_layer_that_another_machine_has_compiled_is_copied_and_checked(tmp_path: Path) -> None:
    shared = SharedParts(tmp_path / "shared")
    counted = Counted()
    first = counted.compile(LayerCache(tmp_path / "first", shared=shared))
    again = counted.compile(LayerCache(tmp_path / "second", shared=shared))
    assert counted.reads == 1
    assert (again / "00000.data").read_bytes() == (first / "00000.data").read_bytes()
    (part,) = (tmp_path / "shared" / "compiled-layers").iterdir()
    data = part / "00000.data"
    content = data.read_bytes()
    data.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    third = counted.compile(LayerCache(tmp_path / "third", shared=shared))
    assert counted.reads == 2  # what was copied was not whole
    assert (third / "00000.data").read_bytes() == (first / "00000.data").read_bytes()


def test_machines_that_need_one_layer_at_once_compile_it_once(tmp_path: Path) -> None:
    counted = Counted()

    def machine(number: int) -> bytes:
        shared = SharedParts(tmp_path / "shared")
        entry = counted.compile(LayerCache(tmp_path / str(number), shared=shared))
        return (entry / "00000.data").read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert len({*pool.map(machine, range(4))}) == 1
    assert counted.reads == 1
    assert [*(tmp_path / "shared" / "leases").iterdir()] == []


def test_a_layer_that_failed_here_is_left_to_other_machines(tmp_path: Path) -> None:
    shared = SharedParts(tmp_path / "shared")
    broken = TarSource("sha256:1", lambda: iter([b"no archive"]))
    with (
        pytest.raises(LayerError),
        compile_layers(LayerCache(tmp_path / "cache", shared=shared), [broken], OPTIONS),
    ):
        pass
    assert [*(tmp_path / "shared").rglob("*.00001")] == []


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


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _full_folder(path: Path) -> None:
    (path / "more").mkdir(parents=True)
    (path / "more" / "file").write_bytes(b"x")


PLANTED = {
    "file": lambda path: path.write_bytes(b"not a folder"),
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "circular link": lambda path: path.symlink_to(path.name),
    "link to a folder": lambda path: path.symlink_to("/etc"),
    "pipe": _pipe,
    "folder": _full_folder,
}


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("place", ["entry", "partial", "lock", "index", "data", "seal"])
def test_whatever_stands_in_the_place_of_a_file_of_the_cache_is_replaced(
    tmp_path: Path, planted: str, place: str
) -> None:
    counted = Counted()
    cache = LayerCache(tmp_path)
    entry = counted.compile(cache)
    target = {
        "entry": entry,
        "partial": entry.with_name(entry.name + ".partial"),
        "lock": cache.folder / "locks" / entry.name,
        "index": entry / "index",
        "data": entry / "00000.data",
        "seal": entry / "seal",
    }[place]
    if place in ("partial", "lock"):
        shutil.rmtree(entry)
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    PLANTED[planted](target)
    counted.compile(cache)
    assert cache.read(entry.name) is not None
    assert not entry.is_symlink()
    # A seal that says something else has the contents hashed, and they are right.
    assert counted.reads == (1 if (place, planted) == ("seal", "file") else 2)


def test_an_entry_that_is_a_link_to_a_whole_one_is_not_believed(tmp_path: Path) -> None:
    counted = Counted()
    cache = LayerCache(tmp_path)
    entry = counted.compile(cache)
    entry.rename(tmp_path / "elsewhere")
    entry.symlink_to(tmp_path / "elsewhere")
    counted.compile(cache)
    assert counted.reads == 2
    assert not entry.is_symlink()


@pytest.mark.parametrize("name", ["layers", "locks"])
@pytest.mark.parametrize("planted", ["file", "dangling link", "pipe"])
def test_the_folders_of_the_cache_are_made_anew(tmp_path: Path, name: str, planted: str) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    PLANTED[planted](folder / name)
    Counted().compile(LayerCache(folder))


@pytest.mark.parametrize("planted", PLANTED)
def test_trimming_removes_what_is_no_entry(tmp_path: Path, planted: str) -> None:
    cache = LayerCache(tmp_path)
    PLANTED[planted](cache.entry("0" * 40))
    cache.trim(limit=0)
    assert list((tmp_path / "layers").iterdir()) == []
    assert Path("/etc/passwd").exists()


def test_who_holds_a_layer_is_said_at_once_and_whether_it_is_stopped(tmp_path: Path) -> None:
    counted = Counted()
    cache = LayerCache(tmp_path)
    key = OPTIONS.layer_key(counted.source.digest)
    code = (
        "import fcntl, os, sys; h = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT);"
        "fcntl.flock(h, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(cache.folder / "locks" / key)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, holder.pid, os.WSTOPPED)
        heard: list[tuple[str, str]] = []

        def on_wait(digest: str, who: str) -> None:
            heard.append((digest, who))
            holder.kill()

        with compile_layers(cache, [counted.source], OPTIONS, on_wait=on_wait) as layers:
            assert layers[0].rows == 2
    assert heard[0][0] == counted.source.digest
    assert f"process {holder.pid} " in heard[0][1]
    assert f"stopped (`kill -CONT {holder.pid}`" in heard[0][1]


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


@pytest.mark.parametrize("obstacle", [None, "file", "dangling link"])
def test_those_who_make_the_folder_at_once_never_remove_what_another_made(
    tmp_path: Path, obstacle: str | None
) -> None:
    for number in range(40):
        folder = tmp_path / str(number)
        if obstacle is not None:
            folder.mkdir()
            for name in ("layers", "locks"):
                if obstacle == "file":
                    (folder / name).write_text("in the way")
                else:
                    (folder / name).symlink_to("nowhere")
        start = threading.Barrier(4)

        def make_entry(name: str, folder: Path = folder, start: threading.Barrier = start) -> None:
            start.wait()
            cache = LayerCache(folder)
            lock = cache.lock(name)
            lock.own()
            cache.entry(name).mkdir()
            lock.release()

        threads = [threading.Thread(target=make_entry, args=(f"{n}" * 40,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(list((folder / "layers").iterdir())) == 4
        assert len(list((folder / "locks").iterdir())) == 4


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
