"""Whole trees: their size, copying them, checking a copy, removing them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from slipway.core import sync
from slipway.storage.copy.copy_pool import Answer, Job, copy_pool
from slipway.storage.copy.entry_copy import read_entry_xattrs, same_entry
from slipway.storage.errors import CopyError

_GROUP = 256  # folders, or groups of hard links, in one job

OnBytes = Callable[[int], None]
"""Called with the bytes copied or compared so far."""


@dataclass(frozen=True)
class CopyCheck:
    """What a comparison saw: all entries by their metadata, `hashed` of them by content too."""

    entries: int
    bytes: int
    hashed: int
    hashed_bytes: int


def copy_tree(source: Path, target: Path, on_bytes: OnBytes, *, resume: bool = False) -> None:
    """Copy a tree, and have it on the disk. `target` must not exist, unless `resume`.

    Raises CopyError; what was copied so far stays for the caller to remove or to resume.
    """
    target.mkdir(mode=0o700, exist_ok=resume)
    folders = [""]
    links: dict[str, list[str]] = defaultdict(list)
    copied = 0

    def take(answer: Answer) -> Iterable[Job]:
        nonlocal copied
        copied += answer.get("bytes", 0)
        on_bytes(copied)
        for inode, path in answer.get("links", ()):
            links[inode].append(path)
        folders.extend(answer.get("folders", ()))
        return [("copy", path) for path in answer.get("folders", ())]

    with copy_pool(source, target, device=target.stat().st_dev, resume=resume) as running:
        running.run([("copy", "")], take)
        groups = [sorted(paths) for _, paths in sorted(links.items())]
        running.run([("link", part) for part in _parts(groups)], take)
        # Deepest first and last of all: each new entry changes its folder's time.
        running.run([("finish", part) for part in _parts(folders[::-1])], take)
    sync(target)


def compare_trees(source: Path, target: Path, on_bytes: OnBytes) -> CopyCheck:
    """Compare a copy with its source. Raises CopyError naming the first differences."""
    totals = {"entries": 0, "bytes": 0, "hashed": 0, "hashed_bytes": 0}
    wrong: list[tuple[str, str]] = []
    pairs: dict[str, str] = {}
    back: dict[str, str] = {}

    def take(answer: Answer) -> Iterable[Job]:
        for name in totals:
            totals[name] += answer[name]
        on_bytes(totals["bytes"])
        wrong.extend((path, reason) for path, reason in answer["wrong"])
        for ours, theirs, path in answer["links"]:
            if pairs.setdefault(ours, theirs) != theirs or back.setdefault(theirs, ours) != ours:
                wrong.append((path, "is linked to other files in the copy"))
        return [("compare", path) for path in answer["folders"]]

    if not same_entry(source.stat(), target.stat()) or read_entry_xattrs(
        str(source)
    ) != read_entry_xattrs(str(target)):
        wrong.append((".", "differs in owner, mode, time or extended attributes"))
    with copy_pool(source, target) as running:
        running.run([("compare", "")], take)
    if wrong:
        shown = "\n".join(f"  | {path} {reason}" for path, reason in sorted(wrong)[:5])
        raise CopyError(
            f"the copy differs from its source in {len(wrong)} places:\n{shown}", where=str(target)
        )
    return CopyCheck(**totals)


def _parts(items: list[str] | list[list[str]]) -> list[list[str] | list[list[str]]]:
    return [items[start : start + _GROUP] for start in range(0, len(items), _GROUP)]
