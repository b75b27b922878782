"""Which checkpoint to go on from, and bringing it here.

In S3: <checkpoint-uri>/<job>/<attempt>/<checkpoint>/..., and below <attempt>/_COMPLETE/ one note
per checkpoint that all nodes have verified. The notes alone are listed to find the newest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.causes import FETCH_SHORT, LaunchError
from launcher.data.checkpoints import Checkpoint, is_complete
from launcher.data.s3 import S3
from launcher.data.transfer import differences, local_files
from launcher.platforms import natural_key

NOTES = "_COMPLETE"


@dataclass(frozen=True)
class RemoteCheckpoint:
    """A complete checkpoint in S3: `target` is its attempt's prefix."""

    target: str
    name: str


def note_uri(target: str, name: str) -> str:
    """Where the note of a checkpoint is."""
    return f"{target}/{NOTES}/{name}.json"


def list_attempts(s3: S3, job_uri: str) -> list[int]:
    """The attempts of a job that have left something, oldest first."""
    return sorted(int(name) for name in s3.children(job_uri) if name.isdecimal())


def all_complete(s3: S3, job_uri: str) -> list[RemoteCheckpoint]:
    """The complete checkpoints of a job, oldest first: by attempt, then by number."""
    found = []
    for number in list_attempts(s3, job_uri):
        target = f"{job_uri}/{number}"
        names = [n[: -len(".json")] for n in s3.listing(f"{target}/{NOTES}") if n.endswith(".json")]
        found += [RemoteCheckpoint(target, name) for name in sorted(names, key=natural_key)]
    return found


def choose_checkpoint(
    remote: list[RemoteCheckpoint], root: Path, rule: str, wanted: str = "auto"
) -> RemoteCheckpoint | Checkpoint | None:
    """The newest complete checkpoint, or the one called `wanted`; here if it is here already.

    A newer one may lie only here, where the checkpoint directory outlives the job (FSx).
    """
    here = is_complete(root, rule)
    if wanted != "auto":
        here = [item for item in here if item.name == wanted]
        remote = [item for item in remote if item.name == wanted]
        if not here and not remote:
            raise LaunchError(f"--resume {wanted}: there is no such complete checkpoint")
    if not here:
        return remote[-1] if remote else None
    if remote and natural_key(remote[-1].name) > natural_key(here[-1].name):
        return remote[-1]
    return here[-1]


def fetch_checkpoint(s3: S3, source: RemoteCheckpoint, root: Path) -> Path:
    """Fetch a checkpoint and verify it against its note; where it is now. LaunchError 74."""
    note = json.loads(s3.get(note_uri(source.target, source.name)))
    files: Mapping[str, int] = note["files"]
    root.mkdir(parents=True, exist_ok=True)
    have = local_files(root)
    todo = [name for name, size in files.items() if have.get(name) != size]
    s3.copy((f"{source.target}/{name}", str(root / name)) for name in todo)
    short = differences(files, local_files(root))
    if short:
        raise LaunchError(
            f"checkpoint {source.name} did not arrive whole: {short[0]}",
            code=FETCH_SHORT,
            kind="FetchError",
            detail="\n".join(short[:20]),
        )
    if note["pointer"]:
        (root / note["pointer"]).write_text(source.name, encoding="utf-8")
    return root / source.name
