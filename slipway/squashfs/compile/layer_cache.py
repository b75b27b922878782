"""Compiled layers on disk: bounded, shared by processes, and never trusted blindly.

    FOLDER/layers/KEY/      index, 00000.data, 00001.data, ..., seal
    FOLDER/locks/KEY        held (flock) while the entry is made, used or removed

An entry appears by a rename, when it is whole. Its `seal` records size, inode and times of every
file and the running kernel's boot: while they hold, nobody wrote to the files since, as every
write changes the ctime. Where they do not (the cache was copied, the machine was restarted in the
middle of a write-back), the contents are hashed; an entry that fails is removed and made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.core import FileLock, PartClaim, Project, SharedParts, differing_pieces
from slipway.squashfs.format import CacheError

if TYPE_CHECKING:
    from slipway.squashfs.compile.compiled_layer import CompiledLayer

DEFAULT_LIMIT = 50_000_000_000  # bytes
SHARED_KIND = "compiled-layers"
INDEX, SEAL = "index", "seal"
_PARTIAL = ".partial"


def _remove(path: Path) -> None:
    """Remove whatever is there: a folder with all that is in it, a file, a link itself."""
    try:
        folder = stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if folder:
        shutil.rmtree(path)
    else:
        path.unlink()


def _ensure_folder(path: Path) -> None:
    """Have a folder at `path`; a file or a dangling link in its place goes.

    Never removes a folder: another process may have made it since it was found missing.
    """
    while True:
        try:
            path.mkdir(exist_ok=True)
            return
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # another was quicker
                path.unlink()


def _remove_unless_file(path: Path) -> None:
    """Remove what is in the place of a plain file; a file stays, as another may hold its lock."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            _remove(path)


def _unusable(path: Path, error: OSError) -> CacheError:
    return CacheError(
        f"the layer cache cannot be used: {error.strerror}",
        where=str(path),
        cure="Check its permissions, or remove it: layers are compiled again when needed.",
    )


class LayerCache:
    """The layer cache in `folder`, kept below `limit` bytes by `trim`.

    `shared`: where other machines put layers that they have compiled, and look for ours.
    """

    def __init__(
        self, folder: Path, limit: int = DEFAULT_LIMIT, shared: SharedParts | None = None
    ) -> None:
        self.folder = folder
        self.limit = limit
        self.shared = shared
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("layers", "locks"):
                _ensure_folder(folder / name)
        except OSError as error:
            raise CacheError(
                f"the layer cache cannot be made: {error.strerror}",
                where=str(folder),
                cure="Check the folder's permissions, or remove what is in its place.",
            ) from error

    def entry(self, key: str) -> Path:
        """Where an entry is or will be."""
        return self.folder / "layers" / key

    def lock(self, key: str) -> FileLock:
        """The lock of an entry, not held yet; anything else in its place is removed."""
        path = self.folder / "locks" / key
        try:
            _remove_unless_file(path)
            return FileLock(path)
        except OSError as error:
            raise _unusable(path, error) from error

    def read(self, key: str) -> CompiledLayer | None:
        """A whole entry, marked as used now; None where it is missing or damaged.

        Hold its lock. A damaged entry is left for `make` to replace.
        """
        # Here, since most exports find their file there, and read no layer.
        from slipway.squashfs.compile.compiled_layer import read_layer

        entry = self.entry(key)
        try:
            if not _is_entry(entry):
                return None
            layer = read_layer((entry / INDEX).read_bytes(), entry)
            if (entry / SEAL).read_text() != _seal(entry):
                for part in layer.parts:
                    assert isinstance(part.source, Path)
                    if differing_pieces(part.source, part.pieces) is not None:
                        return None
                _write_seal(entry)
            os.utime(entry)
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return None
        return layer

    @contextlib.contextmanager
    def make(self, key: str) -> Iterator[Path]:
        """A fresh folder that becomes the entry at the end of the block. Hold its lock alone."""
        entry = self.entry(key)
        partial = entry.with_name(key + _PARTIAL)
        try:
            _remove(partial)
            partial.mkdir()
            yield partial
            _write_seal(partial)
            _remove(entry)
            partial.rename(entry)
        except OSError as error:
            raise CacheError(
                f"the layer cache cannot be written: {error.strerror}",
                where=str(self.folder),
                cure="Free some space there (df), check its permissions, or remove the folder.",
            ) from error
        finally:
            with contextlib.suppress(OSError):  # the error that is on its way says more
                _remove(partial)

    def take_shared(self, key: str, on_wait: Callable[[str], None]) -> PartClaim | None:
        """Copy an entry that another machine has made, or has in work; else the claim to make it.

        None, too, where nothing is shared. Hold the entry's lock alone, and `read` it afterwards:
        the copy is checked there.
        """
        if self.shared is None:
            return None
        claim = self.shared.claim(SHARED_KIND, key, on_wait)
        if claim is None and (made := self.shared.part(SHARED_KIND, key)) is not None:
            with self.make(key) as folder:
                shutil.copytree(made, folder, dirs_exist_ok=True)
            (self.entry(key) / SEAL).write_text("copied")
        return claim

    def trim(self, limit: int | None = None) -> list[str]:
        """Remove the entries that were not used for longest until the rest fits; their keys.

        What another process uses or makes stays. What a killed one left half-made goes.
        """
        limit = self.limit if limit is None else limit
        entries = []
        for entry in (self.folder / "layers").iterdir():
            with contextlib.suppress(FileNotFoundError):  # removed by another process
                info = entry.lstat()
                folder = stat.S_ISDIR(info.st_mode)
                size = sum(file.lstat().st_size for file in entry.iterdir()) if folder else 0
                whole = folder and not entry.name.endswith(_PARTIAL)
                entries.append((whole, info.st_mtime_ns, entry, size))
        total = sum(size for *_, size in entries)
        removed = []
        for whole, _, entry, size in sorted(entries):
            if whole and total <= limit:
                break
            lock = self.lock(entry.name.removesuffix(_PARTIAL))
            try:
                if lock.own(wait=False):
                    _remove(entry)
                    total -= size
                    removed.append(entry.name)
            except OSError as error:
                raise _unusable(entry, error) from error
            finally:
                lock.release()
        return removed


def _is_entry(entry: Path) -> bool:
    """Whether it is a folder of plain files: nothing leads elsewhere, no pipe keeps us waiting."""
    return stat.S_ISDIR(entry.lstat().st_mode) and all(
        stat.S_ISREG(file.lstat().st_mode) for file in entry.iterdir()
    )


def _seal(entry: Path) -> str:
    files = {}
    for file in sorted(entry.iterdir()):
        if file.name != SEAL:
            info = file.stat()
            files[file.name] = [info.st_size, info.st_ino, info.st_mtime_ns, info.st_ctime_ns]
    return json.dumps({"boot": _boot(), "files": files})


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _write_seal(entry: Path) -> None:
    (entry / SEAL).write_text(_seal(entry))


def layer_cache(project: Project, limit: int = DEFAULT_LIMIT) -> LayerCache:
    """The project's compiled layers, kept below `limit` bytes."""
    return LayerCache(project.sqsh / "layers", limit, project.shared)
