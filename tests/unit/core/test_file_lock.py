"""Locks: one holder, a word about who it is, and nothing left of a killed one."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from slipway.core import (
    DriftError,
    FileLock,
    SlipwayError,
    exclusive,
    lock_is_held,
    service_lock,
    wait_for_lock,
)

HOLD = """
import sys, time
from pathlib import Path
from slipway.core import exclusive
with exclusive(Path(sys.argv[1]), "ship"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_is_told_who_holds_the_lock_and_a_killed_holder_leaves_it_free(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state" / "lock"
    assert not lock_is_held(path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert lock_is_held(path)
        with pytest.raises(SlipwayError, match=rf"inv ship \(pid {holder.pid}\) is at work"):
            exclusive(path, "lock").__enter__()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert not lock_is_held(path)
    with exclusive(path, "lock"):
        assert lock_is_held(path)


def test_shared_holders_keep_out_one_that_wants_it_alone(tmp_path: Path) -> None:
    first, second, third = (FileLock(tmp_path / "lock") for _ in range(3))
    first.share()
    second.share()
    assert not third.own(wait=False)
    first.release()
    second.release()
    assert third.own(wait=False)
    third.release()


def test_a_waiting_one_gets_its_turn(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with wait_for_lock(tmp_path / "lock"):
            order.append("second")

    with wait_for_lock(tmp_path / "lock"):
        waiting = threading.Thread(target=second)
        waiting.start()
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


def test_a_lock_in_a_place_that_cannot_be_is_an_error_with_a_cure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SlipwayError, match="lock file cannot be written") as refused:
        exclusive(tmp_path / "file" / "lock", "ship").__enter__()
    assert "SLIPWAY_STATE" in (refused.value.cure or "")


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_told_with_what_to_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Lustre without `flock` (tox-dev/filelock#67), NFS without its lock daemon."""

    def flock(_handle: int, _how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    for take in ("wait_for_lock", "exclusive"):
        with pytest.raises(SlipwayError, match="its file system has no locks") as refused:
            lock_of(take, tmp_path / "lock").__enter__()
        assert "the option `flock`" in (refused.value.cure or "")
    assert not lock_is_held(tmp_path / "lock")


def lock_of(take: str, path: Path) -> AbstractContextManager[None]:
    return wait_for_lock(path) if take == "wait_for_lock" else exclusive(path, "ship")


@pytest.mark.parametrize("take", ["wait_for_lock", "exclusive"])
def test_a_stopped_holder_is_named_and_not_waited_for_without_end(
    tmp_path: Path,
    take: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("slipway.core.file_lock._STOPPED_S", 0.2)
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGSTOP)
        lock = lock_of(take, path)
        with pytest.raises(SlipwayError, match=f"`kill -CONT {holder.pid}` lets it go on"):
            lock.__enter__()
        holder.send_signal(signal.SIGKILL)
        told = capsys.readouterr().err
        # At once: nobody waits for the end of the wait to hear whom it is for.
        waits = rf"waiting for process {holder.pid} \(\w+\), which is stopped"
        assert bool(re.match(waits, told)) == (take == "wait_for_lock")
    with lock_of(take, path):
        assert lock_is_held(path)


def test_a_service_is_started_by_one_at_a_time_and_a_folder_that_takes_no_lock_is_its_own_failure(
    tmp_path: Path,
) -> None:
    with service_lock(tmp_path / "engine", "the engine", DriftError):
        assert lock_is_held(tmp_path / "engine" / "lock")
    assert not lock_is_held(tmp_path / "engine" / "lock")
    (tmp_path / "file").touch()
    with pytest.raises(DriftError, match="the engine cannot keep its files there"):
        service_lock(tmp_path / "file" / "engine", "the engine", DriftError).__enter__()


def test_a_lock_that_is_let_go_twice_closes_no_other_file(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    lock.own()
    lock.release()
    with (tmp_path / "other").open("w") as other:  # has the lock's number now
        lock.release()
        other.write("whole")
    assert (tmp_path / "other").read_text() == "whole"
