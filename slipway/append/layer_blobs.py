"""A layer as bytes: a tar that is the same on every machine, gzip over it, kept by digest.

Sorted by path, owned by root, dated 1980 (the oldest time that a zip can hold, so that programs
that pack site-packages again can), no user names, no extended attributes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from slipway import registry
from slipway.append.layer_files import ContentReader, LayerFile, LayerPlan
from slipway.core import (
    PartClaim,
    SharedParts,
    SlipwayError,
    commit,
    partial_file,
    remove_leftovers,
    sha256_file,
    wait_for_lock,
    write_atomic,
)
from slipway.registry import PackedTar, write_gzip

if TYPE_CHECKING:
    from slipway.registry import BlobTransfer

SHARED_KIND = "layers"
FORMAT = "3"
"""Counted by the keys of layers: what changes their bytes changes it."""

MTIME = 315532800
_BLOCK = tarfile.BLOCKSIZE
_USTAR = b"".join(
    [
        b"%%b%%07o\0%07o\0%07o\0" % (0, 0),  # name, mode, owner
        b"%%011o\0%011o\0%%b%%b" % MTIME,  # size, time, checksum, kind
        bytes(100) + b"ustar\x0000" + bytes(_BLOCK - 265),
    ]
)
"""POSIX.1-2017, pax, "ustar Interchange Format": fields that are the same in all headers."""
_AT_ONCE = 2


@dataclass(frozen=True)
class LayerBlob:
    """A layer in the store. `diff_id` is of the tar, `digest` of its gzip form."""

    title: str
    digest: str
    diff_id: str
    size: int
    path: Path

    @property
    def transfer(self) -> BlobTransfer:
        """To a registry."""
        return registry.BlobTransfer(self.digest, self.size, registry.FileBlob(self.path))


class LayerStore:
    """Layers that were made, below `folder`: blobs by digest, and which key gave which.

    `shared`: where other machines put layers that they have made, and look for ours.
    """

    def __init__(self, folder: Path, shared: SharedParts | None = None) -> None:
        self.folder = folder
        self.shared = shared

    def layer(self, plan: LayerPlan) -> LayerBlob:
        """The layer of a plan: from the store where it is whole there, else made."""
        return self.layers([plan])[0]

    def layers(
        self, plans: Sequence[LayerPlan], on_layer: Callable[[LayerBlob], None] = lambda _: None
    ) -> list[LayerBlob]:
        """The layers of plans, in their order: those that are not in the store are made.

        Two at once, the largest first: a layer's tar is read on one core, and small layers are of
        one piece, which one core compresses. With `shared` one after the other, in this thread:
        only here does Ctrl-C end the wait for another machine. `on_layer` hears each as soon as it
        is there, from any thread.
        """
        notes = [self.folder / "keys" / f"{FORMAT}-{plan.key}.json" for plan in plans]
        named = list(zip(plans, notes, strict=True))
        blobs: dict[Path, LayerBlob] = {}

        def have(note: Path, blob: LayerBlob) -> None:
            blobs[note] = blob
            on_layer(blob)

        def make(note: Path, plan: LayerPlan, stopped: threading.Event | None = None) -> None:
            have(note, self._make(plan, note, stopped))

        for plan, note in named:
            if note not in blobs and (blob := self._find(plan.title, note)):
                have(note, blob)
        missing = {note: plan for plan, note in named if note not in blobs}
        if missing:
            order = sorted(missing.items(), key=lambda item: -item[1].size)
            # One process at a time: it works on all cores.
            with wait_for_lock(self.folder / "lock"):
                if self.shared is None:
                    _run_together(make, order)
                else:
                    for note, plan in order:
                        make(note, plan)
        return [replace(blobs[note], title=plan.title) for plan, note in named]

    def blobs(self) -> Iterator[LayerBlob]:
        """All layers in the store that are whole. Their titles are not kept there."""
        for note in sorted((self.folder / "keys").glob("*.json")):
            if blob := self._find("", note):
                yield blob

    def kept(self, title: str, key: str) -> LayerBlob | None:
        """A layer that was not made from a plan, by the key it was kept under."""
        return self._find(title, self._kept_note(key))

    def keep(self, title: str, key: str, write: Callable[[Path], PackedTar]) -> LayerBlob:
        """Keep what `write` puts into a file: a layer that is made elsewhere, gzip over it."""
        with wait_for_lock(self.folder / "lock"):
            return self.kept(title, key) or self._keep(title, self._kept_note(key), write)

    def _kept_note(self, key: str) -> Path:
        return self.folder / "keys" / f"kept-{key}.json"

    def _find(self, title: str, note: Path) -> LayerBlob | None:
        try:
            noted = json.loads(note.read_text())
            blob = LayerBlob(
                title, noted["digest"], noted["diff_id"], noted["size"], self._path(noted)
            )
            return blob if blob.path.stat().st_size == blob.size else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _path(self, noted: dict[str, str]) -> Path:
        return self.folder / "sha256" / noted["digest"].removeprefix("sha256:")

    def _make(self, plan: LayerPlan, note: Path, stopped: threading.Event | None) -> LayerBlob:
        """A layer that is not in the store, by who holds its lock."""
        if blob := self._find(plan.title, note):  # another process made it meanwhile
            return blob
        if self.shared is None:
            return self._write(plan, note, stopped)
        with contextlib.ExitStack() as stack:
            claim = self.shared.claim(SHARED_KIND, note.stem)
            if claim is not None:
                stack.enter_context(claim)
            elif blob := self._copy_shared(plan, note):
                return blob
            blob = self._write(plan, note, stopped)
            if claim is not None:
                self._publish(claim, note, blob)
            return blob

    def _write(self, plan: LayerPlan, note: Path, stopped: threading.Event | None) -> LayerBlob:
        pieces = _until(stopped, layer_tar(plan)) if stopped else layer_tar(plan)
        return self._keep(plan.title, note, lambda path: write_gzip(pieces, path))

    def _keep(self, title: str, note: Path, write: Callable[[Path], PackedTar]) -> LayerBlob:
        target = self.folder / "sha256" / note.stem
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
        with partial_file(target) as partial:
            noted = asdict(write(partial))
            path = self._path(noted)
            commit(partial, path)
        write_atomic(note, json.dumps(noted), flush=False)
        return LayerBlob(title, noted["digest"], noted["diff_id"], noted["size"], path)

    def _copy_shared(self, plan: LayerPlan, note: Path) -> LayerBlob | None:
        """A layer that another machine has made; None where its bytes are not what it says."""
        assert self.shared is not None
        part = self.shared.part(SHARED_KIND, note.stem)
        if part is None:
            return None
        try:
            noted = json.loads((part / "note.json").read_text())
            path = self._path(noted)
            with partial_file(path) as partial:
                shutil.copyfile(part / "blob", partial)
                if f"sha256:{sha256_file(partial)}" != noted["digest"]:
                    return None
                commit(partial, path)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        write_atomic(note, json.dumps(noted), flush=False)
        return self._find(plan.title, note)

    def _publish(self, claim: PartClaim, note: Path, blob: LayerBlob) -> None:
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=self.folder) as name:
            part = Path(name)
            shutil.copyfile(note, part / "note.json")
            os.link(blob.path, part / "blob")
            claim.publish(part)


def _run_together(
    make: Callable[[Path, LayerPlan, threading.Event], None],
    order: Sequence[tuple[Path, LayerPlan]],
) -> None:
    """All of them, some at once. After a failure or Ctrl-C none goes on: one may be large."""
    stopped = threading.Event()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            for future in [pool.submit(make, *item, stopped) for item in order]:
                future.result()
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)


def _until(stopped: threading.Event, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if stopped.is_set():
            raise SlipwayError("interrupted")
        yield piece


def layer_tar(plan: LayerPlan) -> Iterator[bytes]:
    """The tar in pieces. Raises SlipwayError where a path is twice in it or leaves the root."""
    entries: dict[str, LayerFile | int] = {}
    for folder in plan.folders:
        entries[folder] = tarfile.DIRTYPE[0]
    for file in (*plan.files, *map(_whiteout, plan.whiteouts)):
        if file.path in entries:
            raise SlipwayError(f"{file.path} is twice in the layer {plan.title}")
        entries[file.path] = file
    with ContentReader() as contents:
        for path in sorted(entries, key=lambda path: path.encode("utf-8", "surrogateescape")):
            _check_path(path)
            entry = entries[path]
            if isinstance(entry, LayerFile):
                yield _header(path, entry.mode, entry.size)
                yield from _content(contents, entry)
                yield bytes(-entry.size % _BLOCK)
            else:
                yield _header(f"{path}/", 0o755, kind=tarfile.DIRTYPE)
    yield bytes(2 * _BLOCK)


def _whiteout(path: str) -> LayerFile:
    """opencontainers/image-spec:layer.md, "Whiteouts"."""
    gone = PurePosixPath(path)
    return LayerFile(str(gone.with_name(f".wh.{gone.name}")), b"", 0)


def _check_path(path: str) -> None:
    if path.startswith("/") or not path or {"", ".", ".."} & set(path.split("/")):
        raise SlipwayError(f"{path!r} is not a path of a layer")


def _header(path: str, mode: int, size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    """As tarfile writes it in the pax format; a header that all fits into is put together here,
    which takes a tenth of the time."""
    if path.isascii() and len(path) <= tarfile.LENGTH_NAME and size < 8**11:
        name = path.encode().ljust(tarfile.LENGTH_NAME, b"\0")
        block = _USTAR % (name, mode, size, b" " * 8, kind)
        return _USTAR % (name, mode, size, b"%06o\0 " % sum(block), kind)
    member = tarfile.TarInfo(path)
    member.type, member.mode, member.size, member.mtime = kind, mode, size, MTIME
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _content(contents: ContentReader, file: LayerFile) -> Iterator[bytes]:
    left = file.size
    for piece in contents.pieces(file):
        left -= len(piece)
        if left < 0:
            break
        yield piece
    if left:
        raise SlipwayError(f"{file.path} changed its size while it was read")
