"""What a job's options say, from text to values. Pure; a UsageError says what was wrong."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from slipway.core import UsageError

_PATH = re.compile(r"/[\w.@%+/-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SLURM_WORD = re.compile(r"[a-z][a-z-]*(=[\w,.:=/@%+*^~\[\]-]+)?")
#: What the scripts themselves go by: to export one of these for the container would change the job.
SCRIPTS_OWN = frozenset(
    {
        *("PATH", "IFS", "at", "code", "codes", "command", "container", "cores", "count"),
        *("deputies", "end", "ended", "ends", "file", "first", "flags", "found", "gone", "hash"),
        *("hot", "item", "launcher", "logs", "mark", "mount", "mounts", "name", "needed", "node"),
        *("nodes", "options", "outcome", "path", "pause", "pieces", "place", "quiet", "sidecar"),
        *("size", "source", "sqsh", "sqsh_digest", "sqsh_size", "started", "step", "stopped"),
        *("target", "task", "tee", "terminated", "told", "variable", "workdir"),
        *("kept", "said", "unpacks"),
        *("each_node", "folder", "lacking", "origin", "program", "python"),
    }
)
_TIME = re.compile(
    r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?", re.ASCII
)


@dataclass(frozen=True)
class ContainerMount:
    """A path of the node that the container sees."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class JobVariable:
    """An environment variable of the job; `value` None takes it from where the job is submitted."""

    name: str
    value: str | None


def absolute_path(path: str, option: str) -> str:
    """An absolute path on the cluster that pyxis and enroot can take in a list of mounts."""
    if not _PATH.fullmatch(path) or "/../" in f"{path}/":
        raise UsageError(
            f"{option} {path!r}: expected an absolute path on the cluster, of letters, digits and "
            ". _ - + @ %: lists of mounts are separated by blanks, colons and commas"
        )
    return path.rstrip("/") or "/"


def parse_mount(text: str) -> ContainerMount:
    """``SRC``, ``SRC:DST`` or ``SRC:DST:ro``."""
    parts = text.split(":")
    if len(parts) > 3 or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
        raise UsageError(f"--mount {text!r}: expected SRC, SRC:DST or SRC:DST:ro")
    source = absolute_path(parts[0], "--mount")
    target = absolute_path(parts[1], "--mount") if len(parts) > 1 else source
    if target == "/":
        raise UsageError(f"--mount {text!r} would hide the whole image")
    return ContainerMount(source, target, read_only=parts[2:] == ["ro"])


def parse_variable(text: str, own: Collection[str] = SCRIPTS_OWN) -> JobVariable:
    """``NAME=VALUE``, or ``NAME`` alone: secrets need not be written into the script.

    `own` are names that whatever starts the job uses itself.
    """
    name, equals, value = text.partition("=")
    if not _VARIABLE.fullmatch(name):
        raise UsageError(f"--env {text!r}: {name!r} is no name of an environment variable")
    if name.startswith(("SLURM_", "LAUNCH_")):
        cure = "Use --launch." if name.startswith("LAUNCH_") else "Slurm sets these itself."
        raise UsageError(f"--env {name} is not for a job to set", cure=cure)
    if name in own:
        raise UsageError(
            f"--env {name} is the script's own name, outside of the container, too",
            cure=f"Set it inside: ... -- run.sh, with `export {name}=...` in run.sh.",
        )
    if any(character in value for character in "\n\r\0"):
        # enroot's environment file has one variable a line.
        raise UsageError(f"--env {name}: a value of several lines cannot be handed to a container")
    return JobVariable(name, value if equals else None)


def slurm_option(text: str, option: str, taken: Iterable[str]) -> str:
    """``gres=gpu:8`` -> ``--gres=gpu:8``, for an option that the script does not rest upon."""
    word = text.removeprefix("--")
    if not _SLURM_WORD.fullmatch(word):
        raise UsageError(
            f"{option} {text!r}: expected NAME or NAME=VALUE, with Slurm's long names and no blanks"
        )
    name = word.partition("=")[0]
    if name in taken or name.startswith("container-"):
        raise UsageError(
            f"{option} {text!r}: the script sets --{name} itself",
            cure="Where it may be chosen, `./inv --help slurm.script` names an option for it.",
        )
    return f"--{word}"


def one_of_values(text: str, option: str, known: Sequence[str]) -> str:
    """A word that is known."""
    if text not in known:
        raise UsageError(f"{option} {text!r}: one of {', '.join(known)}")
    return text


def whole_number(text: str, option: str, low: int, high: int) -> int:
    """A whole number within bounds."""
    if not (text.isascii() and text.isdecimal() and low <= int(text) <= high):
        raise UsageError(f"{option} {text!r}: expected a whole number from {low} to {high}")
    return int(text)


def time_limit(text: str) -> int:
    """Seconds of a time limit as sbatch reads it (SchedMD's sbatch manual, --time).

    Without days: ``M``, ``M:S``, ``H:M:S``; with days: ``D-H``, ``D-H:M``, ``D-H:M:S``.
    """
    match = _TIME.fullmatch(text)
    if not match:
        raise UsageError(f"--time {text!r}: expected a form like 90, 4:00:00 or 2-12:00:00")
    first, second, third = (int(match[part] or 0) for part in ("first", "second", "third"))
    if match["days"] is not None:
        return ((int(match["days"]) * 24 + first) * 60 + second) * 60 + third
    if match["third"] is not None:
        return (first * 60 + second) * 60 + third
    return first * 60 + second
