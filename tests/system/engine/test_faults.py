"""Faults in the middle of a build: the daemon dies, the disk fills up."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import pytest

from slipway.core import Event, Project, wait_until
from slipway.engine import (
    ContextFile,
    Engine,
    TransferError,
    connect,
    daemon_status,
    find_image_id,
    import_rootfs,
    run_once,
    stop_daemon,
)
from slipway.engine.errors import DiskFullError, EngineDiedError
from tests.support.engine_builds import request, run_build, sleeping, when_says
from tests.support.tiny import rootfs_tar

BASE = "slipway.test/faults:1"
TAG = "slipway.test/faults-out:1"


@pytest.fixture
def own(project: Project) -> Iterator[Project]:
    """A project with an engine of the test's own, and a base in it."""
    with closing(connect(project, "embedded")) as engine:
        import_rootfs(engine, io.BytesIO(rootfs_tar()), BASE)
    yield project
    stop_daemon(project)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_daemon_that_dies_is_blamed_and_the_next_run_heals_it(
    own: Project, tmp_path: Path, number: signal.Signals
) -> None:
    seconds = str(4800 + number)

    def kill(_: Event) -> None:
        pid = daemon_status(own).pid
        assert pid is not None
        os.kill(pid, number)

    wanted = request(f"FROM {BASE}\nRUN echo begun; exec sleep {seconds}\n", tags=(TAG,))
    with closing(connect(own, "embedded")) as engine, pytest.raises(EngineDiedError) as caught:
        run_build(engine, wanted, tmp_path / "log", on_event=when_says("begun", kill))
    assert caught.value.where == daemon_status(own).url
    assert "begun" in (tmp_path / "log").read_text()

    with closing(connect(own, "embedded")) as engine:
        assert sleeping(seconds) == []  # the step that the dead daemon left behind
        mounts = Path("/proc/self/mountinfo").read_text()
        assert f"{engine.data_root}/overlay2" not in mounts
        assert find_image_id(engine, TAG) is None
        again = request(f"FROM {BASE}\nRUN echo well > /state\n", tags=(TAG,))
        image = run_build(engine, again, tmp_path / "log")
        assert run_once(engine, image, ["cat", "/state"], timeout_s=60).stdout == b"well\n"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Project]:
    """A project whose state is on an ext4 of 120 MB."""
    file, point = tmp_path / "disk.ext4", tmp_path / "disk"
    with file.open("wb") as stream:
        stream.truncate(120 * 1000 * 1000)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(file)], check=True)
    point.mkdir()
    subprocess.run(["mount", "-o", "loop", str(file), str(point)], check=True)
    project = Project(point, point / "state")
    try:
        yield project
    finally:
        stop_daemon(project)
        subprocess.run(["umount", str(point)], check=True)


@pytest.fixture
def small_engine(small_disk: Project) -> Iterator[Engine]:
    with closing(connect(small_disk, "embedded")) as engine:
        import_rootfs(engine, io.BytesIO(rootfs_tar()), BASE)
        yield engine


def _assert_usable(engine: Engine, log: Path) -> None:
    image = run_build(engine, request(f"FROM {BASE}\nRUN echo {uuid.uuid4()} > /x\n"), log)
    assert run_once(engine, image, ["true"], timeout_s=60).exit_code == 0


def test_a_step_that_fills_the_disk_names_the_disk_and_the_engine_goes_on(
    small_engine: Engine, tmp_path: Path
) -> None:
    fill = request(f"FROM {BASE}\nRUN dd if=/dev/zero of=/big bs=1000000 count=300\n", tags=(TAG,))
    with pytest.raises(DiskFullError) as caught:
        run_build(small_engine, fill, tmp_path / "log")
    assert small_engine.data_root in caught.value.what
    assert "MB are free" in caught.value.what
    assert find_image_id(small_engine, TAG) is None
    _assert_usable(small_engine, tmp_path / "log")


def test_a_context_that_fills_the_disk_is_not_the_dockerfiles_fault(
    small_engine: Engine, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        for _ in range(200):
            file.write(os.urandom(1_000_000))
    wanted = request(f"FROM {BASE}\nCOPY large /\n", context=(ContextFile("large", large),))
    with pytest.raises(DiskFullError):
        run_build(small_engine, wanted, tmp_path / "log")
    _assert_usable(small_engine, tmp_path / "log")


def test_a_log_that_finds_no_space_names_the_log_and_not_the_engine(
    own: Project, tmp_path: Path
) -> None:
    point = tmp_path / "full"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(point)], check=True)
    line = "x" * 1000
    script = f"i=0; while [ $i -lt 200 ]; do echo {line}; i=$((i+1)); done; exec sleep 4899"
    try:
        with (
            closing(connect(own, "embedded")) as engine,
            pytest.raises(DiskFullError, match="build's log") as caught,
        ):
            run_build(engine, request(f"FROM {BASE}\nRUN {script}\n"), point / "log")
    finally:
        subprocess.run(["umount", str(point)], check=True)
    assert caught.value.where == str(point / "log")
    assert wait_until(lambda: not sleeping("4899"), 30)


def test_a_broken_terminal_is_not_taken_for_a_dead_engine(own: Project, tmp_path: Path) -> None:
    def print_to_nobody(_: Event) -> None:
        raise BrokenPipeError

    wanted = request(f"FROM {BASE}\nRUN echo hello\n")
    with closing(connect(own, "embedded")) as engine, pytest.raises(BrokenPipeError):
        run_build(engine, wanted, tmp_path / "log", on_event=print_to_nobody)


@contextmanager
def _large_tar() -> Iterator[IO[bytes]]:
    """A tar whose one file is larger than the small disk."""
    info = tarfile.TarInfo("big")
    info.size = 300 * 1000 * 1000
    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as content:
        content.truncate(info.size)
        with tarfile.open(fileobj=file, mode="w") as tar:
            tar.addfile(info, content)
        file.seek(0)
        yield file


def test_an_import_that_fills_the_disk_is_a_transfer_error_of_that_kind(
    small_engine: Engine, tmp_path: Path
) -> None:
    with _large_tar() as stream, pytest.raises(TransferError) as caught:
        import_rootfs(small_engine, stream, TAG)
    assert (caught.value.kind, caught.value.retry) == ("disk_full", False)
    assert small_engine.data_root in caught.value.what
    assert find_image_id(small_engine, TAG) is None
    _assert_usable(small_engine, tmp_path / "log")
