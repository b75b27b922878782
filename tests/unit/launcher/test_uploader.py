"""The uploader's threads: whatever fails in a step is one checkpoint's failure, on every node."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.causes import UPLOAD_UNVERIFIED, LaunchError
from launcher.data import S3, checkpoints, transfer, uploader
from launcher.data.s3 import S3Object
from launcher.data.transfer import TransferResult
from launcher.data.uploader import UploadedFolder, Uploader
from launcher.peers import LonePeers


class Meeting(LonePeers):
    """Two nodes in one process: a gather returns once both have given their value."""

    def __init__(self, shared: dict[str, Any], node: int) -> None:
        super().__init__()
        self.shared, self.node = shared, node
        self.shared.setdefault("peers", {})[node] = self

    def gather(self, name: str, value: Any, **_: Any) -> list[Any]:
        # One barrier a name: a node's threads gather at the same time, each something else.
        barrier: threading.Barrier = self.shared.setdefault(f"barrier {name}", threading.Barrier(2))
        self.shared.setdefault(name, [None, None])[self.node] = value
        barrier.wait(20)
        values = list(self.shared[name])
        barrier.wait(20)
        return values

    def announce(self, topic: str, data: Any, *, node: int | None = None) -> None:
        del node
        for peer in self.shared["peers"].values():
            peer.topics[topic](data)


class Store(S3):
    """What has been put where; `fail` may raise anything at each call."""

    def __init__(self, fail: Callable[[str], None] = lambda _: None) -> None:
        self.objects: dict[str, int] = {}
        self.fail = fail

    def put(self, text: str, target: str) -> None:
        self.fail(f"put {target}")
        self.objects[target] = len(text)

    def listing(self, prefix: str) -> dict[str, S3Object]:
        return {
            key[len(prefix) + 1 :]: S3Object(size, "", "1970-01-01T00:00:00Z")
            for key, size in self.objects.items()
            if key.startswith(prefix + "/")
        }


def sends(fail: Callable[[str], None]) -> Callable[..., TransferResult]:
    """A transfer that puts the files into the store."""

    def send(s3: Store, root: Path, files: dict[str, int], target: str, *_: Any) -> TransferResult:
        for name in files:
            fail(name)
            s3.objects[f"{target}/{name}"] = files[name]
        return TransferResult(len(files), 0, len(files))

    return send


def checkpoint(root: Path, name: str) -> None:
    (root / name).mkdir(parents=True)
    (root / name / "empty.bin").touch()
    (root / name / "trainer_state.json").write_text('{"global_step": 3}')


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploader, "REST_SECONDS", 0.01)


def pair(tmp_path: Path, *stores: Store) -> list[Uploader]:
    shared: dict[str, Any] = {}
    return [
        Uploader(
            store,
            Meeting(shared, node),
            UploadedFolder(tmp_path / str(node), "s3://b/j/0", "auto"),
            node=node,
        )
        for node, store in enumerate(stores)
    ]


def finish(both: list[Uploader]) -> list[str]:
    """What each node's `finish` says."""
    texts = ["", ""]
    codes = [UPLOAD_UNVERIFIED] * 2

    def end(node: int) -> None:
        try:
            both[node].finish()
        except LaunchError as error:
            texts[node], codes[node] = str(error), error.code

    threads = [threading.Thread(target=end, args=(node,)) for node in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert codes == [UPLOAD_UNVERIFIED] * 2
    return texts


@pytest.mark.parametrize("node", [0, 1])
@pytest.mark.parametrize(
    "error", [KeyError("size"), OSError(5, "Input/output error"), ValueError()]
)
@pytest.mark.parametrize("step", ["look", "send", "seal"])
@pytest.mark.usefixtures("quick")
def test_a_failed_step_fails_one_checkpoint_by_name_on_all_nodes_and_the_next_is_uploaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node: int, error: Exception, step: str
) -> None:
    if step == "seal" and node == 1:
        node = 0  # only node 0 seals
    store = Store()
    both = pair(tmp_path, store, store)

    def fail(text: str) -> None:
        if "bad" in text:
            raise error

    if step == "seal":
        store.fail = fail
    if step == "look":
        real = checkpoints.checkpoint_tree

        def look(path: Path) -> Any:
            if path.parent.name == str(node):
                fail(path.name)
            return real(path)

        monkeypatch.setattr(checkpoints, "checkpoint_tree", look)
    broken, sound = sends(fail if step == "send" else lambda _: None), sends(lambda _: None)
    monkeypatch.setattr(
        transfer,
        "send_prefix",
        lambda s3, root, *rest: (broken if root.name == str(node) else sound)(s3, root, *rest),
    )
    checkpoint(tmp_path / "0", "bad-1")
    if step == "send":
        (tmp_path / "1" / "bad-1").mkdir(parents=True)
        (tmp_path / "1" / "bad-1" / "shard_1").touch()
    checkpoint(tmp_path / "0", "checkpoint-3")
    for one in both:
        one.start(interval=0.01)
    texts = finish(both)
    assert texts[0] == texts[1]
    assert type(error).__name__ in texts[0]
    assert "s3://b/j/0/_COMPLETE/checkpoint-3.json" in store.objects
    assert "s3://b/j/0/checkpoint-3/empty.bin" in store.objects
    assert "s3://b/j/0/_COMPLETE/bad-1.json" not in store.objects


@pytest.mark.usefixtures("quick")
def test_a_directory_that_can_not_be_looked_at_is_said_once_and_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store()
    both = pair(tmp_path, store, store)
    monkeypatch.setattr(transfer, "send_prefix", sends(lambda _: None))
    looks = threading.Semaphore(0)
    real, broken = checkpoints.is_complete, threading.Event()
    broken.set()

    def look(root: Path, rule: str) -> Any:
        looks.release()
        if broken.is_set():
            raise PermissionError(13, "Permission denied", str(root))
        return real(root, rule)

    monkeypatch.setattr(checkpoints, "is_complete", look)
    checkpoint(tmp_path / "0", "checkpoint-3")
    for one in both:
        one.start(interval=0.01)
    for _ in range(5):
        assert looks.acquire(timeout=20)
    broken.clear()
    assert finish(both) == ["", ""]
    assert "s3://b/j/0/_COMPLETE/checkpoint-3.json" in store.objects
    assert capsys.readouterr().err.count("cannot look for checkpoints: PermissionError") == 1
