"""Verified transfers between a directory and an S3 prefix: listings decide, not exit codes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from launcher.causes import FETCH_SHORT, NO_SPACE, NOTHING_FETCHED, UPLOAD_UNVERIFIED, LaunchError
from launcher.data.file_tree import read_tree
from launcher.data.object_keys import OWN_PREFIX, map_keys, shown
from launcher.data.s3 import S3, S3Error, S3Object
from launcher.platforms import NO_LOCKS, check_file_owner, make_place

#: Inside a fetched directory: what it holds, written last.
FETCHED = f"{OWN_PREFIX}fetched.json"
#: Left free on a disk that a prefetch fills: for logs and compile caches.
SPARE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class TransferResult:
    """What a transfer was: files and bytes in all, and how many had to be copied.

    `vanished` are files that were deleted here before they could be uploaded.
    """

    files: int
    size: int
    copied: int
    vanished: tuple[str, ...] = ()


def local_files(root: Path) -> dict[str, int]:
    """Every file below `root` with its size, as `read_tree` finds them."""
    return read_tree(root).sizes


def differences(here: Mapping[str, int], there: Mapping[str, int]) -> list[str]:
    """What is missing or has another size there, one line per file."""
    lines = []
    for name in sorted(here):
        if name not in there:
            lines.append(f"{shown(name)} is missing")
        elif there[name] != here[name]:
            lines.append(f"{shown(name)} has {there[name]} bytes, not {here[name]}")
    return lines


def sizes(listing: Mapping[str, S3Object]) -> dict[str, int]:
    """A listing's sizes."""
    return {name: item.size for name, item in listing.items()}


@contextmanager
def directory_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` (created if need be) against other processes of this node.

    In a directory that others write to, a link in its place is not followed, and one that belongs
    to somebody else, who could hold it for ever, is refused by name (LaunchError). Where its file
    system has no locks, a file on the node's own disk stands for it.
    """
    make_place(path.parent)
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        file = os.open(path, flags | os.O_RDWR | os.O_CREAT, 0o644)
    except PermissionError:
        file = os.open(path, flags | os.O_RDONLY)
    try:
        check_file_owner(file, path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            with _local_lock(path):
                yield
        else:
            yield
    finally:
        os.close(file)


@contextmanager
def _local_lock(path: Path) -> Iterator[None]:
    folder = Path(tempfile.gettempdir(), f"launch-locks-{os.geteuid()}")
    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:24]
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(make_place(folder, private=1) / name, flags, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def fetch_prefix(s3: S3, source: str, target: Path) -> TransferResult:
    """Make `target` hold everything below `source`, once per node.

    A lock keeps eight ranks from fetching eight times; the second finds the first one's note and
    only compares. Raises LaunchError: 72 nothing there, 73 no space, 74 not all arrived, or a key
    that can not become a file, before anything is fetched.
    """
    try:
        with directory_lock(target.with_name(f"{OWN_PREFIX}{target.name}.lock")):
            listing = s3.listing(source)
            paths = map_keys(listing, target)
            if not paths:
                raise LaunchError(
                    f"there is nothing below {source}/", code=NOTHING_FETCHED, kind="FetchError"
                )
            return _fetch(s3, source, target, {key: (listing[key], paths[key]) for key in paths})
    except OSError as error:
        raise LaunchError(
            f"{source} can not be fetched to {target}: {error}", code=FETCH_SHORT, kind="FetchError"
        ) from error


#: Key below the source -> the object, and the file that it becomes.
_Wanted = Mapping[str, tuple[S3Object, Path]]


def _fetch(s3: S3, source: str, target: Path, everything: _Wanted) -> TransferResult:
    make_place(target)
    note = target / FETCHED
    fingerprint = _fingerprint(source, {key: item for key, (item, _) in everything.items()})
    trusted = _noted(note) == fingerprint
    wanted = {
        key: (item, path)
        for key, (item, path) in everything.items()
        if not _have(path, item, trusted)
    }
    if wanted:
        note.unlink(missing_ok=True)
        need = sum(item.size for item, _ in wanted.values())
        require_space(source, target, need)
        batch: _Wanted = wanted
        for last in (False, True):
            try:
                s3.download((f"{source}/{key}", path) for key, (_, path) in batch.items())
            except S3Error as error:
                if "no space left" in str(error):
                    raise _no_space(source, target, need) from error
                if last:
                    raise LaunchError(str(error), code=FETCH_SHORT, kind="FetchError") from error
            batch = {
                key: pair for key, pair in wanted.items() if file_size(pair[1]) != pair[0].size
            }
            if not batch:
                break
    short = [
        f"{shown(key)} has {file_size(path)} bytes, not {item.size}"
        if file_size(path) is not None
        else f"{shown(key)} is missing"
        for key, (item, path) in everything.items()
        if file_size(path) != item.size
    ]
    if short:
        raise LaunchError(
            f"{len(short)} of {len(everything)} files of {source} did not arrive: {short[0]}",
            code=FETCH_SHORT,
            kind="FetchError",
            detail="\n".join(short[:20]),
        )
    _write_note(note, fingerprint)
    size = sum(item.size for item, _ in everything.values())
    return TransferResult(len(everything), size, len(wanted))


def _have(path: Path, item: S3Object, trusted: bool) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    if not stat.S_ISREG(status.st_mode) or status.st_size != item.size:
        return False
    # Without a note of ours an older file of the same size may be another version of it.
    return trusted or status.st_mtime >= item.timestamp


def require_space(source: str, target: Path, need: int) -> None:
    """LaunchError 73 when `need` bytes do not fit into the disk of `target`."""
    if need + SPARE_BYTES > shutil.disk_usage(target).free:
        raise _no_space(source, target, need)


def _no_space(source: str, target: Path, need: int) -> LaunchError:
    free = shutil.disk_usage(target).free
    return LaunchError(
        f"{source} needs {need / 1e9:.2f} GB in {target}, where {free / 1e9:.2f} GB are free",
        code=NO_SPACE,
        kind="FetchError",
    )


def _fingerprint(source: str, listing: Mapping[str, S3Object]) -> str:
    rows = [[name, item.size, item.etag] for name, item in sorted(listing.items())]
    return hashlib.sha256(json.dumps([source, rows]).encode()).hexdigest()


def _noted(note: Path) -> str:
    try:
        return str(json.loads(note.read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _write_note(note: Path, fingerprint: str) -> None:
    beside = note.with_suffix(".tmp")
    beside.write_text(json.dumps({"fingerprint": fingerprint}), encoding="utf-8")
    beside.replace(note)


def send_prefix(
    s3: S3,
    root: Path,
    files: Mapping[str, int],
    target: str,
    there: Callable[[], Mapping[str, int]] | None = None,
) -> TransferResult:
    """Upload `files` (path below `root` -> size) to `target`, then compare the listing.

    `there` lists what has arrived, where listing all of `target` would be too much. Files that
    have been deleted here meanwhile are no fault: the result names them. Raises LaunchError 75
    when something is missing there, has another size, or was still being written here: s5cmd
    uploads a growing file as far as it has got, and calls that a success.
    """
    look = there or (lambda: sizes(s3.listing(target)))
    arrived: Mapping[str, int] = {}
    wrong: list[str] = []
    error_text = ""
    todo = files
    for _ in range(2):
        try:
            s3.copy((str(root / name), f"{target}/{name}") for name in todo)
            arrived = look()
        except S3Error as error:
            error_text = str(error)
            arrived = _seen_at_least(look)
        todo = {
            name: size
            for name, size in files.items()
            if arrived.get(name) != size and file_size(root / name) is not None
        }
        if not todo:
            break
    vanished = tuple(
        name
        for name in files
        if arrived.get(name) != files[name] and file_size(root / name) is None
    )
    kept = {name: size for name, size in files.items() if name not in vanished}
    wrong = differences(kept, arrived)
    changed = [name for name, size in kept.items() if file_size(root / name) not in (size, None)]
    wrong += [f"{shown(name)} was written to meanwhile" for name in changed]
    if wrong:
        raise LaunchError(
            f"{len(wrong)} of {len(files)} files are not in {target}: {error_text or wrong[0]}",
            code=UPLOAD_UNVERIFIED,
            kind="UploadError",
            detail="\n".join(wrong[:20]),
        )
    return TransferResult(len(kept), sum(kept.values()), len(kept), vanished)


@dataclass(frozen=True)
class SentFiles:
    """An uploaded directory: every file that is in S3 with its size, and what is not, and why."""

    files: dict[str, int]
    skipped: dict[str, str]


def send_directory(s3: S3, root: Path, target: str) -> SentFiles:
    """Upload what is below `root`, verified; LaunchError 75 when a file did not arrive.

    What can be no object (a broken link, a name that is not UTF-8) is left out and named in the
    result, and so is what vanished meanwhile. Nothing is sent where there is nothing to send.
    """
    tree = read_tree(root)
    tree.require_readable(root)
    files, skipped = tree.sizes, dict(tree.skipped)
    if files:
        moved = send_prefix(s3, root, files, target)
        for name in moved.vanished:
            del files[name]
            skipped[name] = "it vanished while it was uploaded"
    return SentFiles(files, skipped)


def _seen_at_least(look: Callable[[], Mapping[str, int]]) -> Mapping[str, int]:
    """What has arrived in spite of an error; nothing when not even that can be seen."""
    try:
        return look()
    except S3Error:
        return {}


def file_size(path: Path) -> int | None:
    """A file's size; None where there is no file."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def complete_note(files: Mapping[str, int], **about: object) -> str:
    """The text of a `_COMPLETE.json`: what is there, and when it was verified."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return json.dumps({**about, "verified": now, "files": dict(sorted(files.items()))}, indent=1)
