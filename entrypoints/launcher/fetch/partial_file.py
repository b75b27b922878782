"""The file while it is fetched: pieces that are right, pieces that are missing, and its last step.

Pieces are written where they belong in a file beside the final one, and count only once their
sha256 was made of what was read back or written. The final name appears by a rename. A run that was
killed leaves the file; the next one checks what is in it and goes on.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from launcher.causes import FETCH_SHORT, NO_SPACE
from launcher.fetch.sqsh_sidecar import (
    FetchError,
    FilePiece,
    SqshSidecar,
    read_sidecar_file,
    sidecar_of,
)

_BUFFER = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: What copy_file_range(2) says where two files cannot share or be copied so.
_NOT_COPIED = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)
#: Beside what is written, for the file system itself.
_SPARE_BYTES = 16 << 20


@dataclass(frozen=True)
class OlderPlace:
    """Where a piece stands in another file of the folder."""

    path: Path
    start: int


class PartialFile:
    """The file that will be `target`. `missing` are the numbers of pieces that it lacks.

    `shared`: no lock keeps others from this file's name, so that it has one of its own. `whole`:
    the target itself is right, and is only to be read.
    """

    def __init__(
        self, target: Path, sidecar: SqshSidecar, *, shared: bool = False, whole: bool = False
    ) -> None:
        self.target = target
        self.sidecar = sidecar
        own = f".{socket.gethostname()}.{os.getpid()}" if shared else ""
        self.path = target.with_name(f".{target.name}{own}.partial")
        self.missing = set() if whole else set(range(len(sidecar.pieces)))
        self.copied_bytes = 0
        self.handle = os.open(target, os.O_RDONLY | os.O_CLOEXEC) if whole else self._open()

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            handle = os.open(self.path, flags, 0o644)
        except OSError as error:
            raise FetchError(f"{self.path} cannot be written: {error.strerror}") from error
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            os.close(handle)
            raise FetchError(f"{self.path} is not a file of this user's: remove it")
        return handle

    def prepare(self) -> None:
        """Take what a run that was killed has left here, and make room for the rest.

        Raises FetchError where the disk has none.
        """
        kept = os.fstat(self.handle).st_size == self.sidecar.size
        if kept:
            self._check_kept()
        else:
            os.ftruncate(self.handle, 0)
        self._check_room()
        self._write_guarded(lambda: os.ftruncate(self.handle, self.sidecar.size))

    def _check_kept(self) -> None:
        candidates = [
            number
            for number, piece in enumerate(self.sidecar.pieces)
            if all(self._has_data(start, piece.size) for start in piece.starts)
        ]

        def right(number: int) -> bool:
            piece = self.sidecar.pieces[number]
            digests = {hash_range(self.handle, start, piece.size) for start in piece.starts}
            return digests == {piece.sha256}

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            answers = list(pool.map(right, candidates))
        self.missing -= {number for number, good in zip(candidates, answers) if good}

    def _has_data(self, start: int, size: int) -> bool:
        """Whether no hole is at the beginning or the end: what was never written is not hashed."""
        try:
            at_start = os.lseek(self.handle, start, os.SEEK_DATA)
            return at_start == start and os.lseek(self.handle, start, os.SEEK_HOLE) >= start + size
        except OSError:
            return False  # no data from there on

    def _check_room(self) -> None:
        needed = sum(
            self.sidecar.pieces[number].size * len(self.sidecar.pieces[number].starts)
            for number in self.missing
        )
        disk = os.fstatvfs(self.handle)
        free = disk.f_bavail * disk.f_frsize
        if needed + _SPARE_BYTES > free:
            raise FetchError(
                f"{self.target.parent} has {free >> 20} MiB free, and {self.target.name} takes"
                f" {needed >> 20} MiB more: free some space there, or choose another folder",
                NO_SPACE,
            )

    def _older_files(self) -> list[Path]:
        """Other files in the folder, the newest first, the target itself among them."""
        dated = []
        for path in self.target.parent.glob("*.sqsh"):
            with suppress(OSError):  # it may go while we look
                dated.append((path != self.target, -path.stat().st_mtime, path))
        return [path for *_, path in sorted(dated)]

    def older_places(self) -> dict[int, list[OlderPlace]]:
        """Missing pieces that other .sqsh files of the folder have, by their sidecars."""
        places: dict[int, list[OlderPlace]] = {}
        if not self.missing:
            return places
        for older in self._older_files():
            theirs = read_sidecar_file(older)
            if theirs is None:
                continue
            there = {(piece.size, piece.sha256): piece.starts[0] for piece in theirs.pieces}
            for number in self.missing:
                piece = self.sidecar.pieces[number]
                start = there.get((piece.size, piece.sha256))
                if start is not None:
                    places.setdefault(number, []).append(OlderPlace(older, start))
        return places

    def copy_piece(self, number: int, places: Sequence[OlderPlace]) -> bool:
        """Bring a piece from the first of these places that has it; False where none has.

        It is to be finished then. Raises FetchError for a full disk.
        """
        piece = self.sidecar.pieces[number]
        for place in places:
            try:
                source = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue  # it has gone since
            try:
                self._write_guarded(partial(_copy_range, source, self.handle, place.start, piece))
            finally:
                os.close(source)
            # Of the copy, not of the source: this is what the job will read.
            if hash_range(self.handle, piece.starts[0], piece.size) == piece.sha256:
                return True
        return False

    def write(self, number: int, offset: int, data: bytes) -> None:
        """Some bytes of a piece, at its first place. Raises FetchError for a full disk."""
        at = self.sidecar.pieces[number].starts[0] + offset
        self._write_guarded(lambda: _write_at(self.handle, data, at))

    def finish_piece(self, number: int) -> None:
        """A piece whose bytes, at its first place, are right: put it at its other places."""
        piece = self.sidecar.pieces[number]
        first, *others = piece.starts

        def repeat() -> None:
            for start in others:
                copy = FilePiece(piece.size, piece.sha256, (start,))
                _copy_range(self.handle, self.handle, first, copy)

        self._write_guarded(repeat)
        self.missing.discard(number)

    def commit(self) -> None:
        """Give the whole file its name, its sidecar first, as an export does."""
        half = self.target.with_name(f".{self.target.name}.json.{os.getpid()}.partial")
        try:
            half.write_bytes(self.sidecar.raw)
            half.chmod(0o644)
            half.replace(sidecar_of(self.target))
            os.fchmod(self.handle, 0o644)
            self.path.replace(self.target)
            write_mark(self.target, self.sidecar.digest)
        except OSError as error:
            raise self._failure(error) from error
        finally:
            with suppress(OSError):
                half.unlink()

    def close(self) -> None:
        """Close it; where it has not got its name, it stays for the next run."""
        os.close(self.handle)

    def _write_guarded(self, step: Callable[[], object]) -> None:
        try:
            step()
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> FetchError:
        code = NO_SPACE if error.errno in _NO_ROOM else FETCH_SHORT
        return FetchError(
            f"{self.target.parent} takes no more of {self.target.name}: {error.strerror}", code
        )


def whole_file(target: Path, sidecar: SqshSidecar) -> bool:
    """Whether the file is there already and was checked since anybody wrote to it."""
    theirs = read_sidecar_file(target)
    try:
        mark = mark_of(target).read_text(encoding="utf-8", errors="replace").strip()
        return (
            theirs is not None
            and theirs.digest == sidecar.digest
            and target.stat().st_size == sidecar.size
            and mark == _mark(target, sidecar.digest)
        )
    except OSError:
        return False


def mark_of(target: Path) -> Path:
    """Where it stands that a file was checked: jobs' scripts look there (templates/sqsh.j2)."""
    return target.with_name(target.name + ".checked")


def write_mark(target: Path, digest: str) -> None:
    """Remember that the file was checked, as the scripts of jobs do."""
    mark_of(target).write_text(_mark(target, digest) + "\n", encoding="utf-8")


def _mark(target: Path, digest: str) -> str:
    """`stat --dereference --format='%i %s %y'`, behind the digest."""
    status = target.stat()
    seconds, rest = divmod(status.st_mtime_ns, 10**9)
    written = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    zone = time.strftime("%z", time.localtime(seconds))
    return f"{digest} {status.st_ino} {status.st_size} {written}.{rest:09d} {zone}"


def hash_range(handle: int, start: int, size: int) -> str:
    """Hex sha256 of a stretch of a file; of what there is of it, where the file is shorter."""
    hasher = hashlib.sha256()
    done = 0
    while done < size:
        data = os.pread(handle, min(_BUFFER, size - done), start + done)
        if not data:
            break
        hasher.update(data)
        done += len(data)
    return hasher.hexdigest()


def _write_at(handle: int, data: bytes, position: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(handle, view, position)
        view, position = view[count:], position + count


def _copy_range(source: int, target: int, start: int, piece: FilePiece) -> None:
    """To the piece's first place: shared by the file system where it can (xfs, btrfs)."""
    done, to, by_kernel = 0, piece.starts[0], True
    while done < piece.size:
        left = piece.size - done
        if by_kernel:
            try:
                count = os.copy_file_range(source, target, left, start + done, to + done)
            except OSError as error:
                if error.errno not in _NOT_COPIED:
                    raise
                by_kernel = False
                continue
        else:
            data = os.pread(source, min(_BUFFER, left), start + done)
            _write_at(target, data, to + done)
            count = len(data)
        if not count:
            return  # shorter than its sidecar says: the digest will tell
        done += count
