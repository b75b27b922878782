"""Traces of starts: their text, and how they fit an image they were not made in."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.core import SlipwayError
from slipway.sqsh.start.image_paths import traced_files
from slipway.sqsh.start.start_trace import (
    TouchedFile,
    default_trace,
    general_path,
    make_trace,
    merge_ranges,
    parse_trace,
    read_trace,
    trace_text,
)
from slipway.squashfs import HotFile, LayerWriter, SqshOptions
from slipway.squashfs.link.hot_data import find_hot_rows

SPANS = st.tuples(st.integers(0, 1 << 40), st.integers(1, 1 << 30)).map(
    lambda pair: (pair[0], pair[0] + pair[1])
)
READS = st.dictionaries(
    st.binary(min_size=1, max_size=12), st.lists(SPANS, min_size=1, max_size=4), max_size=4
)
#: Of 25 examples each; a busy machine is no failure.
FEW = settings(max_examples=25)


@FEW
@given(READS, st.text(max_size=20))
def test_a_trace_is_read_as_it_was_written(
    reads: dict[bytes, list[tuple[int, int]]], command: str
) -> None:
    reads = {path.lstrip(b"/") or b"x": spans for path, spans in reads.items()}
    trace = make_trace(command, reads, dict.fromkeys(reads, 1 << 50))
    assert parse_trace(trace_text(trace)) == trace


@FEW
@given(st.lists(SPANS, max_size=6), st.sampled_from([1, 4096]), st.integers(1, 1 << 20))
def test_merged_ranges_cover_all_and_leave_gaps(
    spans: list[tuple[int, int]], grain: int, gap: int
) -> None:
    merged = merge_ranges(spans, grain, gap)
    for start, end in spans:
        assert any(low <= start and end <= high for low, high in merged)
    for (_, end), (start, _) in itertools.pairwise(merged):
        assert start - end >= gap


def test_what_is_read_from_end_to_end_is_written_as_all() -> None:
    trace = make_trace("x", {b"a": [(0, 10), (10, 90)], b"b": [(0, 9)]}, {b"a": 90, b"b": 1 << 20})
    assert [file.path for file in trace.files if not file.ranges] == ["a"]


@pytest.mark.parametrize(
    ("path", "general"),
    [
        ("usr/local/lib/python3.11/dist-packages/torch/x.so", "{packages}/torch/x.so"),
        ("opt/conda/lib/python3.12/site-packages/a/__pycache__/b.cpython-312.pyc",
         "{packages}/a/__pycache__/b.{tag}.pyc"),
        ("usr/lib/python3/dist-packages/six.py", "{packages}/six.py"),
        ("usr/lib/python3.11/json/__init__.py", "{stdlib}/json/__init__.py"),
        ("usr/lib64/python3.9/lib-dynload/_ssl.cpython-39-x86_64-linux-gnu.so",
         "{stdlib}/lib-dynload/_ssl.{tag}-x86_64-linux-gnu.so"),
        ("usr/bin/python3.11", "{bin}/python{version}"),
        ("usr/bin/python3", "usr/bin/python3"),
        ("usr/lib/x86_64-linux-gnu/libc.so.6", "usr/lib/x86_64-linux-gnu/libc.so.6"),
    ],
)  # fmt: skip
def test_paths_of_a_python_are_written_for_every_python(path: str, general: str) -> None:
    assert general_path(path) == general


@pytest.mark.parametrize(
    "text",
    [
        "",
        "slipway-start/2\ncommand: x\n",
        "slipway-start/1\nall a\n",
        "slipway-start/1\ncommand: x\nall\n",
        "slipway-start/1\ncommand: x\nall /etc/passwd\n",
        "slipway-start/1\ncommand: x\nall a\nall a\n",
        "slipway-start/1\ncommand: x\n5-5 a\n",
        "slipway-start/1\ncommand: x\n0-9,5-12 a\n",
        "slipway-start/1\ncommand: x\n0-9,-4 a\n",
        f"slipway-start/1\ncommand: x\n0-{'9' * 400} a\n",
        f"slipway-start/1\ncommand: x\n{','.join(f'{n * 4}-{n * 4 + 1}' for n in range(20000))} a",
    ],
)  # fmt: skip
def test_what_is_no_trace_is_refused_with_its_file(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.start"
    path.write_text(text)
    with pytest.raises(SlipwayError, match="not a trace of a start") as caught:
        read_trace(path)
    assert caught.value.where == str(path)


def test_a_trace_of_one_python_finds_the_files_of_another() -> None:
    writer = LayerWriter(SqshOptions(), 0)
    there = {
        "opt/conda/bin/python3.12",
        "opt/conda/lib/python3.12/os.py",
        "opt/conda/lib/python3.12/site-packages/a.cpython-312.so",
        "srv/own/lib/python3.10/site-packages/a.cpython-310.so",
        "usr/lib/python3/dist-packages/six.py",
        "etc/os-release",
    }
    for path in sorted(there | {"usr/lib/python3.9/other.py"}):
        writer.file(path.encode(), b"x")
    names = ["{bin}/python{version}", "{stdlib}/os.py", "{packages}/a.{tag}.so"]
    names += ["{packages}/six.py", "etc/os-release"]
    trace = parse_trace("slipway-start/1\ncommand: x\n" + "".join(f"all {n}\n" for n in names))
    found = traced_files(trace, [writer.finish()], ["PATH=/srv/own/bin:/bin"])
    paths = {path.decode() for file in found for path in (file.path, file.instead)}
    assert paths >= there
    assert not any("{" in path for path in paths)


BYTECODE, SOURCE = "pkg/__pycache__/mod.cpython-311.pyc", "pkg/mod.py"


@pytest.mark.parametrize("traced", ["pkg/__pycache__/mod.{tag}.pyc", SOURCE])
@pytest.mark.parametrize("folder", ["{stdlib}", "{packages}"])
@pytest.mark.parametrize(
    ("there", "read"), [((BYTECODE, SOURCE), BYTECODE), ((SOURCE,), SOURCE), ((), None)]
)
def test_a_module_is_its_bytecode_where_there_is_some_else_its_source(
    traced: str, folder: str, there: tuple[str, ...], read: str | None
) -> None:
    """Whichever of them the image of the trace had."""
    place = "usr/lib/python3.11" + ("" if folder == "{stdlib}" else "/site-packages")
    writer = LayerWriter(SqshOptions(), 0)
    for name in ("other.py", *there):
        writer.file(f"{place}/{name}".encode(), b"x")
    layers = [writer.finish()]
    trace = parse_trace(f"slipway-start/1\ncommand: x\nall {folder}/{traced}\n")
    rows = find_hot_rows(layers, traced_files(trace, layers, ["PATH=/usr/bin"]))
    assert [file.path.decode() for _, file in rows] == ([f"{place}/{read}"] if read else [])


def test_a_file_that_is_no_module_is_only_itself() -> None:
    writer = LayerWriter(SqshOptions(), 0)
    for name in ("opt/__pycache__/run.cpython-311.pyc", "opt/run.py"):
        writer.file(name.encode(), b"x")
    trace = parse_trace("slipway-start/1\ncommand: x\n0-65536 opt/run.py\n")
    assert traced_files(trace, [writer.finish()], []) == [HotFile(b"opt/run.py", ((0, 65536),))]


def test_the_default_trace_names_modules_of_todays_launcher() -> None:
    """They move now and then; one that is not there is read late, in each start of each job."""
    paths = {file.path for file in default_trace().files if file.path.startswith("opt/entry")}
    root = Path(__file__).parents[3]
    assert {path for path in paths if not (root / path.removeprefix("opt/")).is_file()} == set()
    assert len(paths) > 30


def test_the_default_trace_is_of_torch_and_deepspeed_by_the_launcher() -> None:
    paths = {file.path for file in default_trace().files}
    assert "{packages}/torch/__init__.py" in paths or any(
        path.startswith("{packages}/torch/__pycache__/__init__.") for path in paths
    )
    assert any(path.startswith("{packages}/deepspeed/") for path in paths)
    assert TouchedFile("{bin}/python{version}") in default_trace().files
    assert {"opt/entrypoints/launch", "opt/entrypoints/launcher/cli.py"} <= paths
