"""The files below a directory as an upload sees them: what there is, and what is no such thing."""

from __future__ import annotations

import errno
import stat
from dataclasses import dataclass, field
from pathlib import Path

from launcher.causes import UPLOAD_UNVERIFIED, LaunchError
from launcher.data.object_keys import OWN_PREFIX, fault_of_file_name, shown

#: Names in one event or failure; a directory full of broken links is said in a few lines.
SHOWN_NAMES = 20


@dataclass
class FileTree:
    """Path below the root -> (size, modification time in ns); what is left out, and why.

    `unreadable` is what an upload must not leave out in silence: the rights are missing, or the
    disk fails. Links are followed; our own notes appear nowhere.
    """

    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[str, int]:
        """Every file's size."""
        return {name: size for name, (size, _) in self.files.items()}

    def require_readable(self, root: Path) -> None:
        """LaunchError 75 where a part of the tree can not be seen."""
        for name, why in self.unreadable.items():
            raise LaunchError(
                f"{root}: {shown(name)} can not be read: {why}",
                code=UPLOAD_UNVERIFIED,
                kind="UploadError",
            )


def read_tree(root: Path, below: str = "") -> FileTree:
    """What is below `root`, which may be a single file: then it stands under its own name.

    `below` is put before every name, as if `root` were a directory of that name in another one.
    Trainers delete old checkpoints while this looks: what vanishes is left out.
    """
    tree = FileTree()
    if root.is_file():
        _look_at(tree, root, root.name, frozenset())
        return tree
    # Directories still to be read; not recursion, which a tree 500 levels deep would break.
    rest: list[_Directory] = [(root, below, frozenset())]
    while rest:
        rest += _read_directory(tree, *rest.pop())
    return tree


#: Its path, its path below the root, and device and inode of every directory above it: a link back
#: to one of those is a circle.
_Directory = tuple[Path, str, frozenset[tuple[int, int]]]


def _read_directory(
    tree: FileTree, directory: Path, below: str, above: frozenset[tuple[int, int]]
) -> list[_Directory]:
    """Look at what is in a directory; the directories in it."""
    try:
        own = directory.stat()
        names = sorted(item.name for item in directory.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        tree.unreadable[below or "."] = str(error.strerror)
        return []
    inner = above | {(own.st_dev, own.st_ino)}
    found = (
        _look_at(tree, directory / name, f"{below}/{name}" if below else name, inner)
        for name in names
        if not name.startswith(OWN_PREFIX)
    )
    return [item for item in found if item is not None]


def _look_at(
    tree: FileTree, place: Path, path: str, above: frozenset[tuple[int, int]]
) -> _Directory | None:
    """Put one entry where it belongs; itself when it is a directory to read."""
    try:
        status = place.stat()
    except FileNotFoundError:
        tree.skipped[path] = "a broken link" if place.is_symlink() else "it vanished"
        return None
    except OSError as error:
        if place.is_symlink():
            tree.skipped[path] = f"a broken link ({error.strerror})"
        elif error.errno == errno.ENAMETOOLONG:
            tree.skipped[path] = str(error.strerror)
        else:
            tree.unreadable[path] = str(error.strerror)
        return None
    fault = fault_of_file_name(path)
    if fault:
        tree.skipped[path] = fault
    elif stat.S_ISDIR(status.st_mode):
        if (status.st_dev, status.st_ino) not in above:
            return place, path, above
        tree.skipped[path] = "a link to a directory that it is in"
    elif stat.S_ISREG(status.st_mode):
        tree.files[path] = (status.st_size, status.st_mtime_ns)
    else:
        tree.skipped[path] = "neither a file nor a directory"
    return None


def skipped_rows(skipped: dict[str, str]) -> list[str]:
    """Each left out name with its reason, the first few of them, for an event or a note."""
    rows = [f"{shown(name)}: {why}" for name, why in sorted(skipped.items())]
    more = len(rows) - SHOWN_NAMES
    return [*rows[:SHOWN_NAMES], f"and {more} more"] if more > 0 else rows
