"""Verified transfers between a directory and an S3 prefix: listings decide, not exit codes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from launcher.causes import FETCH_SHORT, NO_SPACE, NOTHING_FETCHED, UPLOAD_UNVERIFIED, LaunchError
from launcher.data.s3 import S3, S3Error, S3Object

#: Inside a fetched directory: what it holds, written last.
FETCHED = ".launch-fetched.json"
#: Left free on a disk that a prefetch fills: for logs and compile caches.
SPARE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class TransferResult:
    """What a transfer was: files and bytes in all, and how many had to be copied."""

    files: int
    size: int
    copied: int


def local_files(root: Path) -> dict[str, int]:
    """Every file below `root` with its size; links are followed, our own notes left out.

    A file that vanishes meanwhile is left out: trainers delete old checkpoints.
    """
    found: dict[str, int] = {}
    for directory, _, names in os.walk(root, followlinks=True):
        for name in names:
            path = Path(directory, name)
            if name.startswith(".launch-"):
                continue
            try:
                found[str(path.relative_to(root))] = path.stat().st_size
            except FileNotFoundError:
                continue
    return found


def differences(here: Mapping[str, int], there: Mapping[str, int]) -> list[str]:
    """What is missing or has another size there, one line per file."""
    lines = []
    for name in sorted(here):
        if name not in there:
            lines.append(f"{name} is missing")
        elif there[name] != here[name]:
            lines.append(f"{name} has {there[name]} bytes, not {here[name]}")
    return lines


def sizes(listing: Mapping[str, S3Object]) -> dict[str, int]:
    """A listing's sizes."""
    return {name: item.size for name, item in listing.items()}


@contextmanager
def directory_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` (created if need be) against other processes here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fetch_prefix(s3: S3, source: str, target: Path) -> TransferResult:
    """Make `target` hold everything below `source`, once per node.

    A lock keeps eight ranks from fetching eight times; the second finds the first one's note and
    only compares. Raises LaunchError: 72 nothing there, 73 no space, 74 not all arrived.
    """
    with directory_lock(target.with_name(f".launch-{target.name}.lock")):
        listing = s3.listing(source)
        if not listing:
            raise LaunchError(
                f"there is nothing below {source}/", code=NOTHING_FETCHED, kind="FetchError"
            )
        return _fetch(s3, source, target, listing)


def _fetch(s3: S3, source: str, target: Path, listing: Mapping[str, S3Object]) -> TransferResult:
    target.mkdir(parents=True, exist_ok=True)
    note = target / FETCHED
    fingerprint = _fingerprint(source, listing)
    trusted = _noted(note) == fingerprint
    wanted = {
        name: item for name, item in listing.items() if not _have(target / name, item, trusted)
    }
    if wanted:
        note.unlink(missing_ok=True)
        need = sum(item.size for item in wanted.values())
        require_space(source, target, need)
        batch: Mapping[str, S3Object] = wanted
        for last in (False, True):
            try:
                s3.copy((f"{source}/{name}", str(target / name)) for name in batch)
            except S3Error as error:
                if "no space left" in str(error):
                    raise _no_space(source, target, need) from error
                if last:
                    raise LaunchError(str(error), code=FETCH_SHORT, kind="FetchError") from error
            batch = _absent(target, wanted)
            if not batch:
                break
    short = differences(sizes(listing), local_files(target))
    if short:
        raise LaunchError(
            f"{len(short)} of {len(listing)} files of {source} did not arrive: {short[0]}",
            code=FETCH_SHORT,
            kind="FetchError",
            detail="\n".join(short[:20]),
        )
    _write_note(note, fingerprint)
    return TransferResult(len(listing), sum(item.size for item in listing.values()), len(wanted))


def _have(path: Path, item: S3Object, trusted: bool) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    # Without a note of ours an older file of the same size may be another version of it.
    modified = datetime.fromisoformat(item.modified.replace("Z", "+00:00")).timestamp()
    return status.st_size == item.size and (trusted or status.st_mtime >= modified)


def _absent(target: Path, wanted: Mapping[str, S3Object]) -> dict[str, S3Object]:
    return {
        name: item
        for name, item in wanted.items()
        if not (target / name).is_file() or (target / name).stat().st_size != item.size
    }


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

    `there` lists what has arrived, where listing all of `target` would be too much. Raises
    LaunchError 75 when something is missing there, has another size, or was still being written
    here: s5cmd uploads a growing file as far as it has got, and calls that a success.
    """
    look = there or (lambda: sizes(s3.listing(target)))
    arrived: Mapping[str, int] = {}
    wrong: list[str] = []
    said = ""
    todo = files
    for _ in range(2):
        try:
            s3.copy((str(root / name), f"{target}/{name}") for name in todo)
            arrived = look()
        except S3Error as error:
            said = str(error)
            arrived = _seen_at_least(look)
        wrong = differences(files, arrived)
        todo = {name: size for name, size in files.items() if arrived.get(name) != size}
        if not wrong:
            break
    changed = [name for name, size in files.items() if _size(root / name) not in (size, None)]
    wrong += [f"{name} was written to meanwhile" for name in changed]
    if wrong:
        raise LaunchError(
            f"{len(wrong)} of {len(files)} files are not in {target}: {said or wrong[0]}",
            code=UPLOAD_UNVERIFIED,
            kind="UploadError",
            detail="\n".join(wrong[:20]),
        )
    return TransferResult(len(files), sum(files.values()), len(files))


def _seen_at_least(look: Callable[[], Mapping[str, int]]) -> Mapping[str, int]:
    """What has arrived in spite of an error; nothing when not even that can be seen."""
    try:
        return look()
    except S3Error:
        return {}


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def complete_note(files: Mapping[str, int], **about: object) -> str:
    """The text of a `_COMPLETE.json`: what is there, and when it was verified."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return json.dumps({**about, "verified": now, "files": dict(sorted(files.items()))}, indent=1)
