"""What is to be moved, what counts as complete, and who uploads which file."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import tarfile
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher import options
from launcher.causes import NO_SPACE, LaunchError, LaunchUsageError
from launcher.data import (
    TransferPlan,
    checkpoints,
    plan_transfers,
    resume,
    s3_uri,
    training_code,
    transfer,
)
from launcher.data.checkpoints import Checkpoint, is_complete, node_share
from launcher.data.resume import RemoteCheckpoint

MODEL = Path("/opt/ml/model")


def plan(*flags: str, args: tuple[str, ...] = ()) -> TransferPlan:
    return plan_transfers(
        options.resolve_options(options.parse_flags(flags)[0], {}, {}), args, MODEL
    )


@pytest.mark.parametrize(
    ("text", "prefix"),
    [("s3://b/p", "s3://b/p"), ("s3://b/p/", "s3://b/p"), ("s3://b/p/*", "s3://b/p"),
     ("s3://b", "s3://b"), ("s3://b/", "s3://b")],
)  # fmt: skip
def test_a_prefix_may_be_written_in_any_of_s5cmds_ways(text: str, prefix: str) -> None:
    assert s3_uri(text) == prefix


@pytest.mark.parametrize("text", ["", "b/p", "s3://", "s3:///p", "s3://b/*/x", "s3://b/?", "/x"])
def test_what_is_no_prefix_is_a_usage_error(text: str) -> None:
    with pytest.raises(LaunchUsageError):
        s3_uri(text)


def test_transfers_are_read_from_the_options() -> None:
    made = plan(
        *("--prefetch", "s3://b/a=b/=/data", "--upload", "/out=s3://b/out/"),
        *("--checkpoint-dir", "/ck", "--checkpoint-uri", "s3://b/ck"),
    )
    assert made.prefetch == (("s3://b/a=b", Path("/data")),)
    assert made.upload == ((Path("/out"), "s3://b/out"),)
    assert made.uris == ("s3://b/out", "s3://b/ck")


@pytest.mark.parametrize(
    "flags",
    [
        ["--prefetch", "s3://b"],
        ["--upload", "/x="],
        ["--checkpoint-uri", "s3://b"],
        ["--resume", "auto"],
        ["--checkpoint-complete", "sometimes"],
        ["--checkpoint-complete", "glob:"],
    ],
)
def test_half_a_request_is_a_usage_error(flags: list[str]) -> None:
    with pytest.raises(LaunchUsageError):
        plan(*flags)


@pytest.mark.parametrize(
    ("flags", "args"),
    [
        (["--checkpoint-dir", "/opt/ml/model/ck"], ()),
        (["--upload", "/opt/ml/model=s3://b"], ()),
        ([], ("--output_dir", "/opt/ml/model")),
        ([], ("--output-dir=/opt/ml/model/x",)),
        ([], ("--x", "1", "--save_path", "/opt/ml/model")),
    ],
)
def test_output_below_opt_ml_model_is_refused_unless_allowed(
    flags: list[str], args: tuple[str, ...]
) -> None:
    with pytest.raises(LaunchUsageError, match="--allow-opt-ml-model"):
        plan(*flags, args=args)
    plan(*flags, "--allow-opt-ml-model", args=args)


def test_a_small_model_may_go_where_sagemaker_takes_it_from() -> None:
    plan(args=("--model_dir", "/opt/ml/model", "--output_dir", "/tmp/x"))


def tree(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def names(root: Path, rule: str) -> list[str]:
    return [item.name for item in is_complete(root, rule)]


def test_a_checkpoint_is_complete_when_its_trainer_has_written_its_last_file(
    tmp_path: Path,
) -> None:
    tree(
        tmp_path,
        *("checkpoint-1000/trainer_state.json", "checkpoint-200/trainer_state.json"),
        *("checkpoint-3000/model.bin", "step-5/.metadata", "step-6/__0_0.distcp"),
        *("global_step7/mp_rank_00.pt", "global_step8/mp_rank_00.pt", "mine-1/DONE", "x.pt"),
    )
    (tmp_path / "latest").write_text("global_step7\n")
    assert names(tmp_path, "trainer_state") == ["checkpoint-200", "checkpoint-1000"]
    assert names(tmp_path, "dcp") == ["step-5"]
    assert is_complete(tmp_path, "latest")[0].pointer == "latest"
    assert names(tmp_path, "latest") == ["global_step7"]
    assert names(tmp_path, "marker:DONE") == ["mine-1"]
    assert names(tmp_path, "glob:*.pt") == ["x.pt"]
    assert sorted(names(tmp_path, "auto")) == sorted(
        ["checkpoint-200", "checkpoint-1000", "step-5", "global_step7"]
    )


@pytest.mark.parametrize("text", ["", "gone", "../up", "a/b", "\udcff"])
def test_a_latest_file_that_names_nothing_here_is_no_checkpoint(tmp_path: Path, text: str) -> None:
    (tmp_path / "latest").write_bytes(text.encode("utf-8", "surrogateescape"))
    (tmp_path / "a").mkdir()
    assert is_complete(tmp_path, "latest") == []


def test_writing_a_checkpoint_anew_under_its_name_is_noticed(tmp_path: Path) -> None:
    tree(tmp_path, "last/.metadata")
    (before,) = is_complete(tmp_path, "dcp")
    os.utime(tmp_path / "last" / ".metadata", (2e9, 2e9))
    (after,) = is_complete(tmp_path, "dcp")
    assert before.stamp != after.stamp


LISTINGS = st.lists(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9)), min_size=1, max_size=4
)


@given(LISTINGS)
def test_every_file_is_uploaded_by_exactly_one_node_that_has_it(
    listings: list[dict[str, int]],
) -> None:
    shares = [node_share(node, listings) for node in range(len(listings))]
    uploaded = [name for part in shares for name in part]
    assert sorted(uploaded) == sorted({name for listing in listings for name in listing})
    for part, listing in zip(shares, listings, strict=True):
        assert part.items() <= listing.items()


def test_the_newest_complete_checkpoint_is_chosen_wherever_it_is(tmp_path: Path) -> None:
    tree(tmp_path, "checkpoint-900/trainer_state.json")
    far = [
        RemoteCheckpoint("s3://b/j/0", "checkpoint-500"),
        RemoteCheckpoint("s3://b/j/1", "checkpoint-1000"),
    ]
    assert resume.choose_checkpoint(far, tmp_path, "auto") == far[1]
    here = resume.choose_checkpoint(far[:1], tmp_path, "auto")
    assert isinstance(here, Checkpoint)
    assert here.name == "checkpoint-900"
    assert resume.choose_checkpoint([], tmp_path / "none", "auto") is None


def test_a_checkpoint_asked_for_by_name_must_be_complete(tmp_path: Path) -> None:
    tree(tmp_path, "checkpoint-1/model.bin")
    far = [RemoteCheckpoint("s3://b/j/0", "checkpoint-5")]
    assert resume.choose_checkpoint(far, tmp_path, "auto", "checkpoint-5") == far[0]
    with pytest.raises(LaunchError, match="checkpoint-1"):
        resume.choose_checkpoint(far, tmp_path, "auto", "checkpoint-1")


def test_missing_and_short_files_are_both_differences() -> None:
    assert transfer.differences({"a": 1, "b": 2, "c": 3}, {"b": 1, "c": 3, "d": 4}) == [
        "a is missing",
        "b has 1 bytes, not 2",
    ]


def test_a_disk_that_is_too_small_is_known_before_the_transfer(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"s3://b/big needs .* GB") as caught:
        transfer.require_space("s3://b/big", tmp_path, 10**18)
    assert caught.value.code == NO_SPACE


def test_our_own_notes_are_not_part_of_what_is_transferred(tmp_path: Path) -> None:
    tree(tmp_path, "a/x", "a/.launch-fetched.json", ".hidden")
    assert transfer.local_files(tmp_path) == {"a/x": 3, ".hidden": 7}


def archive(*members: tuple[str, Any]) -> tarfile.TarFile:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, kind in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = "/etc/passwd"
            info.mode = 0o444
            tar.addfile(info)
    data.seek(0)
    return tarfile.open(fileobj=data)


def test_a_source_archive_is_unpacked_with_its_directories(tmp_path: Path) -> None:
    with archive(("src", tarfile.DIRTYPE), ("src/train.py", tarfile.REGTYPE)) as tar:
        training_code.extract_archive(tar, tmp_path)
    assert os.access(tmp_path / "src" / "train.py", os.R_OK | os.W_OK)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../out.py", tarfile.REGTYPE),
        ("/etc/out.py", tarfile.REGTYPE),
        ("a/../../out.py", tarfile.REGTYPE),
        ("link", tarfile.SYMTYPE),
        ("hard", tarfile.LNKTYPE),
        ("pipe", tarfile.FIFOTYPE),
    ],
)
def test_a_source_archive_can_not_leave_its_directory(
    tmp_path: Path, name: str, kind: bytes
) -> None:
    target = tmp_path / "code"
    target.mkdir()
    with archive((name, kind)) as tar, pytest.raises(LaunchError):
        training_code.extract_archive(tar, target)
    assert [path for path in tmp_path.rglob("*") if path != target] == []


def test_checkpoint_state_changes_with_any_file(tmp_path: Path) -> None:
    tree(tmp_path, "c/a", "c/d/b")
    before = checkpoints.checkpoint_state(tmp_path / "c")
    assert set(before) == {"c/a", "c/d/b"}
    (tmp_path / "c/d/b").write_text("longer than before")
    assert checkpoints.checkpoint_state(tmp_path / "c") != before
    tree(tmp_path, "x.pt")
    assert set(checkpoints.checkpoint_state(tmp_path / "x.pt")) == {"x.pt"}


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF])
def test_processes_of_a_node_take_turns_where_the_file_system_has_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Lustre without `flock` says ENOSYS (tox-dev/filelock#67), EFS EBADF for what is only read
    (chanzuckerberg/miniwdl#483)."""
    shared, own = tmp_path / "fsx", tmp_path / "disk"
    own.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(own))
    flock = fcntl.flock

    def without_locks(file: int, how: int) -> None:
        if Path(f"/proc/self/fd/{file}").readlink().is_relative_to(shared):
            raise OSError(code, os.strerror(code))
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", without_locks)
    order: list[str] = []

    def second() -> None:
        with transfer.directory_lock(shared / "model.lock"):
            order.append("second")

    with transfer.directory_lock(shared / "model.lock"):
        waiting = threading.Thread(target=second)
        waiting.start()
        with transfer.directory_lock(shared / "other.lock"):
            waiting.join(0.2)
            order.append("first")
    waiting.join()
    assert order == ["first", "second"]
    assert [path.stat().st_mode & 0o777 for path in own.iterdir()] == [0o700]


def test_another_error_of_a_lock_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(_file: int, _how: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output error"):
        transfer.directory_lock(tmp_path / "model.lock").__enter__()
