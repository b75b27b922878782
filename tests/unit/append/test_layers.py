"""Layers as bytes: the same on any machine, and readable by every tool."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.append import layer_blobs
from slipway.append.layer_blobs import (
    FORMAT,
    MTIME,
    LayerStore,
    _header,
    layer_tar,
)
from slipway.append.layer_files import LayerFile, LayerPlan
from slipway.core import SharedParts, SlipwayError
from slipway.registry import gzip_stream

names = st.lists(
    st.text(
        st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=120
    ).filter(lambda name: name not in (".", "..")),
    min_size=1,
    max_size=3,
).map("/".join)
files = st.dictionaries(names, st.tuples(st.binary(max_size=2000), st.sampled_from([0o644, 0o755])))


def plan_of(contents: dict[str, tuple[bytes, int]], **more: tuple[str, ...]) -> LayerPlan:
    listed = [LayerFile(p, data, len(data), mode) for p, (data, mode) in contents.items()]
    return LayerPlan("test", tuple(listed), **more)


@given(files)
@settings(max_examples=60)
def test_a_layer_holds_its_files_sorted_and_by_root(contents: dict[str, tuple[bytes, int]]) -> None:
    data = b"".join(layer_tar(plan_of(contents)))
    assert data == b"".join(layer_tar(plan_of(dict(reversed(contents.items())))))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
        assert {m.name: (tar.extractfile(m).read(), m.mode) for m in members} == contents  # type: ignore[union-attr]
    assert [m.name for m in members] == sorted(contents, key=str.encode)
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} <= {(0, 0, "", "", MTIME)}


@given(
    st.text(
        st.characters(exclude_characters="\0", exclude_categories=()), min_size=1, max_size=200
    ),
    st.sampled_from([0o644, 0o755, 0o4711]),
    st.one_of(st.integers(0, 1 << 40), st.sampled_from([8**11 - 1, 8**11])),
    st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE]),
)
def test_a_header_is_what_tarfile_writes(path: str, mode: int, size: int, kind: bytes) -> None:
    path += "/" if kind == tarfile.DIRTYPE else ""
    member = tarfile.TarInfo(path)
    member.type, member.mode, member.size, member.mtime = kind, mode, size, MTIME
    try:
        expected = member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair that is no byte of a name either
        return
    assert _header(path, mode, size, kind) == expected


@given(st.lists(st.binary(max_size=5000)), st.integers(0, 3))
@settings(max_examples=30)
def test_the_compressed_form_is_one_gzip_of_the_pieces(pieces: list[bytes], large: int) -> None:
    pieces = [*pieces, *(os.urandom(1) * 700_000 for _ in range(large))]
    whole, hashed = b"".join(pieces), hashlib.sha256()
    packed = b"".join(gzip_stream(iter(pieces), hashed.update))
    assert gzip.decompress(packed) == whole
    assert hashed.hexdigest() == hashlib.sha256(whole).hexdigest()
    assert packed == b"".join(gzip_stream(iter([whole]), hashed.update))  # however it comes


def test_folders_and_whiteouts_are_members(tmp_path: Path) -> None:
    plan = plan_of({"a/b/c": (b"x", 0o644)}, folders=("a/b",), whiteouts=("a/old", "gone"))
    data = b"".join(layer_tar(plan))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == [".wh.gone", "a/.wh.old", "a/b", "a/b/c"]
        assert (tar.getmember("a/b").isdir(), tar.getmember("a/b").mode) == (True, 0o755)


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../b", "a//b", "", "."])
def test_a_path_out_of_the_root_is_refused(path: str) -> None:
    with pytest.raises(SlipwayError, match="not a path"):
        b"".join(layer_tar(plan_of({path: (b"", 0o644)})))


def test_a_file_that_changes_while_it_is_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12")
    for size in (1, 3):
        with pytest.raises(SlipwayError, match="changed its size"):
            b"".join(layer_tar(LayerPlan("t", (LayerFile("file", path, size),))))


PROGRAM = """
import os, sys
from pathlib import Path
from slipway.append.layer_blobs import LayerStore
from slipway.append.layer_files import LayerFile, LayerPlan
content = Path(sys.argv[1]).read_bytes()
if os.geteuid() == 0 and sys.argv[2] == "1":
    os.setuid(65534)
path = Path("there"); path.write_bytes(content)
files = (LayerFile("opt/\\u00e4/file", path, len(content), 0o755),)
plan = LayerPlan("t", files, ("opt",), ("etc/gone",))
layer = LayerStore(Path("store")).layer(plan)
print(plan.key, layer.digest, layer.diff_id, layer.size)
"""


def test_umask_locale_zone_folder_and_user_do_not_matter(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 12_000)
    answers = set()
    for number, (umask, zone, locale) in enumerate(
        [(0o022, "UTC", "C.UTF-8"), (0o077, "Asia/Kolkata", "C"), (0o002, "America/Lima", "de_DE")]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        folder.chmod(0o777)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(source), str(number)],
            cwd=folder,
            env={**os.environ, "TZ": zone, "LC_ALL": locale, "PYTHONHASHSEED": str(number)},
            umask=umask,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers.add(done.stdout)
    assert len(answers) == 1


def test_a_layer_is_made_once_and_again_where_it_is_damaged(tmp_path: Path) -> None:
    store, plan = LayerStore(tmp_path), plan_of({"x": (b"content", 0o644)})
    first = store.layer(plan)
    identity = first.path.stat().st_ino
    assert store.layer(plan) == first
    assert first.path.stat().st_ino == identity
    (listed,) = store.blobs()
    assert (listed.digest, listed.diff_id, listed.path) == (first.digest, first.diff_id, first.path)
    first.path.write_bytes(b"short")
    assert list(store.blobs()) == []
    assert store.layer(plan) == first
    assert hashlib.sha256(first.path.read_bytes()).hexdigest() == first.digest[7:]


def test_a_layer_that_another_machine_has_made_is_copied_and_checked(tmp_path: Path) -> None:
    shared, plan = SharedParts(tmp_path / "shared"), plan_of({"x": (b"content", 0o644)})
    first = LayerStore(tmp_path / "first", shared).layer(plan)
    (part,) = (tmp_path / "shared" / "layers").iterdir()
    assert LayerStore(tmp_path / "second", shared).layer(plan).digest == first.digest
    (part / "blob").write_bytes(b"else")
    third = LayerStore(tmp_path / "third", shared).layer(plan)
    assert hashlib.sha256(third.path.read_bytes()).hexdigest() == first.digest[7:]


def test_layers_made_together_are_those_made_one_by_one(tmp_path: Path) -> None:
    sizes = [10, 300_000, 2_500_000, 10, 0, 40_000]  # two have the same content
    plans = [plan_of({f"f{size}": (os.urandom(size // 2) * 2, 0o644)}) for size in sizes[:3]]
    plans += [plans[0], *(plan_of({f"f{size}": (bytes(size), 0o755)}) for size in sizes[4:])]
    alone = LayerStore(tmp_path / "alone")
    expected = [alone.layer(plan) for plan in plans]
    heard: list[str] = []
    store = LayerStore(tmp_path / "store")
    for _ in range(2):  # the second time all are there
        heard.clear()
        made = store.layers(plans, lambda layer: heard.append(layer.digest))
        assert [layer.digest for layer in made] == [layer.digest for layer in expected]
        assert all(layer.path.stat().st_size == layer.size for layer in made)
        assert sorted(heard) == sorted({layer.digest for layer in expected})


def test_a_layer_that_fails_is_said_and_the_others_of_its_batch_are_whole(tmp_path: Path) -> None:
    good = [plan_of({f"f{number}": (b"1", 0o644)}) for number in range(6)]
    bad = LayerPlan("bad", (LayerFile("x", tmp_path / "x", 5),))
    (tmp_path / "x").write_bytes(b"1234")
    store = LayerStore(tmp_path / "store")
    with pytest.raises(SlipwayError, match="changed its size"):
        store.layers([*good, bad])
    expected = {LayerStore(tmp_path / "alone").layer(plan).digest for plan in good}
    assert {blob.digest for blob in store.blobs()} <= expected
    assert len(store.layers(good)) == len(good)  # the lock is free again


@contextlib.contextmanager
def interrupted_by() -> Iterator[threading.Event]:
    """Ctrl-C in this thread once the event is set, as often as it takes: a signal that comes in the
    moment before a lock is waited for is heard at the next one only (core/interrupts.py)."""
    interrupt, handled, ended = threading.Event(), threading.Event(), threading.Event()
    main = threading.get_ident()

    def handler(_number: int, _frame: object) -> None:
        if not handled.is_set():
            handled.set()
            raise KeyboardInterrupt

    def send() -> None:
        interrupt.wait()
        while not handled.is_set() and not ended.is_set():
            signal.pthread_kill(main, signal.SIGINT)
            ended.wait(0.05)

    before = signal.signal(signal.SIGINT, handler)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield interrupt
    finally:
        ended.set()
        interrupt.set()
        sender.join()
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_does_not_wait_for_the_end_of_a_large_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = plan_of({"large": (b"", 0o644)}), plan_of({"x": (b"content", 0o644)})
    large = replace(large, files=(replace(large.files[0], size=1 << 40),))  # the first to be made
    ended: list[LayerPlan] = []

    def tar(plan: LayerPlan) -> Iterator[bytes]:
        end = time.monotonic() + 60
        while plan is large and time.monotonic() < end:
            yield bytes(1 << 16)
        ended.append(plan)
        yield from layer_tar(plan)

    monkeypatch.setattr(layer_blobs, "layer_tar", tar)
    store = LayerStore(tmp_path / "store")
    with interrupted_by() as interrupt, pytest.raises(KeyboardInterrupt):
        store.layers([large, small], lambda _: interrupt.set())
    assert ended == [small]
    expected = LayerStore(tmp_path / "alone").layer(small).digest
    assert [blob.digest for blob in store.blobs()] == [expected]
    assert [*(tmp_path / "store" / "sha256").iterdir()] == [store.layer(small).path]


def test_the_bytes_of_this_format_are_those_that_other_machines_have_kept() -> None:
    """Which gzip a layer's key stands for is known to registries and shared folders already, so
    other bytes need another FORMAT (a new zlib-ng may give some). Made with zlib-ng 2.3.3; that the
    processor has no part in it is shown by bench.gzip_processors."""
    noise = b"".join(hashlib.sha256(bytes([number])).digest()[:9] for number in range(256))
    sample = (noise + b"import os\nimport sys\n" * 40) * 20
    packed = b"".join(gzip_stream(iter([sample]), lambda _: None))
    assert (FORMAT, hashlib.sha256(packed).hexdigest()) == (
        "3",
        "74ffe6083c42a4052088681271040198e1a40e8b12bdbad0e289be2cb781cc7f",
    )
