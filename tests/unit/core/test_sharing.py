"""Leases and shared parts: one maker a thing, also when makers die, sleep or come at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slipway.core import LeaseFolder, Project, SharedParts, SlipwayError, UsageError, wait_until

PATIENCE = 1.0

HOLD = """
import sys, time
from pathlib import Path
from slipway.core import LeaseFolder
lease = LeaseFolder(Path(sys.argv[1]), 1.0).take("image")
print("held", flush=True)
time.sleep(600)
"""


def taken(leases: LeaseFolder, name: str = "image") -> bool:
    """Whether it could be had now; a lease that was had is given back."""
    lease = leases.take(name)
    if lease is not None:
        lease.release()
    return lease is not None


def test_one_holder_at_a_time_and_nothing_left_behind(tmp_path: Path) -> None:
    first, second = LeaseFolder(tmp_path, PATIENCE), LeaseFolder(tmp_path, PATIENCE)
    with first.take("image") or pytest.fail("it was free"):
        assert second.take("image") is None
        assert f"process {os.getpid()}" in second.holder("image")
        assert taken(second, "image.other")
    assert taken(second)
    assert [*tmp_path.iterdir()] == []


def test_a_live_holder_keeps_its_lease_however_long_it_works(tmp_path: Path) -> None:
    first, second = LeaseFolder(tmp_path, PATIENCE), LeaseFolder(tmp_path, PATIENCE)
    with first.take("image") or pytest.fail("it was free") as lease:
        assert not wait_until(lambda: taken(second), 2.5 * PATIENCE)
        assert not lease.is_lost


def test_of_many_at_once_one_has_it(tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def take(_number: int) -> bool:
        leases = LeaseFolder(tmp_path, PATIENCE)
        together.wait()
        return leases.take("image") is not None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(8))) == 1


def test_a_killed_holders_lease_is_taken_over_and_a_sleeping_one_learns_that_it_lost(
    tmp_path: Path,
) -> None:
    """SIGSTOP, and later SIGCONT: its lease is another's then, and stays so."""
    second = LeaseFolder(tmp_path, PATIENCE)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert not taken(second)
        holder.send_signal(signal.SIGKILL)
    assert wait_until(lambda: taken(second), 60)
    assert [*tmp_path.iterdir()] == []


def test_a_holder_whose_lease_was_taken_over_is_told(tmp_path: Path) -> None:
    told = threading.Event()
    slow = LeaseFolder(tmp_path, 3600).take("image")  # touches it every ten minutes
    assert slow is not None
    slow.call_on_loss(told.set)
    other = LeaseFolder(tmp_path, 0.01)
    assert not taken(other)  # the first look says nothing yet
    assert wait_until(lambda: (lease := other.take("image")) is not None and held(lease), 60)
    assert slow.is_lost
    slow.release()
    assert other.holder("image") != ""  # not given up by who has lost it

    quick = LeaseFolder(tmp_path / "quick", PATIENCE).take("image")
    assert quick is not None
    quick.call_on_loss(told.set)
    quick.path.unlink()
    assert told.wait(60)


HELD: list[object] = []


def held(lease: object) -> bool:
    """Keep it."""
    HELD.append(lease)
    return True


def test_a_part_is_made_once_and_copied_by_the_others(tmp_path: Path) -> None:
    made: list[str] = []

    def work(name: str) -> bytes:
        parts = SharedParts(tmp_path / "shared", PATIENCE)
        claim = parts.claim("layers", "key")
        if claim is not None:
            with claim:
                made.append(name)
                own = tmp_path / name
                own.mkdir()
                (own / "data").write_bytes(b"data")
                claim.publish(own)
        part = parts.part("layers", "key")
        assert part is not None
        return (part / "data").read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(work, "abcd")] == [b"data"] * 4
    assert len(made) == 1
    left = [path.name for path in (tmp_path / "shared").rglob("*") if path.is_file()]
    assert left == ["data"]


def test_a_maker_that_failed_leaves_the_part_to_the_next_one(tmp_path: Path) -> None:
    waited: list[str] = []
    first, second = SharedParts(tmp_path, PATIENCE), SharedParts(tmp_path, PATIENCE)
    claim = first.claim("wheels", "key")
    assert claim is not None
    threading.Timer(0.5, claim.release).start()
    with second.claim("wheels", "key", waited.append) or pytest.fail("nobody has made it"):
        assert first.part("wheels", "key") is None
    assert [text.rpartition(" ")[2] for text in waited] == [str(os.getpid())]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SlipwayError, match="leases cannot be kept there"):
        SharedParts(tmp_path / "file" / "shared")
    (tmp_path / "part").write_text("x")
    parts = SharedParts(tmp_path / "shared", PATIENCE)
    with parts.claim("a", "key") or pytest.fail("nobody has made it") as claim:
        (tmp_path / "shared" / "a").touch()
        with pytest.raises(SlipwayError, match="cannot copy"):
            claim.publish(tmp_path / "part")


@pytest.mark.parametrize("text", ["soon", "0", "-1", "1e9", "nan"])
def test_a_time_that_means_nothing_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_SHARED", str(tmp_path / "shared"))
    monkeypatch.setenv("SLIPWAY_LEASE_S", text)
    with pytest.raises(UsageError, match="SLIPWAY_LEASE_S"):
        Project.at(tmp_path)
    monkeypatch.setenv("SLIPWAY_LEASE_S", "")
    shared = Project.at(tmp_path).shared
    assert shared is not None
    assert shared.folder == tmp_path / "shared"
