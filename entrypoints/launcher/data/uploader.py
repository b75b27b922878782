"""Uploads complete checkpoints while training goes on, every node its own shards.

Node 0 watches for a checkpoint that is complete, and announces it. Then every node waits until
its files are at rest, lists them, uploads its share, and reports; when all shares are verified,
node 0 writes the pointer (`latest`), and last of all the note without which nothing is resumed.

The nodes go through these steps together, one gather after the other, so what goes wrong on one of
them must not keep it from taking part in the next: each step's work answers with a text instead of
raising, whatever it was, and the checkpoint counts as failed everywhere, by that text.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from launcher import events
from launcher.causes import UPLOAD_UNVERIFIED, LaunchError
from launcher.data import checkpoints, transfer
from launcher.data.checkpoint_steps import stated_step
from launcher.data.checkpoints import Checkpoint
from launcher.data.file_tree import FileTree, skipped_rows
from launcher.data.object_keys import shown
from launcher.data.resume import note_uri
from launcher.data.s3 import S3
from launcher.peers import PeerError, Peers
from launcher.stop_request import StoppedError

TOPIC = "checkpoint"
#: Between two looks at a checkpoint's files; equal looks mean that it is at rest.
REST_SECONDS = 1.0
TRIES = 3

Value = TypeVar("Value")


@dataclass(frozen=True)
class UploadedFolder:
    """The folder of checkpoints on this node, and where each complete one of it goes.

    `target` is an S3 prefix, the same on all nodes; `rule` says when a checkpoint is complete;
    `known` are those that are in S3 already (an earlier attempt's).
    """

    root: Path
    target: str
    rule: str
    known: Iterable[str] = ()


class Uploader:
    """One per node, for one attempt of a job."""

    def __init__(self, s3: S3, gate: Peers, folder: UploadedFolder, *, node: int) -> None:
        self._s3 = s3
        self._gate = gate
        self._node = node
        self._root = folder.root
        self._target = folder.target
        self._rule = folder.rule
        self._work: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._ranks_ended = threading.Event()
        self._threads: list[threading.Thread] = []
        # Node 0's memory; the others do as they are told.
        earlier = set(folder.known)
        present = checkpoints.is_complete(folder.root, folder.rule)
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
        left, error = self._left() if self._node == 0 else ([], "")
        left, error = self._gate.gather("last checkpoints", [left, error])[0]
        for name in left:
            for _ in range(TRIES):
                error_text = self._upload(name)
                if not error_text:
                    break
            error = error or error_text
        if error:
            raise LaunchError(error, code=UPLOAD_UNVERIFIED, kind="UploadError")

    def _left(self) -> tuple[list[str], str]:
        """Node 0: what is to be uploaded still; or why that can not be seen."""
        fresh, error = _attempt(self._fresh)
        return [item.name for item in fresh or ()], error

    def _watch(self, interval: float) -> None:
        last_error = ""
        while not self._ranks_ended.wait(interval):
            fresh, error = _attempt(self._fresh)
            if error and error != last_error:
                events.emit("warning", text=f"cannot look for checkpoints: {error}")
            last_error = error
            for item in fresh or ():
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
        item, error = _attempt(lambda: self._find(name)) if self._node == 0 else (None, "")
        # Announced again before it was done: node 0 decides for all.
        wanted = item is not None and self._done.get(name) != item.stamp
        wanted, error = self._gate.gather(f"upload {name}", [wanted, error])[0]
        if error:
            events.emit("checkpoint-failed", name=name, error=error)
            return str(error)
        if not wanted:
            return ""
        began = time.monotonic()
        tree, error = _attempt(lambda: self._at_rest(self._root / name))
        mine = tree.sizes if tree else {}
        skipped = skipped_rows(tree.skipped) if tree else []
        listed = self._gate.gather(f"list {name}", [mine, skipped, error])
        listings = [files for files, _, _ in listed]
        errors = [text for _, _, text in listed if text]
        part = checkpoints.node_share(self._node, listings)
        if not errors:
            sent, error = _attempt(lambda: self._send(name, part))
            errors = [x for x in self._gate.gather(f"sent {name}", sent or error) if x]
        if not errors and item is not None:
            left_out = sorted({row for _, rows, _ in listed for row in rows})
            _, error = _attempt(lambda: self._seal(item, listings, left_out))
            errors = [error]
        why = str(self._gate.gather(f"sealed {name}", errors[0] if errors else "")[0])
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
            skipped=skipped,
            seconds=round(time.monotonic() - began, 3),
        )
        return ""

    def _find(self, name: str) -> Checkpoint | None:
        present = checkpoints.is_complete(self._root, self._rule)
        return next((item for item in present if item.name == name), None)

    def _at_rest(self, path: Path) -> FileTree:
        """The checkpoint's files, once two looks at them are equal."""
        seen = checkpoints.checkpoint_tree(path)
        while not self._ranks_ended.wait(REST_SECONDS):
            again = checkpoints.checkpoint_tree(path)
            if again == seen:
                break
            seen = again
        tree = checkpoints.checkpoint_tree(path)
        tree.require_readable(path)
        return tree

    def _send(self, name: str, part: dict[str, int]) -> str:
        """ "" when this node's share is verified in S3, else why not."""
        if not part:
            return ""
        try:
            moved = transfer.send_prefix(
                self._s3, self._root, part, self._target, lambda: self._there(name)
            )
        except StoppedError:
            raise
        except LaunchError as error:
            return str(error) if (self._root / name).exists() else _GONE
        if not moved.vanished:
            return ""
        # Half deleted by save_total_limit, most likely; what is left is looked at again.
        text = f"{shown(moved.vanished[0])} vanished while it was uploaded"
        return text if (self._root / name).exists() else _GONE

    def _there(self, name: str) -> dict[str, int]:
        found = transfer.sizes(self._s3.listing(f"{self._target}/{name}"))
        result = {f"{name}/{file}": size for file, size in found.items()}
        single = self._s3.find(f"{self._target}/{name}")
        return {**result, name: single.size} if single else result

    def _seal(self, item: Checkpoint, listings: list[dict[str, int]], skipped: list[str]) -> None:
        """Node 0: the pointer, then the note that makes the checkpoint one to resume from."""
        files = {file: size for listing in reversed(listings) for file, size in listing.items()}
        if not files:
            raise LaunchError(f"{item.name} has no file that can be uploaded: {skipped[:1]}")
        step = stated_step(self._root / item.name, item.name if item.pointer else "")
        about = {"step": step.step, "step_source": step.source} if step else {}
        if item.pointer:
            self._s3.put(item.name, f"{self._target}/{item.pointer}")
        note = transfer.complete_note(
            files,
            checkpoint=item.name,
            pointer=item.pointer,
            saved=item.saved,
            skipped=skipped,
            **about,
        )
        self._s3.put(note, note_uri(self._target, item.name))


def _attempt(work: Callable[[], Value]) -> tuple[Value | None, str]:
    """What a step's work gives, and ""; or None and why it did not succeed.

    Of what ends the whole job (a stop, a lost node) nothing is caught. Anything else, a defect of
    ours included, is one checkpoint's failure: the thread goes on with the next.
    """
    try:
        return work(), ""
    except (PeerError, StoppedError):
        raise
    except LaunchError as error:
        return None, str(error)
    except Exception as error:  # noqa: BLE001 - named in the failure; see above
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        return None, f"{type(error).__name__}: {error} (in the uploader, {place})"


#: Deleted while it was uploaded, as save_total_limit does: nothing is wrong.
_GONE = "gone"
