from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.core import DiskSpace, Piece, SlipwayError, UsageError
from slipway.sqsh import read_sidecar
from slipway.sqsh.destination import (
    SqshIdentity,
    already_there,
    check_export_disk,
    check_space,
    export_disk,
)
from slipway.sqsh.sidecar import Sidecar, sidecar_path, verify_sqsh, write_sidecar
from slipway.squashfs import SqshOptions

GIB = 1 << 30
OPTIONS = SqshOptions()
WANTED = SqshIdentity("sha256:1", "b1", OPTIONS)


def made(path: Path, content: bytes = b"squashfs") -> Sidecar:
    path.write_bytes(content)
    sidecar = Sidecar(
        reference="train/x:1",
        image_id="sha256:1",
        image_digests=("train/x@sha256:2",),
        build_id="b1",
        pieces=(
            Piece(4, hashlib.sha256(content[:4]).hexdigest()),
            Piece(len(content) - 4, hashlib.sha256(content[4:]).hexdigest()),
        ),
        entries=3,
        options=OPTIONS.as_json(),
        slipway="0",
    )
    write_sidecar(path, sidecar)
    return sidecar


def test_a_sidecar_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    sidecar = made(tmp_path / "a.sqsh")
    assert read_sidecar(tmp_path / "a.sqsh") == sidecar
    assert verify_sqsh(tmp_path / "a.sqsh") == sidecar
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.sqsh", "a.sqsh.json"]


def test_one_changed_byte_is_found(tmp_path: Path) -> None:
    made(tmp_path / "a.sqsh")
    (tmp_path / "a.sqsh").write_bytes(b"squashFs")
    with pytest.raises(SlipwayError, match="bytes 4 to 8 do not have their sha256"):
        verify_sqsh(tmp_path / "a.sqsh")


def test_a_file_cut_short_is_found(tmp_path: Path) -> None:
    made(tmp_path / "a.sqsh")
    (tmp_path / "a.sqsh").write_bytes(b"squash")
    with pytest.raises(SlipwayError, match="6 bytes, the sidecar says 8"):
        verify_sqsh(tmp_path / "a.sqsh")


def test_a_missing_file_or_sidecar_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.sqsh"
    made(path)
    path.unlink()
    with pytest.raises(SlipwayError, match="No such file"):
        verify_sqsh(path)
    sidecar_path(path).unlink()
    with pytest.raises(SlipwayError, match="no sidecar"):
        verify_sqsh(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format": "slipway-sqsh/9"}', '{"format": "slipway-sqsh/3"}']
)
def test_a_damaged_sidecar_is_named_and_not_guessed_at(tmp_path: Path, text: str) -> None:
    sidecar_path(tmp_path / "a.sqsh").write_text(text)
    with pytest.raises(SlipwayError, match=r"a\.sqsh\.json"):
        read_sidecar(tmp_path / "a.sqsh")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"size": 8', '"size": 9'),
        ('"digest": "', '"digest": "0'),
        ('"4 ', '"5 '),
        ('"4 ', '"4'),
        ('"4 ', '"four '),
    ],
)
def test_a_sidecar_that_contradicts_itself_is_not_believed(
    tmp_path: Path, old: str, new: str
) -> None:
    made(tmp_path / "a.sqsh")
    path = sidecar_path(tmp_path / "a.sqsh")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(SlipwayError, match="not a sidecar"):
        read_sidecar(tmp_path / "a.sqsh")


def test_nothing_there_is_written(tmp_path: Path) -> None:
    assert already_there(tmp_path / "no" / "a.sqsh", WANTED, force=False) is None


def test_the_same_image_and_build_is_up_to_date(tmp_path: Path) -> None:
    sidecar = made(tmp_path / "a.sqsh")
    assert already_there(tmp_path / "a.sqsh", WANTED, force=False) == sidecar
    assert already_there(tmp_path / "a.sqsh", WANTED, force=True) is None


@pytest.mark.parametrize("digests", [("r/x@sha256:m",), ("other/y@sha256:n", "q@sha256:m")])
def test_an_image_is_known_by_its_manifest_where_the_engine_calls_it_otherwise(
    tmp_path: Path, digests: tuple[str, ...]
) -> None:
    """As root and as an ordinary user, of an engine with containerd's store."""
    sidecar = made(tmp_path / "a.sqsh")
    sidecar = replace(sidecar, image_digests=("r/x@sha256:m",))
    write_sidecar(tmp_path / "a.sqsh", sidecar)
    wanted = replace(WANTED, image_id="sha256:m", digests=digests)
    assert already_there(tmp_path / "a.sqsh", wanted, force=False) == sidecar
    with pytest.raises(UsageError, match="made another time"):
        already_there(tmp_path / "a.sqsh", replace(wanted, digests=("r/x@sha256:z",)), force=False)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (replace(WANTED, image_id="sha256:9"), "made another time: train/x:1, sha256:1,"),
        (replace(WANTED, build_id="b9"), "another image: train/x:1"),
        (replace(WANTED, build_id="b9", image_id="sha256:9"), "another image: train/x:1"),
        (replace(WANTED, options=SqshOptions(level=9)), "other options"),
    ],
)
def test_something_else_is_overwritten_only_by_force(
    tmp_path: Path, wanted: SqshIdentity, message: str
) -> None:
    made(tmp_path / "a.sqsh")
    with pytest.raises(UsageError, match=message):
        already_there(tmp_path / "a.sqsh", wanted, force=False)
    assert already_there(tmp_path / "a.sqsh", wanted, force=True) is None


def test_a_build_that_was_lost_and_made_anew_replaces_itself_in_slipways_own_folder(
    tmp_path: Path,
) -> None:
    made(tmp_path / "a.sqsh")
    anew = replace(WANTED, image_id="sha256:9")
    assert already_there(tmp_path / "a.sqsh", anew, force=False, own=True) is None
    with pytest.raises(UsageError, match="another image"):
        already_there(tmp_path / "a.sqsh", replace(anew, build_id="b9"), force=False, own=True)


def test_a_file_without_a_sidecar_is_overwritten_only_by_force(tmp_path: Path) -> None:
    (tmp_path / "a.sqsh").write_bytes(b"someone's")
    with pytest.raises(UsageError, match="no sidecar"):
        already_there(tmp_path / "a.sqsh", WANTED, force=False)
    assert already_there(tmp_path / "a.sqsh", WANTED, force=True) is None


def test_a_run_killed_between_its_two_renames_is_done_again(tmp_path: Path) -> None:
    sidecar = made(tmp_path / "a.sqsh")
    longer = (*sidecar.pieces, Piece(1, "0" * 64))
    write_sidecar(tmp_path / "a.sqsh", replace(sidecar, pieces=longer))
    assert already_there(tmp_path / "a.sqsh", WANTED, force=False) is None


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("build_id", "b1", None),
        ("build_id", "b2", "another image: train/x:1"),
        ("options", {"compressor": "lzo"}, "other options"),
    ],
)
def test_what_an_older_version_exported_is_made_again_only_if_it_is_the_same(
    tmp_path: Path, key: str, value: object, told: str | None
) -> None:
    made(tmp_path / "a.sqsh")
    path = sidecar_path(tmp_path / "a.sqsh")
    data = json.loads(path.read_text())
    del data["pieces"], data["digest"]
    path.write_text(json.dumps({**data, "format": "slipway-sqsh/1", "sha256": "0", key: value}))
    if told is None:
        assert already_there(tmp_path / "a.sqsh", WANTED, force=False) is None
    else:
        with pytest.raises(UsageError, match=told):
            already_there(tmp_path / "a.sqsh", WANTED, force=False)


def test_a_folder_is_no_destination_even_by_force(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folder"):
        already_there(tmp_path, WANTED, force=True)


def test_too_little_space_is_said_with_both_numbers() -> None:
    with pytest.raises(SlipwayError, match=r"4\.5 GB \(image 10 GB x 0\.45\), and 1 GB are free"):
        check_space(DiskSpace(10**9, "ext4"), 10**10, OPTIONS, Path("/x/a.sqsh"))
    assert check_space(DiskSpace(5 * 10**9, "ext4"), 10**10, OPTIONS, Path("/x/a.sqsh")) is None


def test_an_export_counts_the_layers_that_it_compiles_beside_the_file() -> None:
    gigabyte = 10**9
    layers = [4 * gigabyte, 10 * gigabyte, 6 * gigabyte]
    need = export_disk(layers, 20 * gigabyte, OPTIONS)
    assert (need.compiled, need.file) == (9 * gigabyte, 9 * gigabyte)  # zstd: 0.45 of each
    assert need.unpacked == 16 * gigabyte  # one layer waits while the next is read
    assert need.fullest == 25 * gigabyte
    with pytest.raises(SlipwayError, match=r"25 GB at its fullest.* 15 GB are free"):
        check_export_disk(DiskSpace(15 * gigabyte, "ext4"), need, Path("/x/a.sqsh"))
    check_export_disk(DiskSpace(25 * gigabyte, "ext4"), need, Path("/x/a.sqsh"))


def test_compiled_layers_and_shared_copies_cost_nothing() -> None:
    assert export_disk([], 20 * 10**9, OPTIONS).fullest == 9 * 10**9
    assert export_disk([10**9], 20 * 10**9, OPTIONS, "xfs").fullest == 1_450_000_000


def test_a_file_larger_than_the_file_system_can_hold_is_refused() -> None:
    with pytest.raises(SlipwayError, match="vfat holds at most"):
        check_space(DiskSpace(100 * GIB, "vfat"), 20 * GIB, OPTIONS, Path("/x/a.sqsh"))
    assert check_space(DiskSpace(100 * GIB, "vfat"), 2 * GIB, OPTIONS, Path("/x/a.sqsh")) is None


def test_a_destination_in_memory_is_warned_about() -> None:
    warning = check_space(DiskSpace(100 * GIB, "tmpfs"), GIB, OPTIONS, Path("/dev/shm/a.sqsh"))
    assert warning is not None
    assert "gone after a reboot" in warning


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"compressor": "brotli"}, "no compressor 'brotli'"),
        ({"level": 23}, "level 23 does not exist for zstd"),
        ({"level": 0}, "level 0"),
        ({"compressor": "lz4", "level": 1}, "level 1 does not exist for lz4"),
        ({"block_size": 1000}, "1000 bytes"),
        ({"block_size": 1 << 21}, "2097152 bytes"),
    ],
)
def test_options_that_squashfs_does_not_have_are_refused(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        SqshOptions(**fields)  # type: ignore[arg-type]
