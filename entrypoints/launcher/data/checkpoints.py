"""Which checkpoints in a directory are complete. Reads the disk, changes nothing.

A checkpoint is complete when the trainer says so, by the file that it writes last:
  latest         DeepSpeed: the directory that the file `latest` names
  trainer_state  Hugging Face Trainer: checkpoint-*/trainer_state.json
  dcp            torch.distributed.checkpoint: */.metadata, renamed into place at the end
  marker:NAME    */NAME
  glob:PATTERN   whatever matches, once it no longer changes
  auto           any of the first three
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from launcher.causes import LaunchUsageError
from launcher.data.checkpoint_steps import StatedStep
from launcher.data.file_tree import FileTree, read_tree
from launcher.data.object_keys import fault_of_file_name
from launcher.platforms import natural_key

LATEST = "latest"
RULES = ("auto", LATEST, "trainer_state", "dcp")


@dataclass(frozen=True)
class Checkpoint:
    """A file or directory directly in the checkpoint directory, and a pointer to it, if any.

    `stamp` changes when it is written anew under the same name: the time of that in ns. `step` is
    what the checkpoint states, where somebody has asked.
    """

    name: str
    pointer: str = ""
    stamp: int = 0
    step: StatedStep | None = None

    @property
    def saved(self) -> float:
        """When it was written, in seconds since the epoch."""
        return self.stamp / 1e9


def check_rule(rule: str) -> None:
    """UsageError unless the rule is one of the above."""
    kind, colon, value = rule.partition(":")
    if rule not in RULES and not (kind in ("marker", "glob") and colon and value):
        raise LaunchUsageError(
            f"--checkpoint-complete {rule!r}: choose {', '.join(RULES)}, marker:NAME, glob:PATTERN"
        )


def is_complete(root: Path, rule: str) -> list[Checkpoint]:
    """The complete checkpoints, oldest first (by the numbers in their names)."""
    kind, _, value = rule.partition(":")
    found: dict[str, Checkpoint] = {}
    if kind in ("trainer_state", "auto"):
        found.update(_holding(root, "trainer_state.json"))
    if kind in ("dcp", "auto"):
        found.update(_holding(root, ".metadata"))
    if kind == "marker":
        found.update(_holding(root, value))
    if kind == "glob":
        found.update(_found((path, path) for path in root.glob(value)))
    if kind in (LATEST, "auto"):
        found.update(_named_by_latest(root))
    return sorted(found.values(), key=lambda item: natural_key(item.name))


def _holding(root: Path, last_file: str) -> dict[str, Checkpoint]:
    return _found((path.parent, path) for path in root.glob(f"*/{last_file}"))


def _found(pairs: Iterable[tuple[Path, Path]], pointer: str = "") -> dict[str, Checkpoint]:
    """From (checkpoint, the file that makes it complete)."""
    found = {}
    for path, last_file in pairs:
        try:
            stamp = max(path.stat().st_mtime_ns, last_file.stat().st_mtime_ns)
        except OSError:
            continue  # rotated away meanwhile, or a link that leads nowhere
        found[path.name] = Checkpoint(path.name, pointer, stamp)
    return found


def _named_by_latest(root: Path) -> dict[str, Checkpoint]:
    try:
        name = (root / LATEST).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return {}
    if not name or "/" in name or fault_of_file_name(name) or not (root / name).is_dir():
        return {}
    return _found([(root / name, root / LATEST)], pointer=LATEST)


def checkpoint_tree(path: Path) -> FileTree:
    """Every file of a checkpoint with size and modification time: equal twice means at rest.

    Names are relative to the checkpoint directory, so they begin with the checkpoint's own.
    """
    return read_tree(path, below=path.name)


def checkpoint_state(path: Path) -> dict[str, tuple[int, int]]:
    """The files of a checkpoint alone."""
    return checkpoint_tree(path).files


def node_share(mine: int, listings: list[dict[str, int]]) -> dict[str, int]:
    """The files that node `mine` uploads: those that no node before it has.

    Shards on local disks exist on one node each and are all taken; on a shared file system, and
    for what every node writes alike (save_on_each_node), node 0's copy is the one.
    """
    taken = {name for listing in listings[:mine] for name in listing}
    return {name: size for name, size in listings[mine].items() if name not in taken}
