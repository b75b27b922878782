"""Which checkpoint to go on from, and bringing it here.

In S3: <checkpoint-uri>/<job>/<attempt>/<checkpoint>/..., and below <attempt>/_COMPLETE/ one note
per checkpoint that all nodes have verified: its files, its step, and when it was saved. The notes
alone are read to find the newest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from launcher import events
from launcher.causes import FETCH_SHORT, LaunchError
from launcher.data.checkpoint_steps import (
    StatedStep,
    stated_step,
    step_of_name,
    step_of_trainer_state,
)
from launcher.data.checkpoints import LATEST, Checkpoint, is_complete
from launcher.data.object_keys import OWN_PREFIX, map_keys, shown
from launcher.data.s3 import S3, S3Object
from launcher.data.transfer import differences, file_size
from launcher.platforms import make_place, natural_key

NOTES = "_COMPLETE"


@dataclass(frozen=True)
class RemoteCheckpoint:
    """A complete checkpoint in S3: `target` is its attempt's prefix.

    `step` is what it states itself, `saved` when it was written, in seconds since the epoch.
    """

    target: str
    name: str
    step: StatedStep | None = field(default=None, compare=False)
    saved: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class CheckpointNote:
    """What a note says: the files below the attempt's prefix, and the pointer beside them."""

    files: dict[str, int]
    pointer: str
    step: StatedStep | None
    saved: float


def note_uri(target: str, name: str) -> str:
    """Where the note of a checkpoint is."""
    return f"{target}/{NOTES}/{name}.json"


def read_note(text: str, uri: str) -> CheckpointNote:
    """Check a note; LaunchError that names it where it is none: anyone may have written it."""
    try:
        data = json.loads(text)
        files = data["files"]
        sound = all(isinstance(n, str) and type(s) is int and s >= 0 for n, s in files.items())
        pointer = data["pointer"]
        if not sound or not files or pointer not in ("", LATEST):
            raise ValueError("files or pointer")
        step, source = data.get("step"), str(data.get("step_source") or "its note")
        stated = StatedStep(step, source) if type(step) is int else None
        return CheckpointNote(files, pointer, stated, float(data.get("saved") or 0.0))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LaunchError(
            f"{uri} is no note of a checkpoint ({type(error).__name__}: {error})",
            code=FETCH_SHORT,
            kind="ResumeError",
        ) from error


def list_attempts(s3: S3, job_uri: str) -> list[int]:
    """The attempts of a job that have left something, oldest first."""
    return sorted(int(n) for n in s3.children(job_uri) if n.isascii() and n.isdecimal())


def all_complete(s3: S3, job_uri: str) -> list[RemoteCheckpoint]:
    """The complete checkpoints of a job, oldest first. A damaged note is an event, no more."""
    found: list[RemoteCheckpoint] = []
    for number in list_attempts(s3, job_uri):
        target = f"{job_uri}/{number}"
        notes = {
            name[: -len(".json")]: item
            for name, item in s3.listing(f"{target}/{NOTES}").items()
            if name.endswith(".json") and "/" not in name and name != ".json"
        }
        map_keys([f"{name}/x" for name in notes], Path("/"))
        texts = s3.read_all([note_uri(target, name) for name in notes])
        for (name, item), text in zip(notes.items(), texts):
            try:
                note = read_note(text, note_uri(target, name))
            except LaunchError as error:
                events.emit("warning", text=str(error))
                continue
            found.append(_remote(s3, target, name, note, item))
    return sorted(found, key=_order)


def _remote(
    s3: S3, target: str, name: str, note: CheckpointNote, item: S3Object
) -> RemoteCheckpoint:
    """From its note; what an older launcher's note does not say is asked of the checkpoint."""
    step, state = note.step, f"{name}/trainer_state.json"
    if step is None and state in note.files:
        number = step_of_trainer_state(s3.get(f"{target}/{state}"))
        step = StatedStep(number, "trainer_state.json") if number is not None else None
    return RemoteCheckpoint(target, name, step or step_of_name(name), note.saved or item.timestamp)


def local_complete(root: Path, rule: str) -> list[Checkpoint]:
    """The complete checkpoints in a directory with their steps, oldest first."""
    try:
        latest = (root / LATEST).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        latest = ""
    present = [
        Checkpoint(c.name, c.pointer, c.stamp, stated_step(root / c.name, latest))
        for c in is_complete(root, rule)
    ]
    return sorted(present, key=_order)


def _order(item: Checkpoint | RemoteCheckpoint) -> tuple[int, float, tuple[object, ...]]:
    """Older before newer: by step, then by time, then by number."""
    step = item.step or (step_of_name(item.name) if isinstance(item, RemoteCheckpoint) else None)
    return (step.step if step else -1, item.saved, natural_key(item.name))


def choose_checkpoint(
    remote: Sequence[RemoteCheckpoint], root: Path, rule: str, wanted: str = "auto"
) -> RemoteCheckpoint | Checkpoint | None:
    """The newest complete checkpoint, or the one called `wanted`; here if it is here already.

    A newer one may lie only here, where the checkpoint directory outlives the job (FSx).
    """
    here = local_complete(root, rule)
    if wanted != "auto":
        here = [item for item in here if item.name == wanted]
        remote = [item for item in remote if item.name == wanted]
        if not here and not remote:
            raise LaunchError(f"--resume {wanted}: there is no such complete checkpoint")
    everything: list[RemoteCheckpoint | Checkpoint] = [*remote, *here]
    if not everything:
        return None
    best = _newest(everything)
    same = [c for c in here if c.name == best.name and _step(c) == _step(best)]
    chosen = same[-1] if same else best
    where = root if isinstance(chosen, Checkpoint) else chosen.target
    why = f"called {wanted}" if wanted != "auto" else _reason(chosen, everything)
    events.emit(
        "resume-choice",
        name=chosen.name,
        where=str(where),
        step=_step(chosen),
        why=why,
        of=[f"{shown(c.name)}: {_statement(c)}" for c in sorted(everything, key=_order)[-20:]],
    )
    return chosen


def _newest(
    everything: Sequence[RemoteCheckpoint | Checkpoint],
) -> RemoteCheckpoint | Checkpoint:
    """The one with the highest step, unless one that states no step was saved after it."""
    return max(_leaders(everything), key=lambda item: item.saved)


def _leaders(
    everything: Sequence[RemoteCheckpoint | Checkpoint],
) -> list[RemoteCheckpoint | Checkpoint]:
    """The newest of those that state a step, and the newest of those that state none."""
    stating = [item for item in everything if _step(item) is not None]
    silent = [item for item in everything if _step(item) is None]
    return [max(group, key=_order) for group in (stating, silent) if group]


def _step(item: RemoteCheckpoint | Checkpoint) -> int | None:
    number = _order(item)[0]
    return number if number >= 0 else None


def _statement(item: RemoteCheckpoint | Checkpoint) -> str:
    step = item.step or step_of_name(item.name)
    return f"step {step.step} by {step.source}" if step else "no step stated"


def _reason(
    chosen: RemoteCheckpoint | Checkpoint, everything: Sequence[RemoteCheckpoint | Checkpoint]
) -> str:
    if len(everything) == 1:
        return "the only complete one"
    rivals = [item for item in everything if item.name != chosen.name]
    if _step(chosen) is None:
        return "it states no step, and was saved after all others"
    if any(_step(item) == _step(chosen) for item in rivals):
        return f"{_statement(chosen)}, and of those with that step it was saved last"
    return f"{_statement(chosen)}, the highest"


def fetch_checkpoint(s3: S3, source: RemoteCheckpoint, root: Path) -> Path:
    """Fetch a checkpoint and verify it against its note; where it is now. LaunchError 74."""
    uri = note_uri(source.target, source.name)
    note = read_note(s3.get(uri), uri)
    paths = map_keys(note.files, root)
    for name in note.files:
        if name != source.name and not name.startswith(f"{source.name}/"):
            raise LaunchError(
                f"{uri} names '{shown(name)}', which is no part of the checkpoint",
                code=FETCH_SHORT,
                kind="ResumeError",
            )
    # Counted in the file system, not by walking all of the directory's other checkpoints.
    make_place(root)
    todo = [name for name, size in note.files.items() if file_size(paths[name]) != size]
    s3.download((f"{source.target}/{name}", paths[name]) for name in todo)
    have = {name: file_size(path) for name, path in paths.items()}
    short = differences(note.files, {n: size for n, size in have.items() if size is not None})
    if short:
        raise LaunchError(
            f"checkpoint {source.name} did not arrive whole: {short[0]}",
            code=FETCH_SHORT,
            kind="FetchError",
            detail="\n".join(short[:20]),
        )
    if note.pointer:
        pointer = root / note.pointer
        beside = root / f"{OWN_PREFIX}{note.pointer}"
        beside.write_text(source.name, encoding="utf-8")
        beside.replace(pointer)  # not through a link that somebody has put there
    return root / source.name
