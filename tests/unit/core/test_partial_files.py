from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.core import (
    Owner,
    SlipwayError,
    commit,
    partial_file,
    remove_leftovers,
    this_process,
    write_atomic,
)

WORKER = """
import sys, time
from pathlib import Path
from slipway.core.files import partial_file
with partial_file(Path(sys.argv[1])) as path:
    path.write_bytes(b"half")
    print(path, flush=True)
    time.sleep(600)
"""


def test_a_whole_file_gets_its_name_and_no_partial_stays(tmp_path: Path) -> None:
    destination = tmp_path / "new" / "a.sqsh"
    with partial_file(destination) as path:
        path.write_bytes(b"whole")
        assert not destination.exists()
        commit(path, destination)
    assert [entry.name for entry in destination.parent.iterdir()] == ["a.sqsh"]
    assert destination.read_bytes() == b"whole"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_no_partial(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    destination = tmp_path / "a.sqsh"
    destination.write_bytes(b"old")

    def fail_halfway() -> None:
        with partial_file(destination) as path:
            path.write_bytes(b"half")
            raise failure

    with pytest.raises(failure):
        fail_halfway()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.sqsh"]
    assert destination.read_bytes() == b"old"


def test_leftovers_of_a_killed_process_are_removed_and_those_of_a_live_one_stay(
    tmp_path: Path,
) -> None:
    destination = tmp_path / "a.sqsh"
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(destination)], stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        left = Path(worker.stdout.readline().strip())
        assert left.read_bytes() == b"half"
        assert remove_leftovers(destination) == []
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    assert left.exists()
    assert remove_leftovers(destination) == [left]
    assert list(tmp_path.iterdir()) == []


def test_what_another_host_or_another_file_left_is_not_ours_to_remove(tmp_path: Path) -> None:
    gone = replace(this_process(), pid=1 << 30)
    elsewhere = replace(gone, host="0123456789ab")
    kept = [
        tmp_path / f".a.sqsh.{elsewhere}.partial",
        tmp_path / f".b.sqsh.{gone}.partial",
        tmp_path / ".a.sqsh.notes.partial",
        tmp_path / "a.sqsh",
    ]
    for path in [*kept, tmp_path / f".a.sqsh.{gone}.partial"]:
        path.touch()
    assert remove_leftovers(tmp_path / "a.sqsh") == [tmp_path / f".a.sqsh.{gone}.partial"]
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_a_later_process_with_the_same_pid_is_another_owner() -> None:
    me = this_process()
    assert me.pid == os.getpid()
    assert not me.is_gone
    assert replace(me, start=me.start - 1).is_gone
    assert Owner.parse(str(me)) == me
    assert Owner.parse("someone") is None


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(SlipwayError, match=r"cannot write there"),
        partial_file(tmp_path / "file" / "a.sqsh"),
    ):
        pytest.fail("the block ran")


def test_ctrl_c_while_a_file_is_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a.json", "{}")
    assert list(tmp_path.iterdir()) == []
