"""What one machine has made and others need: wheels, layers, compiled layers, by their keys.

    FOLDER/KIND/KEY         a file, or a folder of files; appears by a rename, when it is whole
    FOLDER/leases/KIND-KEY.NUMBER    while somebody makes it

Every machine works on its own disk: it copies a part from here, or makes it and puts a copy here.
Who takes a copy checks it as it checks its own cache.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from slipway.core.errors import SlipwayError
from slipway.core.files import write_atomic
from slipway.core.processes import this_process
from slipway.core.sharing.leases import LEASE_S, Lease, LeaseFolder

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 2.0


class PartClaim:
    """A part that this process is to make: `publish` what it made; the end of the block lets go."""

    def __init__(self, target: Path, lease: Lease) -> None:
        self._target, self._lease = target, lease

    def publish(self, made: Path) -> None:
        """Put a copy of what was made (a file or a folder) where the others look."""
        copy_whole(made, self._target)

    def mark(self) -> None:
        """Put an empty file there: what was made is elsewhere, and this says that it is."""
        write_atomic(self._target, b"")

    def release(self) -> None:
        """Let another one make it, where it was not published."""
        self._lease.release()

    def __enter__(self) -> PartClaim:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class SharedParts:
    """The parts below `folder`. Keys are file names."""

    def __init__(self, folder: Path, patience: float = LEASE_S) -> None:
        self.folder = folder
        self._leases = LeaseFolder(folder / "leases", patience)

    def part(self, kind: str, key: str) -> Path | None:
        """Where a part is, None where nobody has made it yet."""
        path = self.folder / kind / key
        return path if path.exists() else None

    def claim(
        self, kind: str, key: str, on_wait: Callable[[str], None] | None = None
    ) -> PartClaim | None:
        """The right to make a part; None as soon as it is there. Waits while another makes it.

        Who claims several does so in the order of their keys, so that none waits in a circle.
        `on_wait` hears once who makes it.
        """
        name = f"{kind}-{key}"
        pause, told = _FIRST_WAIT_S, False
        while True:
            if self.part(kind, key) is not None:
                return None
            lease = self._leases.take(name)
            if lease is not None:
                claim = PartClaim(self.folder / kind / key, lease)
                refresh_folder(self.folder / kind)
                if self.part(kind, key) is None:
                    return claim
                lease.release()
                return None
            if on_wait is not None and not told:
                told = True
                on_wait(self._leases.holder(name) or "another machine")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_WAIT_S)


def refresh_folder(folder: Path) -> None:
    """Have this machine see what others have put into a folder, where it exists.

    An NFS client remembers for half a minute what was not there (nfs(5), acdirmin), unless it
    changes the folder itself.
    """
    probe = folder / f".{this_process()}.probe"
    with contextlib.suppress(OSError):
        probe.touch()
        probe.unlink()


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file or folder so that it is seen only when it is whole; one that is there stays.

    Raises SlipwayError.
    """
    partial = target.with_name(f".{target.name}.{this_process()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)
        if source.is_dir():
            shutil.copytree(source, partial)
        else:
            shutil.copyfile(source, partial)
        with contextlib.suppress(FileExistsError):
            _rename(partial, target)
    except OSError as error:
        raise SlipwayError(
            f"cannot copy {source} there: {error.strerror}",
            where=str(target),
            cure="Check free space (df) and permissions; what is there can be removed at any time.",
        ) from error
    finally:
        with contextlib.suppress(OSError):  # the error that is on its way says more
            _remove(partial)


def _rename(partial: Path, target: Path) -> None:
    try:
        partial.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another one was quicker
            raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
