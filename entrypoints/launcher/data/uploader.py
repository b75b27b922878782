"""Uploads complete checkpoints while training goes on, every node its own shards.

Node 0 watches for a checkpoint that is complete, and announces it. Then every node waits until
its files are at rest, lists them, uploads its share, and reports; when all shares are verified,
node 0 writes the pointer (`latest`), and last of all the note without which nothing is resumed.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from launcher import events
from launcher.causes import UPLOAD_UNVERIFIED, LaunchError
from launcher.data import checkpoints, transfer
from launcher.data.checkpoints import Checkpoint
from launcher.data.resume import note_uri
from launcher.data.s3 import S3
from launcher.peers import PeerError, Peers
from launcher.stop_request import StoppedError

TOPIC = "checkpoint"
#: Between two looks at a checkpoint's files; equal looks mean that it is at rest.
REST_SECONDS = 1.0
TRIES = 3


class Uploader:
    """One per node, for one attempt of a job. `target` is its S3 prefix, the same on all nodes.

    `known` are the checkpoints that are in S3 already (an earlier attempt's).
    """

    def __init__(
        self,
        s3: S3,
        gate: Peers,
        *,
        node: int,
        root: Path,
        target: str,
        rule: str,
        known: Iterable[str] = (),
    ) -> None:
        self._s3 = s3
        self._gate = gate
        self._node = node
        self._root = root
        self._target = target
        self._rule = rule
        self._work: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._ranks_ended = threading.Event()
        self._threads: list[threading.Thread] = []
        # Node 0's memory; the others do as they are told.
        earlier = set(known)
        present = checkpoints.is_complete(root, rule)
        self._done = {item.name: item.stamp for item in present if item.name in earlier}
        self._tries: dict[tuple[str, int], int] = {}
        gate.topics[TOPIC] = self._work.put

    def start(self, interval: float) -> None:
        """Begin to upload and, on node 0, to look for checkpoints every `interval` seconds."""
        self._spawn(self._upload_announced, "uploader")
        if self._node == 0:
            self._spawn(lambda: self._watch(interval), "checkpoints")

    def _spawn(self, target: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def finish(self) -> None:
        """After the ranks have ended: upload what is left; LaunchError 75 if not all is there."""
        self._ranks_ended.set()
        for thread in self._threads[1:]:
            thread.join()
        # Node 0 announces nothing after its answer here, so all announcements have arrived.
        self._gate.gather("ranks ended", True)
        self._work.put(None)
        self._threads[0].join()
        left = [item.name for item in self._fresh()] if self._node == 0 else []
        for name in self._gate.gather("last checkpoints", left)[0]:
            said = self._upload(name)
            if said:
                raise LaunchError(said, code=UPLOAD_UNVERIFIED, kind="UploadError")

    def _watch(self, interval: float) -> None:
        while not self._ranks_ended.wait(interval):
            for item in self._fresh():
                key = (item.name, item.stamp)
                self._tries[key] = self._tries.get(key, 0) + 1
                if self._tries[key] <= TRIES:
                    self._gate.announce(TOPIC, item.name)

    def _fresh(self) -> list[Checkpoint]:
        """Complete checkpoints that are not in S3 as they are now."""
        present = checkpoints.is_complete(self._root, self._rule)
        return [item for item in present if self._done.get(item.name) != item.stamp]

    def _upload_announced(self) -> None:
        while True:
            name = self._work.get()
            if name is None:
                return
            try:
                self._upload(name)
            except (PeerError, StoppedError):
                return  # the job is over; whoever ended it reports why

    def _upload(self, name: str) -> str:
        """One checkpoint, all nodes together; "" or why it is not in S3."""
        item = self._find(name) if self._node == 0 else None
        # Announced again before it was done: node 0 decides for all.
        wanted = item is not None and self._done.get(name) != item.stamp
        if not self._gate.gather(f"upload {name}", wanted)[0]:
            return ""
        began = time.monotonic()
        mine = self._at_rest(self._root / name)
        listings = self._gate.gather(f"list {name}", mine)
        part = checkpoints.node_share(self._node, listings)
        said = [text for text in self._gate.gather(f"sent {name}", self._send(name, part)) if text]
        if not said and item is not None:
            said = self._seal(item, listings)
        why = str(self._gate.gather(f"sealed {name}", said[0] if said else "")[0])
        if why == _GONE:
            events.emit("checkpoint-gone", name=name)
            return ""
        if why:
            events.emit("checkpoint-failed", name=name, error=why)
            return why
        if item is not None:
            self._done[name] = item.stamp
        events.emit(
            "checkpoint",
            name=name,
            files=len(part),
            bytes=sum(part.values()),
            seconds=round(time.monotonic() - began, 3),
        )
        return ""

    def _find(self, name: str) -> Checkpoint | None:
        present = checkpoints.is_complete(self._root, self._rule)
        return next((item for item in present if item.name == name), None)

    def _at_rest(self, path: Path) -> dict[str, int]:
        seen = checkpoints.checkpoint_state(path)
        while not self._ranks_ended.wait(REST_SECONDS):
            again = checkpoints.checkpoint_state(path)
            if again == seen:
                break
            seen = again
        return {file: size for file, (size, _) in checkpoints.checkpoint_state(path).items()}

    def _send(self, name: str, part: dict[str, int]) -> str:
        """ "" when this node's share is verified in S3, else why not."""
        if not part:
            return ""
        try:
            transfer.send_prefix(
                self._s3, self._root, part, self._target, lambda: self._there(name)
            )
        except StoppedError:
            raise
        except LaunchError as error:
            return str(error) if (self._root / name).exists() else _GONE
        return ""

    def _there(self, name: str) -> dict[str, int]:
        found = transfer.sizes(self._s3.listing(f"{self._target}/{name}"))
        result = {f"{name}/{file}": size for file, size in found.items()}
        single = self._s3.find(f"{self._target}/{name}")
        return {**result, name: single.size} if single else result

    def _seal(self, item: Checkpoint, listings: list[dict[str, int]]) -> list[str]:
        """Node 0: the pointer, then the note that makes the checkpoint one to resume from."""
        files = {file: size for listing in reversed(listings) for file, size in listing.items()}
        try:
            if item.pointer:
                self._s3.put(item.name, f"{self._target}/{item.pointer}")
            note = transfer.complete_note(files, checkpoint=item.name, pointer=item.pointer)
            self._s3.put(note, note_uri(self._target, item.name))
        except StoppedError:
            raise
        except LaunchError as error:
            return [str(error)]
        return []


#: Deleted while it was uploaded, as save_total_limit does: nothing is wrong.
_GONE = "gone"
