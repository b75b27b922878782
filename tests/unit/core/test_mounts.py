"""The mount table, and the room of the file system that a path is on."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.core import (
    Mount,
    disk_space,
    mount_of,
    mounts_under,
    nearest_existing,
    parse_fstab,
    parse_mountinfo,
    read_mount_table,
)

ENGINE = r"""
43 27 254:0 /e/data /e/data rw,relatime shared:2 - ext4 /dev/vda rw,discard
45 43 0:39 / /e/data/overlay2/x/merged rw shared:1 - overlay overlay rw,lowerdir=/e/data/l
46 43 0:39 / /e/data/overlay2/x/merged/proc rw shared:1 - proc proc rw
47 43 0:40 / /e/data2/mine rw shared:1 - tmpfs tmpfs rw
48 43 0:41 / /e/data/with\040blank rw shared:1 - tmpfs tmpfs rw
49 43 0:42 / /e/run/exec/netns/default rw - nsfs nsfs rw
""".lstrip()

MOUNTS = r"""
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:26 / /fsx rw shared:7 - lustre 10.0.0.1@tcp:/x rw
31 30 0:27 / /fsx/with\040blank rw - nfs4 host:/y rw
32 22 0:28 / /mnt rw - tmpfs tmpfs rw
33 22 8:17 / /mnt rw - vfat /dev/sdb1 rw
34 22 8:33 /bound /ro ro,nosuid - xfs /dev/sdc1 rw,noquota
""".lstrip()


def test_only_mounts_below_our_folders_are_found_the_deepest_first() -> None:
    mounts = mounts_under(parse_mountinfo(ENGINE), Path("/e/data"), Path("/e/run"))
    found = [str(mount.target) for mount in mounts]
    assert found[0] == "/e/data/overlay2/x/merged/proc"
    assert set(found) == {
        "/e/data/overlay2/x/merged/proc",
        "/e/data/overlay2/x/merged",
        "/e/data/with blank",
        "/e/run/exec/netns/default",
    }


def test_a_line_is_read_with_the_options_of_the_place_and_of_the_file_system() -> None:
    bound = parse_mountinfo(MOUNTS)[-1]
    options = ("ro", "nosuid", "rw", "noquota")
    assert bound == Mount(Path("/ro"), "/dev/sdc1", "xfs", options, "8:33", "/bound")
    assert bound.read_only
    assert parse_mountinfo("") == ()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me", "ext4"),
        ("/fsx", "lustre"),
        ("/fsx/images", "lustre"),
        ("/fsxx", "ext4"),
        ("/fsx/with blank/images", "nfs4"),
        ("/mnt/usb", "vfat"),  # the later mount covers the earlier one
    ],
)
def test_a_path_is_on_the_deepest_mount_and_on_the_last_one_at_a_place(
    path: str, kind: str
) -> None:
    assert mount_of(Path(path), parse_mountinfo(MOUNTS)).fstype == kind


def test_the_table_of_this_machine_has_the_file_system_of_every_path() -> None:
    space = disk_space(Path("/proc/self"))
    assert space.file_system == "proc"
    assert mount_of(Path("/"), read_mount_table()).target == Path("/")


def test_a_path_in_folders_to_be_made_is_judged_by_the_nearest_that_exists(tmp_path: Path) -> None:
    assert nearest_existing(tmp_path / "a" / "b" / "c.sqsh") == tmp_path
    assert disk_space(tmp_path / "a" / "b").total == disk_space(tmp_path).total > 0


def test_fstab_names_places_and_not_swap_comments_or_torn_lines() -> None:
    text = (
        "# /dev/sdz /not ext4 defaults 0 2\n"
        "LABEL=big /mnt/big ext4 defaults,nofail 0 2\n"
        "UUID=1 none swap sw 0 0\n"
        "\n/dev/sdb\n"
        "host:/x /data/with\\040blank nfs4 ro\n"
    )
    assert parse_fstab(text) == (Path("/mnt/big"), Path("/data/with blank"))
