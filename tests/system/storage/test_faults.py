"""Whatever goes wrong during a move: the daemon runs in the end, and nothing is lost."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slipway.core import Event, SlipwayError, UsageError
from slipway.storage import StorageError, delete_kept
from slipway.storage.errors import MoveFailedError
from slipway.storage.move import journal as journals
from tests.support.storage.box import Disk, box, run
from tests.support.storage.content import EXPECTED_INSIDE, fill
from tests.support.storage.killed import HALF
from tests.support.storage.steps import look, look_at_status, move, restore, resume, room_of

MIB = 1 << 20
CHECKOUT = Path(__file__).parents[3]


class Shared:
    """One filled box for all cases; one that leaves it otherwise costs the next a new box."""

    def __init__(self) -> None:
        self.context = box()
        self.box = self.context.__enter__()
        self.box.start()
        with self.box.engine() as engine:
            fill(engine)
        self.before = look(self.box)
        assert self.before["inside"] == EXPECTED_INSIDE
        self.config = self.box.machine.daemon_json.read_bytes()

    def is_as_before(self) -> bool:
        with self.box.engine() as engine:
            root = Path(engine.data_root)
        return (
            root == self.box.data_root
            and look(self.box) == self.before
            and self.box.machine.daemon_json.read_bytes() == self.config
            and not look_at_status(self.box).unfinished
        )

    def close(self) -> None:
        self.context.__exit__(None, None, None)


@pytest.fixture(scope="module")
def shelf() -> Iterator[list[Shared]]:
    made: list[Shared] = []
    yield made
    for shared in made:
        shared.close()


@pytest.fixture
def shared(shelf: list[Shared]) -> Iterator[Shared]:
    if not shelf:
        shelf.append(Shared())
    yield shelf[0]
    try:
        usable = shelf[0].is_as_before()
    except (SlipwayError, AssertionError, OSError):
        usable = False
    if not usable:
        shelf.pop().close()


@pytest.fixture
def disk(shared: Shared) -> Iterator[Disk]:
    with shared.box.disk("ext4", 64 * MIB) as made:
        yield made


def leaves_no_trace(disk: Disk) -> bool:
    return [path.name for path in disk.place.iterdir()] == ["lost+found"]


def when_copying(action: Callable[[], object]) -> Callable[[Event], None]:
    """Do something as soon as the copy begins."""

    def on_event(event: Event) -> None:
        if event.kind == "start" and event.step == "copying":
            action()

    return on_event


def fill_up(disk: Disk) -> None:
    with (disk.place / "filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, disk.free() - 2 * MIB)  # root's reserve too


def shut_down(disk: Disk) -> None:
    """FS_IOC_SHUTDOWN: every later access fails with EIO, as on a disk that was pulled out."""
    handle = os.open(disk.place, os.O_RDONLY)
    try:
        fcntl.ioctl(handle, 0x8004587D, struct.pack("I", 2))
    finally:
        os.close(handle)


def remount_read_only(disk: Disk) -> None:
    run("mount", "-o", "remount,ro", str(disk.place))


def vanish(disk: Disk) -> None:
    disk.unmount()


def interrupt(disk: Disk) -> None:
    raise KeyboardInterrupt


DURING_THE_COPY: dict[str, tuple[Callable[[Disk], object], type[BaseException], str | None]] = {
    "the target runs full": (fill_up, MoveFailedError, "ran out of space"),
    "the target's disk dies": (shut_down, MoveFailedError, "everything is as before"),
    "the target is unmounted": (vanish, MoveFailedError, "everything is as before"),
    "the target becomes read-only": (remount_read_only, MoveFailedError, "everything is as before"),
    "somebody presses Ctrl-C": (interrupt, KeyboardInterrupt, None),
}


@pytest.mark.parametrize("fault", DURING_THE_COPY)
def test_a_fault_during_the_copy_is_rolled_back(shared: Shared, disk: Disk, fault: str) -> None:
    action, error, says = DURING_THE_COPY[fault]
    with pytest.raises(error, match=says):
        move(shared.box, disk.place, mode="copy", on_event=when_copying(lambda: action(disk)))
    assert shared.is_as_before()


def test_a_rolled_back_move_leaves_nothing_on_the_target(shared: Shared, disk: Disk) -> None:
    with pytest.raises(KeyboardInterrupt):
        move(shared.box, disk.place, mode="copy", on_event=when_copying(lambda: interrupt(disk)))
    assert leaves_no_trace(disk)


def test_a_daemon_that_refuses_to_start_on_the_copy_is_started_on_the_old_data(
    shared: Shared, disk: Disk
) -> None:
    def spoil(event: Event) -> None:
        if event.kind == "start" and event.step == "starting the daemons":
            new = disk.place / "docker" / "data-root"
            (new / "network" / "files" / "local-kv.db").write_bytes(b"not a database" * 999)

    with pytest.raises(MoveFailedError, match="dockerd stopped at once"):
        move(shared.box, disk.place, mode="copy", on_event=spoil)
    assert shared.is_as_before()
    assert leaves_no_trace(disk)


def test_an_image_that_the_daemon_does_not_find_any_more_sends_everything_back(
    shared: Shared, disk: Disk
) -> None:
    def lose(event: Event) -> None:
        if event.kind == "start" and event.step == "starting the daemons":
            images = disk.place / "docker/data-root/image/overlay2/imagedb/content/sha256"
            for path in images.iterdir():
                path.unlink()

    with pytest.raises(MoveFailedError, match=r"not there any more: .*image slip/"):
        move(shared.box, disk.place, mode="copy", on_event=lose)
    assert shared.is_as_before()


def test_a_configuration_that_is_not_json_is_refused_with_its_line_and_nothing_is_touched(
    shared: Shared, disk: Disk
) -> None:
    config = shared.box.machine.daemon_json
    broken = shared.config.decode() + '{\n"data-root": "/opt/sagemaker/docker/data-root"\n}\n'
    pid = shared.box.pid()
    config.write_text(broken)
    try:
        with pytest.raises(UsageError, match=r"not JSON: Extra data") as refused:
            move(shared.box, disk.place)
        assert refused.value.where == f"{config}:4"
        assert config.read_text() == broken
    finally:
        config.write_bytes(shared.config)
    assert shared.box.pid() == pid
    assert leaves_no_trace(disk)


def test_a_target_without_space_is_refused_before_anything_is_stopped(
    shared: Shared, disk: Disk
) -> None:
    pid = shared.box.pid()
    fill_up(disk)
    with pytest.raises(StorageError, match="not enough space"):
        move(shared.box, disk.place, mode="copy")
    assert shared.box.pid() == pid


def test_a_read_only_target_is_refused_before_anything_is_stopped(
    shared: Shared, disk: Disk
) -> None:
    pid = shared.box.pid()
    remount_read_only(disk)
    with pytest.raises(StorageError, match="mounted read-only"):
        move(shared.box, disk.place)
    assert shared.box.pid() == pid


@pytest.mark.parametrize("fstype", ["tmpfs", "overlay"])
def test_a_file_system_that_will_not_do_is_refused_with_the_reason(
    shared: Shared, fstype: str
) -> None:
    place = shared.box.folder / f"as-{fstype}"
    options: tuple[str, ...] = ()
    if fstype == "overlay":
        for name in ("l", "u", "w"):
            (shared.box.folder / name).mkdir()
        folder = shared.box.folder
        options = ("-o", f"lowerdir={folder}/l,upperdir={folder}/u,workdir={folder}/w")
    place.mkdir()
    run("mount", "-t", fstype, fstype, *options, str(place))
    pid = shared.box.pid()
    try:
        with pytest.raises(StorageError, match=r"memory|overlays do not stack"):
            move(shared.box, place)
    finally:
        run("umount", str(place))
    assert shared.box.pid() == pid


def test_a_second_move_at_the_same_time_is_refused(shared: Shared, disk: Disk) -> None:
    refused: list[BaseException] = []

    def another() -> None:
        try:
            move(shared.box, disk.place, mode="copy")
        except SlipwayError as error:
            refused.append(error)

    move(shared.box, disk.place, mode="copy", on_event=when_copying(another))
    assert len(refused) == 1
    assert "at work" in str(refused[0])
    restore(shared.box)
    assert shared.is_as_before()


@pytest.mark.parametrize("copy_fails", [False, True])
def test_somebody_who_starts_the_daemon_during_the_copy_gets_it_back(
    shared: Shared, disk: Disk, copy_fails: bool
) -> None:
    """Named also where the copy fails first: a daemon that runs takes files from under it."""

    def start() -> None:
        shared.box.start()
        if copy_fails:
            fill_up(disk)

    with pytest.raises(MoveFailedError, match="somebody started the daemon"):
        move(shared.box, disk.place, mode="copy", on_event=when_copying(start))
    assert shared.is_as_before()


PHASES = (
    "trying the disk",
    "stopping the daemons",
    "copying",
    HALF,
    "comparing the copy",
    "giving the copy its name",
    "changing the configuration",
    "starting the daemons",
    "checking what is there, and running a container",
    "deleting the old data",
)


def killed_at(shared: Shared, disk: Disk, moment: str) -> None:
    killed = subprocess.run(
        [
            *(sys.executable, "-m", "tests.support.storage.killed"),
            *(str(shared.box.folder), shared.box.url, str(disk.place), moment),
        ],
        cwd=CHECKOUT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr


@pytest.mark.parametrize("way", ["resume", "restore"])
@pytest.mark.parametrize("moment", PHASES)
def test_after_kill_9_status_says_so_and_both_ways_end_well(
    shared: Shared, disk: Disk, moment: str, way: str
) -> None:
    killed_at(shared, disk, moment)
    told = look_at_status(shared.box)
    assert told.unfinished
    assert "was cut off while" in (told.move or "")
    with pytest.raises(StorageError, match="was cut off"):
        move(shared.box, disk.place)
    if way == "resume":
        done = resume(shared.box)
        assert done.phase == "done"
        with shared.box.engine() as engine:
            assert engine.data_root == str(disk.place / "docker" / "data-root")
        assert look(shared.box) == shared.before
        assert not look_at_status(shared.box).unfinished
    restore(shared.box)
    assert shared.is_as_before()


def test_a_daemon_that_came_up_after_a_power_cut_has_its_new_data_copied_too(
    shared: Shared, disk: Disk
) -> None:
    killed_at(shared, disk, "giving the copy its name")
    written = journals.read_journal(shared.box.machine, shared.box.url)
    assert written is not None
    path = journals.journal_folder(shared.box.machine, shared.box.url) / "journal.json"
    path.write_text(path.read_text().replace(written.boot, "another boot"))
    shared.box.start()
    with shared.box.engine() as engine:
        engine.client.api.create_volume("made-after-the-power-cut")
    resume(shared.box)
    with shared.box.engine() as engine:
        assert engine.data_root == str(disk.place / "docker" / "data-root")
        volumes = engine.client.api.volumes()["Volumes"]
        assert "made-after-the-power-cut" in [volume["Name"] for volume in volumes]
        engine.client.api.remove_volume("made-after-the-power-cut")
    restore(shared.box)


def test_what_was_made_on_the_new_place_after_a_cut_off_start_is_kept_there_by_restore(
    shared: Shared, disk: Disk
) -> None:
    killed_at(shared, disk, "checking what is there, and running a container")
    with shared.box.engine() as engine:
        engine.client.api.create_volume("made-on-the-new-place")
    done = restore(shared.box)
    left = disk.place / "docker" / "data-root"
    assert [kept.path for kept in done.kept] == [left]
    assert (left / "volumes" / "made-on-the-new-place").is_dir()
    assert shared.is_as_before()
    # It is nowhere else, so that no task removes it.
    with (
        room_of(shared.box).locked("test"),
        pytest.raises(StorageError, match="only there"),
    ):
        delete_kept(room_of(shared.box), lambda _: None)
    assert (left / "volumes" / "made-on-the-new-place").is_dir()
    shutil.rmtree(left)
