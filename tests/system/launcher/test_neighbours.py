"""Other users of a machine: what they may put in the way, and that they are not in each other's."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.causes import LaunchError
from launcher.platforms import LocalDisk, choose_disk, make_place
from launcher.platforms.places import check_file_owner

ME, OTHER = 54321, 54322


def as_user(uid: int, act: Callable[[], str]) -> str:
    """What `act` says in a process of this user; its LaunchError where it has one."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        text = "died"
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            text = act()
        except LaunchError as error:
            text = f"refused: {error}"
        except Exception as error:  # noqa: BLE001 - it is told to the test
            text = f"{type(error).__name__}: {error}"
        finally:
            os.write(write, text.encode())
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as pipe:
        return pipe.read()


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder like /tmp, and beside it one of ME that a link might lead to."""
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.geteuid() and "pytest" in str(path):
            path.chmod(0o755)
    folder, victim = tmp_path / "shared", tmp_path / "victim"
    folder.mkdir()
    folder.chmod(0o1777)
    victim.mkdir(mode=0o700)
    os.chown(victim, ME, ME)
    return folder


def put(kind: str, at: Path, owner: int, victim: Path) -> None:
    """What stands at a path before the launcher comes."""
    if kind == "missing":
        return
    if kind == "file":
        at.touch()
    elif kind.startswith("link"):
        at.symlink_to({"link to folder": victim, "link to nothing": victim / "new"}[kind])
    else:
        at.mkdir()
        at.chmod(int(kind, 8))
    os.chown(at, owner, owner, follow_symlinks=False)


KINDS = ("missing", "file", "link to folder", "link to nothing", "700", "755", "777", "1777")


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_private_place_is_this_users_alone_or_refused_by_name(shared: Path, depth: int) -> None:
    """Every kind of thing, of every owner, at every name of the path."""
    victim = shared.parent / "victim"
    names = (f"launch-{ME}", "job-0", "node0")
    for number, (kind, owner) in enumerate(itertools.product(KINDS, (ME, OTHER, 0))):
        folder = LocalDisk(shared / str(number), "")
        folder.path.mkdir()
        folder.path.chmod(0o1777)
        at = folder.path
        for name in names[:depth]:
            at = at / name
            put("700", at, ME, victim)
        bad = at / names[depth]
        put(kind, bad, owner, victim)

        def act(folder: LocalDisk = folder) -> str:
            assert folder.own.name == names[0]
            return str(folder.make(*names[1:]))

        said = as_user(ME, act)
        fine = kind == "missing" or (kind == "700" and owner == ME)
        if fine:
            assert said == str(folder.path.joinpath(*names)), (kind, owner)
            for count in range(1, 4):
                found = folder.path.joinpath(*names[:count]).lstat()
                assert (found.st_uid, found.st_mode & 0o7777) == (ME, 0o700)
        else:
            assert said.startswith(f"refused: {bad} "), (kind, owner, said)
            assert "\n" not in said
        assert list(victim.iterdir()) == [], (kind, owner)


def test_a_users_own_path_is_refused_where_another_user_has_put_something(shared: Path) -> None:
    """--log-dir, --checkpoint-dir, the target of --prefetch, in a place like /tmp."""
    victim = shared.parent / "victim"
    for number, (kind, owner) in enumerate(itertools.product(KINDS, (ME, OTHER))):
        at = shared / f"logs{number}"
        put(kind, at, owner, victim)

        def act(at: Path = at) -> str:
            return str(make_place(at / "below"))

        said = as_user(ME, act)
        mine = kind == "missing" or (kind.isdecimal() and owner == ME)
        assert said == str(at / "below") if mine else said.startswith(f"refused: {at} ")
        assert list(victim.iterdir()) == [], (kind, owner)


def test_two_ordinary_users_and_root_have_a_place_each(shared: Path) -> None:
    def act() -> str:
        disk = choose_disk({}, candidates=[str(shared)])
        return str(disk.make("job-0", "node0"))

    made = {uid: as_user(uid, act) for uid in (ME, OTHER, 0)}
    assert made == {uid: f"{shared}/launch-{uid}/job-0/node0" for uid in (ME, OTHER, 0)}


def test_a_lock_of_another_user_in_a_shared_place_is_refused(shared: Path) -> None:
    for name, owner in (("mine", ME), ("roots", 0), ("theirs", OTHER)):
        (shared / name).touch()
        os.chown(shared / name, owner, owner)

    def act(name: str) -> str:
        path = shared / name
        with path.open("rb") as file:
            check_file_owner(file.fileno(), path)
        return "taken"

    said = {name: as_user(ME, lambda name=name: act(name)) for name in ("mine", "roots", "theirs")}  # type: ignore[misc]
    assert said["mine"] == said["roots"] == "taken"
    assert (
        said["theirs"] == f"refused: {shared}/theirs belongs to uid {OTHER}, and this is uid {ME}"
    )


def test_the_disk_is_one_that_this_user_may_write_to(shared: Path) -> None:
    closed = shared.parent / "closed"
    closed.mkdir(mode=0o755)
    folders = [str(closed), str(shared)]
    said = as_user(ME, lambda: choose_disk({}, candidates=folders).why)
    assert f"{closed} is not writable" in said
    said = as_user(ME, lambda: str(choose_disk({}, candidates=[str(closed)]).path))
    assert said.startswith("refused: there is no folder for scratch and caches")
