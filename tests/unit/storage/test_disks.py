"""What is mounted where, what Docker can live on, and which disk is best."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.core import DiskSpace, Mount, UsageError
from slipway.storage import Machine
from slipway.storage.candidates import expected_mount, rank_candidates, why_unusable
from slipway.storage.profiles import PROFILES, DataPlaces, detect_profile, profile
from slipway.storage.target_disk import check_disk_name

GB = 10**9


def mount(
    target: str, device: str, fstype: str = "ext4", *, options: str = "rw", fsroot: str = "/"
) -> Mount:
    return Mount(Path(target), f"/dev/{device}", fstype, (options,), device, fsroot)


def test_a_path_in_a_place_that_should_be_mounted_is_known() -> None:
    places = [Path("/"), Path("/opt"), Path("/opt/dlami/nvme")]
    assert expected_mount(Path("/opt/dlami/nvme/x"), places) == Path("/opt/dlami/nvme")
    assert expected_mount(Path("/opt/other"), places) == Path("/opt")
    assert expected_mount(Path("/home"), places) is None


@pytest.mark.parametrize(
    ("fstype", "says"),
    [
        ("lustre", "is Lustre"),
        ("nfs4", "on the network"),
        ("nfs", "on the network"),
        ("cifs", "on the network"),
        ("vfat", "no Unix owners"),
        ("exfat", "no Unix owners"),
        ("9p", "virtual machine's host"),
        ("virtiofs", "virtual machine's host"),
        ("overlay", "do not stack"),
        ("tmpfs", "is memory"),
        ("fuse.s3fs", "in user space"),
        ("squashfs", "only be read"),
    ],
)
def test_a_file_system_that_docker_cannot_live_on_is_told_with_its_reason(
    fstype: str, says: str
) -> None:
    assert says in (why_unusable(mount("/fsx", "a", fstype)) or "")


def test_usable_file_systems_are_used_unless_they_are_read_only() -> None:
    assert why_unusable(mount("/mnt", "a", "xfs")) is None
    assert "read-only" in (why_unusable(mount("/mnt", "a", "xfs", options="ro")) or "")


def space(free: int) -> DiskSpace:
    return DiskSpace(free * GB, "ext4", 10_000 * GB, 10**6)


ROOT = mount("/", "root")
NVME, EBS = mount("/opt/dlami/nvme", "nvme"), mount("/opt/sagemaker", "ebs", "xfs")
DATA = mount("/data", "data")


def best(mounted: list[Mount], free: dict[str, int], here: Mount = ROOT, needed: int = 0) -> str:
    preferred = [Path(disk) for disk in PROFILES["hyperpod"].disks]
    spaces = {device: space(gigabytes) for device, gigabytes in free.items()}
    ranked = rank_candidates([ROOT, *mounted], spaces, preferred, current=here, needed=needed * GB)
    return " ".join(str(candidate.path) for candidate in ranked)


FREE = {"root": 20, "nvme": 800, "ebs": 500, "data": 2000}


@pytest.mark.parametrize(
    ("mounted", "free", "order"),
    [
        ([EBS, NVME], FREE, "/opt/dlami/nvme /opt/sagemaker"),
        ([DATA, EBS], FREE, "/opt/sagemaker /data"),  # meant for it before larger
        ([DATA, mount("/more", "more")], {**FREE, "more": 3000}, "/more /data"),
        ([mount("/small", "small")], {"root": 20, "small": 10}, ""),  # less than where it is
        ([mount("/boot/efi", "efi")], {"root": 20, "efi": 100}, ""),
        ([mount("/x", "root", fsroot="/bound/folder")], FREE, ""),  # the root disk again
        ([mount("/x", "data", fsroot="/folder")], FREE, ""),  # a folder, not a disk
        ([mount("/fsx", "fsx", "lustre")], {"root": 20, "fsx": 90_000}, ""),
        ([mount("/ro", "ro", options="ro")], {"root": 20, "ro": 900}, ""),
        ([mount("/z", "z"), mount("/long/z", "z")], {"root": 20, "z": 900}, "/z"),
    ],
)
def test_disks_are_ranked_by_the_one_rule(
    mounted: list[Mount], free: dict[str, int], order: str
) -> None:
    assert best(mounted, free) == order


def test_a_disk_needs_room_for_the_data_and_a_tenth_more() -> None:
    assert best([DATA], {"root": 1, "data": 110}, needed=100) == "/data"
    assert best([DATA], {"root": 1, "data": 109}, needed=100) == ""


def test_data_on_the_preferred_disk_stays_there_however_large_another_one_is() -> None:
    assert best([NVME, EBS, DATA], FREE, here=NVME) == ""
    assert best([NVME, EBS, DATA], FREE, here=EBS) == "/opt/dlami/nvme"


def test_the_paths_are_the_ones_that_hyperpods_precheck_compares() -> None:
    for disk in ("/opt/dlami/nvme", "/opt/sagemaker"):
        places = DataPlaces(Path(disk))
        assert str(places.docker) == f"{disk}/docker/data-root"
        assert str(places.docker_tmp) == f"{disk}/docker/tmp"
        assert str(places.containerd) == f"{disk}/containerd/data-root"
        assert places.enroot(None) == {
            "ENROOT_RUNTIME_PATH": f"{disk}/tmp/enroot/user-$(id -u)",
            "ENROOT_CACHE_PATH": f"{disk}/enroot",
            "ENROOT_DATA_PATH": f"{disk}/tmp/enroot/data/user-$(id -u)",
            "ENROOT_TEMP_PATH": f"{disk}/tmp",
        }
        assert places.enroot(Path("/fsx/enroot"))["ENROOT_CACHE_PATH"] == "/fsx/enroot"


@pytest.mark.parametrize(
    ("marker", "name"),
    [
        ("/opt/sagemaker_cluster/x", "hyperpod"),
        ("/opt/ml/metadata/resource-metadata.json", "notebook"),
        ("/etc/hostname", "ec2"),
    ],
)
def test_the_kind_of_machine_is_seen(tmp_path: Path, marker: str, name: str) -> None:
    machine = Machine(tmp_path)
    machine.at(marker).parent.mkdir(parents=True)
    machine.at(marker).touch()
    assert detect_profile(machine).name == name
    assert profile("auto", machine).name == name


def test_an_unknown_profile_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="no profile 'laptop'") as refused:
        profile("laptop", Machine())
    assert "notebook, hyperpod, ec2" in (refused.value.cure or "")


@pytest.mark.parametrize("name", ["/mnt/stäte of mine ☃", "/mnt/it's 100%", "/mnt/a;b$c"])
def test_a_disk_that_only_a_link_names_may_have_any_name_that_overlayfs_takes(name: str) -> None:
    check_disk_name(Path(name), in_files=False)
    with pytest.raises(UsageError, match="unit files"):
        check_disk_name(Path(name), in_files=True)


@pytest.mark.parametrize("name", ["/mnt/stäte", "/opt/dlami/nvme", "/mnt/数据/a+b@c_d-e.f"])
def test_letters_of_any_language_are_no_signs(name: str) -> None:
    check_disk_name(Path(name), in_files=True)


@pytest.mark.parametrize("name", ["/mnt/a,b", "/mnt/a:b", "/mnt/a\\b", "/mnt/a\nb", "/mnt/\udce4"])
@pytest.mark.parametrize("in_files", [True, False])
def test_what_overlayfs_takes_for_a_sign_is_refused(name: str, *, in_files: bool) -> None:
    with pytest.raises(UsageError, match="overlayfs"):
        check_disk_name(Path(name), in_files=in_files)
