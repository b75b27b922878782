"""The training step of a checkpoint, as the checkpoint itself states it.

A directory's name says little: `checkpoint-best`, `final` and `last` are copies of some step, and
sort behind every number. What a trainer has written into it is asked first:

  trainer_state.json  Hugging Face Trainer: its global_step
  latest              DeepSpeed: the tag that it names ends with the step (global_step500)
  .metadata           torch.distributed.checkpoint: an entry called step, global_step or the like
  the name            checkpoint-500, step_500, iter_0000500: where nothing above says anything

Pickles are read without running anything of them: every class in them becomes an inert one.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Of a file that is read as a whole; a .metadata of a large model has some MB.
MOST_BYTES = 256 << 20

_TAG = re.compile(r"step[-_]?(\d+)$")
_NAME = re.compile(
    r"(?:^|[-_.])(?:checkpoint|ckpt|(?:global[-_]?)?steps?|iter(?:ation)?)[-_=]?(\d+)"
)
_STEP_ENTRIES = ("step", "global_step", "global_steps", "iteration", "current_step", "steps")
#: How torch.save names the storages of tensors -> struct's letter.
_STORAGES = {"LongStorage": "q", "IntStorage": "i", "DoubleStorage": "d", "FloatStorage": "f"}


@dataclass(frozen=True)
class StatedStep:
    """A step, and what stated it."""

    step: int
    source: str


def stated_step(path: Path, latest: str = "") -> StatedStep | None:
    """What the checkpoint at `path` states; `latest` is the text of DeepSpeed's file beside it."""
    step = step_of_trainer_state(_text(path / "trainer_state.json"))
    if step is not None:
        return StatedStep(step, "trainer_state.json")
    for tag in (latest if latest == path.name else "", _text(path / "latest").strip()):
        match = _TAG.search(tag)
        if match:
            return StatedStep(int(match[1]), "latest")
    step = _step_of_dcp(path)
    if step is not None:
        return StatedStep(step, ".metadata")
    return step_of_name(path.name)


def step_of_name(name: str) -> StatedStep | None:
    """The step in a checkpoint's name."""
    match = _NAME.search(name)
    return StatedStep(int(match[1]), "its name") if match else None


def step_of_trainer_state(text: str) -> int | None:
    """global_step of a trainer_state.json."""
    try:
        return _whole(json.loads(text)["global_step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _whole(value: Any) -> int | None:
    """A step is a whole number; True is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        return None
    return int(value)


def _text(path: Path) -> str:
    return _bytes(path).decode("utf-8", errors="replace")


def _bytes(path: Path, offset: int = 0, length: int = MOST_BYTES) -> bytes:
    """Of a regular file that is not too large; b"" otherwise."""
    try:
        if not path.is_file() or (path.stat().st_size > MOST_BYTES and length == MOST_BYTES):
            return b""
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)
    except OSError:
        return b""


class _Inert(dict):  # type: ignore[type-arg]
    """Any object of a pickle: its constructor's arguments and state, and no behaviour.

    A dict, because some of the classes that stand here are. Hashed by identity, because others are
    keys.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.args = args
        self.state: Any = kwargs

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def append(self, item: Any) -> None:
        """Lists are filled so."""

    def extend(self, items: Any) -> None:
        """And so."""


class _InertUnpickler(pickle.Unpickler):
    """Builds the shape of a pickle out of inert objects; imports nothing, calls nothing."""

    def find_class(self, module: str, name: str) -> Any:
        """A class of our own for each name, whatever the module."""
        del module
        return type(name, (_Inert,), {})

    def persistent_load(self, pid: Any) -> Any:
        """torch.save puts a tensor's storage here: ("storage", class, key, device, count)."""
        return pid


def _unpickled(data: bytes) -> Any:
    """The shape of a pickle; None where it is none. Any bytes may stand in such a file."""
    try:
        return _InertUnpickler(io.BytesIO(data)).load()
    except Exception:  # noqa: BLE001 - a damaged pickle raises whatever it likes
        return None


def _step_of_dcp(path: Path) -> int | None:
    """Find where the shallowest entry with a step's name is stored, and read its value."""
    data = _bytes(path / ".metadata")
    state = getattr(_unpickled(data), "state", None) if data else None
    stored = state.get("storage_data") if isinstance(state, dict) else None
    if not isinstance(stored, dict):
        return None
    candidates = []
    for index, info in stored.items():
        fqn = str(_field(index, "fqn") or "")
        parts = fqn.split(".")
        if parts[-1] in _STEP_ENTRIES:
            # Each parameter's optimizer counts, too: right, but the trainer's own counter first.
            candidates.append((len(parts), _STEP_ENTRIES.index(parts[-1]), fqn, info))
    for *_, info in sorted(candidates, key=lambda row: row[:3])[:8]:
        file, offset, length = (_field(info, n) for n in ("relative_path", "offset", "length"))
        if isinstance(file, str) and isinstance(offset, int) and isinstance(length, int):
            name = Path(file).name
            step = _saved_number(_bytes(path / name, offset, min(length, 1 << 20)))
            if step is not None:
                return step
    return None


def _field(item: Any, name: str) -> Any:
    state = getattr(item, "state", None)
    return state.get(name) if isinstance(state, dict) else None


def _saved_number(data: bytes) -> int | None:
    """The whole number in the bytes of a torch.save: a plain one, or a tensor of one element."""
    import zipfile  # costs the start of every launch otherwise

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            pickled = next(name for name in names if name.endswith("/data.pkl"))
            value = _unpickled(archive.read(pickled))
            if not isinstance(value, _Inert):
                return _whole(value)
            _, storage, key, *_ = value.args[0]
            letter = _STORAGES[storage.__name__]
            raw = archive.read(f"{pickled[: -len('data.pkl')]}data/{key}")
            return _whole(struct.unpack(f"<{letter}", raw)[0])
    except (zipfile.BadZipFile, StopIteration, KeyError, IndexError, ValueError, TypeError,
            AttributeError, struct.error, NotImplementedError, EOFError):  # fmt: skip
        return None
